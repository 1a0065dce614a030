"""BurstGPT traces: Timestamp (seconds), Request tokens, Response tokens. Source: facts/serving.md 5.4."""

from lpu.traffic.readers.lines import Ascending, At, seconds_in, table_of, tokens_in
from lpu.traffic.trace import Trace, TraceLines

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


def is_burstgpt(first: str) -> bool:
    """Whether the first line of a file is that of such a trace."""
    cells = {cell.strip().strip('"') for cell in first.split(",")}
    return "Timestamp" in cells or {"Request tokens", "Response tokens"} <= cells


def read_burstgpt(at: At) -> Trace:
    """The requests of the file; those that failed, without tokens of an answer, are left out.

    Raises FileError.
    """
    made, ascending = TraceLines(at.path.name), Ascending(at)
    for time, prompt, new in table_of(at, COLUMNS):
        response = tokens_in(at, "Response tokens", new, 0)
        made.add(
            ascending(seconds_in(at, "Timestamp", time), time),
            tokens_in(at, "Request tokens", prompt, min(response, 1)),
            response,
        )
    return made.trace()
