"""Results that a notebook shows: text as everywhere, a picture by Plotly, a table by pandas."""

from typing import Any

from lpu.figures.drawing import Drawing, drawn
from lpu.inputs.document import FileError
from lpu.screen import OnScreen


class Shown(OnScreen):
    """A record with a picture and a table besides its text."""

    __slots__ = ()

    def drawing(self) -> Drawing:
        """The picture, as values."""
        raise NotImplementedError

    def records(self) -> list[dict[str, Any]]:
        """The lines of the table; keys carry their units."""
        raise NotImplementedError

    def plot(self) -> Any:
        """The picture as a figure of Plotly. Raises FileError if Plotly is not installed."""
        return drawn(self.drawing())

    def to_dataframe(self) -> Any:
        """The table as a data frame of pandas. Raises FileError if pandas is not installed."""
        try:
            import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise FileError("to_dataframe: needs pandas. pip install 'lpu-emulator[notebook]'.") from None
        return pd.DataFrame.from_records(self.records())
