"""The modes in time: the parts of a turn, its figures and its events, one file each."""
