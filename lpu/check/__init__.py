"""The independent checker of a program."""
