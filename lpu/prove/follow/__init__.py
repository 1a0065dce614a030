"""The rows of a program followed in the order of time, block by block, with terms for what lines hold."""
