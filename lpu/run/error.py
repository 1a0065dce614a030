"""The error of a program, weights or inputs that do not fit together."""


class MachineError(Exception):
    """The program, its weights or its inputs do not fit together; one line."""

    exit_code = 2
