"""The error of every source of weights."""


class WeightError(ValueError):
    """Weights that cannot be used: the message names file, tensor, both numbers and a remedy."""

    exit_code = 2
