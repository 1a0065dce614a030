"""The keys of a JSON file of other people's, read with their types; errors name file, key and value."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.sources.error import WeightError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `WeightError` with file and line when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        here = "its folder exists" if path.parent.is_dir() else f"nor is there a folder {path.parent}"
        raise WeightError(
            f"{path}: not found ({here}). Nothing is downloaded: fetch the checkpoint, then name its folder."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise WeightError(f"{path}:{error.lineno}:{error.colno}: no JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise WeightError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise WeightError(f"{path}: holds a JSON {type(value).__name__}, expected an object.")
    return value


SHOWN = 90  # letters of a value in an error
LARGEST = 3.4028234663852886e38  # of f32, in which models compute


def _is_finite(value: object) -> bool:
    """Whether a value of JSON is a number that f32 holds."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # pyright: ignore[reportOperatorIssue]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one JSON object, read with their types; null is as absent. seen: those asked for."""

    path: Path
    values: dict[str, Any]
    prefix: str = ""  # the object's own place in the file
    seen: set[str] = field(default_factory=set[str], compare=False)

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is, null too; the default where the key is absent."""
        self.seen.add(key)
        return self.values.get(key, default)

    def error(self, key: str, value: object, why: str) -> WeightError:
        """An error that names file, key and value, of a long one the beginning."""
        text = repr(value)
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        return WeightError(f"{self.path}: {self.prefix}{key} is {shown}: {why}.")

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self._required(key, default)
        if type(value) is not int or value < 1:
            raise self.error(key, value, "it is a whole number of at least 1")
        if value >= 1 << 64:
            raise self.error(key, value, "the most is 2^64 - 1")
        return value

    def stated(self, key: str, default: int) -> int:
        """A whole number of at least 1; the default where the key is absent, null is an error."""
        return self.integer(key, None if key in self.values else default)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number of f32."""
        value = self._required(key, default)
        if not _is_finite(value):
            raise self.error(key, value, "it is a finite number of f32")
        return float(value)

    def divisor(self, key: str, default: float) -> float:
        """A finite number above 0."""
        value = self.number(key, default)
        if value <= 0:
            raise self.error(key, value, "it must be above 0")
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of that many finite numbers."""
        values = self._required(key, None)
        if not isinstance(values, list) or len(values) != count:
            size = f", not {len(values)}" if isinstance(values, list) else ""
            raise self.error(key, values, f"it is a list of {count} numbers{size}")
        for value in values:
            if not _is_finite(value):
                raise self.error(key, value, "it is a list of finite numbers")
        return tuple(map(float, values))

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._required(key, default)
        if not isinstance(value, str):
            raise self.error(key, value, "it is a string")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._required(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "it is true or false")
        return value

    def table(self, key: str) -> "Keys":
        """A nested object; empty when absent."""
        value = self._required(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "it is an object")
        return Keys(self.path, value, f"{self.prefix}{key}.")

    def _required(self, key: str, default: object) -> Any:
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise WeightError(f"{self.path}: {self.prefix}{key} is missing. Add it, as the authors give it.")
        return value
