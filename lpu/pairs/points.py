"""A placement of a comparison as a program: `RESULTS/STRATEGY[:SEED][@RACK]`, compiled again."""

from pathlib import Path

from compiler.errors import CompileError
from compiler.program.program import Program
from lpu.compare.point import Task, program_of
from lpu.compare.results import POINTS, kept_points
from lpu.inputs.document import FileError
from lpu.screen import plain

FEW = 6  # points that a complaint names


def is_point(name: Path) -> bool:
    """Whether a path names a point of a results folder that `lpu compare -o` wrote."""
    return not name.exists() and (name.parent / POINTS).is_file()


def point_program(name: Path) -> Program:
    """The program of the point, which has the digest that the comparison kept. Raises FileError."""
    asked, _, rack = name.name.partition("@")
    strategy, _, seed = asked.partition(":")
    found = kept_points(name.parent)
    mine = [
        (task, point)
        for task, point in found
        if task["strategy"] == strategy and seed in ("", str(task["seed"])) and rack in ("", task["rack"])
    ]
    if len(mine) > 1 and not seed:
        mine = [one for one in mine if one[0]["seed"] == mine[0][0]["seed"]] or mine
    if len(mine) != 1:
        known = [f"{task['strategy']}:{task['seed']}@{task['rack']}" for task, _ in (mine or found)]
        raise FileError(
            f"diff: {plain(str(name))}: {len(mine) or 'no'} such points. Name one of "
            f"{', '.join(map(plain, known[:FEW]))}{', ...' if len(known) > FEW else ''}."
        )
    ((task, point),) = mine
    if point["error"]:
        raise FileError(f"diff: {plain(str(name))}: has no program: {plain(point['error'], 200)}")
    try:
        made = program_of(Task(**task))
    except CompileError as error:
        raise FileError(f"diff: {plain(str(name))}: {plain(str(error), 200)}") from None
    if made.manifest.digest != point["program_sha256"]:
        raise FileError(
            f"diff: {plain(str(name))}: compiled again it has digest {made.manifest.digest[:16]}, kept was "
            f"{point['program_sha256'][:16]}: model, rack or version is another one now. Compare again."
        )
    return made
