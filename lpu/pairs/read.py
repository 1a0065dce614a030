"""Reports of `lpu afd` and `lpu replay`, as they are or from their JSON, as a difference reads them."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lpu.afd.report import AfdReport
from lpu.gpu.units import picoseconds
from lpu.inputs.document import FileError
from lpu.pairs.times import TimedReport
from lpu.traffic.reports.report import ReplayReport

Report = AfdReport | ReplayReport


def timed(source: Report, name: str) -> TimedReport:
    """A report."""
    return of_json(json.loads(json.dumps(source.to_json())), name)


def of_json(body: Any, name: str) -> TimedReport:
    """What `--json` wrote of a report. Raises FileError."""
    try:
        return READERS[str(body["schema"])](body, name)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise FileError(
            f"diff: {name}: is no report of lpu afd or replay ({type(error).__name__} at {str(error)[:60]})."
        ) from None


def report_folder(path: Path) -> Path | None:
    """The report in a folder that `lpu replay -o` wrote, if it is one."""
    found = path / "replay.json"
    return found if found.is_file() else None


def _afd(body: Mapping[str, Any], name: str) -> TimedReport:
    turns = body["turns"]
    whole: dict[str, int] = {}
    for turn in turns:
        later = turn["new_tokens"] - 1
        for parts, count, what in (("ttft", 1, ""), ("later", later > 0, ""), ("tpot", later, " of tokens")):
            for part, ps in _parts(turn[parts]).items():
                whole[part + what] = whole.get(part + what, 0) + int(count) * ps
    return TimedReport(
        name=name,
        kind=f"lpu afd --mode {body['mode']}",
        label=body["label"],
        said=tuple((str(key), str(body["machine"][key])) for key in ("model", "gpus", "bridge", "lpus")),
        times={
            "a token, in the last turn": _parts(turns[-1]["tpot"]),
            "the first token, in the first turn": _parts(turns[0]["ttft"]),
            "the whole request": whole,
            "a layer or round": _parts(body["layer"]),
        },
        asked=dict(body.get("asked", {})),
    )


def _parts(parts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in parts:
        out[str(part["name"])] = out.get(str(part["name"]), 0) + picoseconds(float(part["seconds"]))
    return out


def _replay(body: Mapping[str, Any], name: str) -> TimedReport:
    spans = body["spans_seconds"]
    means = {span: picoseconds(float(spans.get(span, {"mean": 0.0})["mean"])) for span in MEANS}
    first = {
        "queue": means["queue"],
        "prefill to first step": means["slot_wait"],
        "prompt": means["ttft"] - means["queue"] - means["slot_wait"],
    }
    machine = body["machine"]
    goodput = f"{body['goodput_requests_per_second']:,.3f} requests a second"
    return TimedReport(
        name=name,
        kind="lpu replay",
        label=body["label"],
        said=(
            *((str(key), str(machine[key])) for key in ("trace", "model", "lpus")),
            ("served", f"{body['requests_per_second']:,.3f} a second"),
            ("goodput", goodput),
        ),
        times={
            "a request, end to end, on average": first
            | {"later tokens": means["end_to_end"] - means["ttft"]},
            "the first token, on average": first,
            "a later token, on average": {"step": means["tpot"]},
        },
        asked=dict(body.get("asked", {})),
    )


MEANS = ("ttft", "tpot", "end_to_end", "queue", "slot_wait")
READERS: dict[str, Callable[[Mapping[str, Any], str], TimedReport]] = {
    "lpu-afd/2": _afd,
    "lpu-replay/1": _replay,
}
