"""Equal rows of several columns found and numbered."""

import numpy as np
from jaxtyping import Int


def numbered(
    *columns: Int[np.ndarray, " rows"],
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " different"]]:
    """The number of each row among the different ones, and the first row of every number."""
    number = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = np.unique(column, return_inverse=True)[1].reshape(-1)
        number = np.unique(number * (len(values) + 1) + values, return_inverse=True)[1].reshape(-1)
    return number, np.unique(number, return_index=True)[1]
