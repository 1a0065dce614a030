"""The log of a replay: a line for every request, as CSV or Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpu.inputs.document import FileError
from lpu.traffic.outcome import SERVED, Outcome

WORDS = ("served", "too_long", "refused")
CHUNK = 100_000


def columns_of(outcome: Outcome, seed: int) -> dict[str, Any]:
    """Arrays by name, one entry per request. Cycles are those of the LPUs' clock; -1: there is none.

    Spans are in microseconds, nan for requests that were not served (tpot: of one token).
    """
    served = outcome.status == SERVED
    us = 1e6 / outcome.clock_hz

    def cycles(values: Any, known: Any = served) -> Any:
        return np.where(known, values, -1)

    def span(begin: Any, end: Any, known: Any = served) -> Any:
        return np.where(known, (end - begin) * us, np.nan)

    later = np.maximum(outcome.outputs - 1, 1)
    return {
        "seed": np.full(len(served), seed),
        "request": np.arange(len(served)),
        "status": np.array(WORDS)[outcome.status],
        "input_tokens": outcome.inputs,
        "output_tokens": outcome.outputs,
        "block_hits": outcome.block_hits,
        "arrived_cycle": outcome.arrived,
        "prefill_cycle": cycles(outcome.started),
        "prefilled_cycle": cycles(outcome.computed, served & (outcome.computed > 0)),
        "handed_cycle": cycles(outcome.ready),
        "joined_cycle": cycles(outcome.joined),
        "first_token_cycle": cycles(outcome.first),
        "last_token_cycle": cycles(outcome.last),
        "queue_us": span(outcome.arrived, outcome.started),
        "ttft_us": span(outcome.arrived, outcome.first),
        "tpot_us": np.where(
            served & (outcome.outputs > 1), (outcome.last - outcome.first) / later * us, np.nan
        ),
        "end_to_end_us": span(outcome.arrived, outcome.last),
    }


def write_log(folder: Path, outcomes: Sequence[Outcome], seeds: Sequence[int], kind: str) -> Path:
    """Write `requests.csv` or `requests.parquet` into a folder. Raises FileError without pyarrow."""
    tables = [columns_of(outcome, seed) for outcome, seed in zip(outcomes, seeds, strict=True)]
    path = folder / f"requests.{kind}"
    if kind == "csv":
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(",".join(tables[0]) + "\n")
            for table in tables:
                file.writelines(_lines(table))
        return path
    arrow, parquet = need_pyarrow()
    whole = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    parquet.write_table(arrow.table(whole), path)
    return path


def need_pyarrow() -> tuple[Any, Any]:
    """Pyarrow, and its module for Parquet. Raises FileError."""
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
        from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise FileError(
            "replay: --log parquet needs pyarrow. pip install 'lpu-emulator[parquet]', or use --log csv."
        ) from None
    return pyarrow, parquet


def _lines(table: dict[str, Any]) -> Iterator[str]:
    """Rows of a table as text; spans with a digit for every nanosecond, nothing where there is none."""
    count = len(table["request"])
    for begin in range(0, count, CHUNK):
        cells: list[list[str]] = []
        for values in table.values():
            some = values[begin : begin + CHUNK]
            if some.dtype.kind == "f":
                cells.append(["" if value != value else f"{value:.3f}" for value in some.tolist()])
            else:
                cells.append([str(value) for value in some.tolist()])
        yield from (",".join(row) + "\n" for row in zip(*cells, strict=True))
