"""Pictures of a replay, by matplotlib (an extra): who waited how long, and when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpu.inputs.document import FileError
from lpu.traffic.outcome import Outcome

STILL = {"metadata": {"Software": None}}  # the same bytes for the same replay
MOST_POINTS = 20_000


def need_matplotlib() -> Any:
    """Matplotlib's Figure; FileError if it is not installed."""
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise FileError(
            "replay: --pictures needs matplotlib. pip install 'lpu-emulator[matplotlib]'."
        ) from None
    return Figure


def draw(folder: Path, outcomes: Sequence[Outcome], name: str) -> None:
    """`spans.png`: the share of requests within a time. `queue.png`: TTFT by arrival, of the first seed."""
    make = need_matplotlib()
    figure = make(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    for label, attribute in (("TTFT", "ttft"), ("end to end", "end_to_end"), ("queue", "queue")):
        values = np.sort(np.concatenate([getattr(one, attribute) for one in outcomes]))
        if len(values):
            at = np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).astype(int)
            axes.plot(values[at] * 1000, (at + 1) / len(values), label=label)
    axes.set(xlabel="milliseconds", ylabel="share of requests within", xscale="symlog", title=name)
    axes.legend()
    figure.savefig(folder / "spans.png", dpi=120, **STILL)
    figure = make(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    first = outcomes[0]
    step = max(1, len(first.ttft) // MOST_POINTS)
    arrivals = first.arrived[first.served] / first.clock_hz
    axes.plot(arrivals[::step], first.ttft[::step] * 1000, ".", markersize=2)
    axes.set(xlabel="arrival, seconds", ylabel="TTFT, milliseconds", title=name)
    figure.savefig(folder / "queue.png", dpi=120, **STILL)
