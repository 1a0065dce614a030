"""Writes pages: `--html FILE` of `lpu report`, `lpu diff`, `lpu afd`, `lpu energy` and `lpu replay`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpu.afd.report import AfdReport
from lpu.compiled import ProgramLike, programs_of
from lpu.diff.diff import Difference
from lpu.diff.sensitivity import of as sensitivity_of
from lpu.energy.ask import Energy
from lpu.folder import Progress, need_step, quiet
from lpu.inputs.document import FileError
from lpu.outputs.ours import sealed_page
from lpu.outputs.write import check_writable, write_file
from lpu.page.difference import difference_page, racks_page, times_page
from lpu.page.divided import divided_page
from lpu.page.html import Page, html
from lpu.page.priced import priced_page
from lpu.page.program import program_page
from lpu.page.replayed import replay_page
from lpu.pairs.ask import AnyDifference
from lpu.pairs.racks import RackDifference
from lpu.pairs.times import TimesDifference
from lpu.programs import check as check_of
from lpu.programs import report as report_of
from lpu.prove.programs import proof_line
from lpu.report.walk import block_chains
from lpu.screen import OnScreen
from lpu.traffic.reports.report import ReplayReport

OPTION = "--html"
NOT_CHECKED = "not asked for: lpu check"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PageFile(OnScreen):
    """A page that was written."""

    path: str
    context: int | None
    digest: str
    bytes: int

    def __str__(self) -> str:
        return f"saved       {self.path}: {self.bytes / 1e6:.1f} MB, opens in a browser without a network"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-page-file/1",
            "file": self.path,
            "bytes": self.bytes,
            "context": self.context,
            "program_sha256": self.digest,
        }


def page(
    what: ProgramLike | AnyDifference | AfdReport | Energy | ReplayReport,
    output: str | Path,
    *,
    context: int | None = None,
    check: bool = True,
    again: bool | None = None,
    progress: Progress = quiet,
) -> PageFile:
    """Write the report of a program as one HTML file: rack, schedule, memory, bounds, sensitivity, sources.

    what: a program, or a difference of two: causes, and cycles by block, unit, link, exchange and wait; GPUs
    and LPUs in time; energy, with power by cycle where it was asked for; or a replay with its distributions.
    context: a bucket, the longest if not given. check: hold it against the rules of the machine first, for
    the page to say so. again: compile it again for each number of the machine, as `sensitivity` does.
    Raises FileError for another context, a file that cannot be written, no Plotly.
    """
    check_writable(output, OPTION)
    if isinstance(what, Difference):
        return _written(difference_page(what), output, what.b.context, what.b.digest)
    if isinstance(what, TimesDifference):
        return _written(times_page(what), output, None, "")
    if isinstance(what, RackDifference):
        return _written(racks_page(what), output, None, "")
    if isinstance(what, AfdReport):
        return _written(divided_page(what), output, None, dict(what.machine)["digest"])
    if isinstance(what, Energy):
        return _written(priced_page(what), output, None, what.digest)
    if isinstance(what, ReplayReport):
        return _written(replay_page(what), output, None, what.digest)
    loaded, _ = programs_of(what)
    need_step(loaded, str(what) if isinstance(what, (str, Path)) else "program")
    known = loaded.manifest.contexts
    bucket = max(known) if context is None else context
    if bucket not in known:
        raise FileError(f"report: --context {bucket}: the program has {', '.join(map(str, known))}.")
    verdicts = [("check", NOT_CHECKED), ("certificate", "bits are compared by lpu certify, not here")]
    if check:
        progress("check", 0, 3)
        found = check_of(what)
        rules = [f"{report} (context {where})" for where, report in found.reports.items()]
        proof = proof_line(found.proof) if found.ok else "prove: only of a legal program"
        verdicts = [("check", "; ".join(rules)), ("proof", proof), ("machine", found.machine), verdicts[1]]
    progress("draw", 1, 3)
    chains = block_chains(loaded, bucket)
    found = sensitivity_of(loaded, chains, bucket, again, progress)
    told = report_of(what)
    bounds = next(one.bounds for one in told.occupancy if one.context == bucket)
    made = program_page(loaded, found, chains, verdicts, bounds, told.to_json())
    progress("write", 2, 3)
    return _written(made, output, bucket, loaded.manifest.digest)


def _written(made: Page, output: str | Path, context: int | None, digest: str) -> PageFile:
    data = sealed_page(html(made))
    write_file(output, data, OPTION)
    return PageFile(path=str(output), context=context, digest=digest, bytes=len(data))
