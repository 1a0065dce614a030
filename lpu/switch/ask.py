"""`switch`: from one model on a rack to another, as a program that is checked against both."""

from dataclasses import replace
from pathlib import Path
from typing import TypeGuard, Unpack

from compiler.errors import CapacityError
from compiler.moves.switch import compile_switch
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.manifest import Step, Waves
from compiler.program.program import Program
from compiler.source import traced
from fabric.host import RESERVOIR, Reservoir
from fabric.numbering import in_order, numbering
from fabric.rack import Damage, Rack
from lpu.check.check import require
from lpu.check.follow.image import check_switch
from lpu.compiled import Compiled, programs_of
from lpu.folder import Progress, check_program, quiet
from lpu.inputs.document import FileError
from lpu.inputs.files import read_rack
from lpu.inputs.model import OpenModel
from lpu.inputs.open import Model, open_model
from lpu.keywords import Keywords, ModelKeywords, chosen
from lpu.switch.options import SwitchOptions
from lpu.switch.switched import Switched
from lpu.switch.weights import with_weights

Side = Model | OpenModel | Program | Compiled


def switch(
    before: Side,
    after: Side,
    *,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    how: SwitchOptions | None = None,
    reservoir: Reservoir = RESERVOIR,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> Switched:
    """From one model on a rack to another: which weights come when, over which lane, how long none serves.

    before, after: programs or their folders; models are compiled for the rack, both with the options and
    keywords. Everything is checked. Raises FileError, CompileError (CapacityError where `after` never fits).
    """
    settled, about = chosen("switch", options, keywords)
    how = how or SwitchOptions()
    machine = rack if isinstance(rack, Rack) else read_rack(rack)
    asked = _Asked(machine, settled, about, progress)
    if how.keep_kv:
        first, second = asked.renewed(before, after)
    else:
        first = asked.program(before, "before")
        used = sorted({chip for group in first.manifest.groups for chip in group})
        second = asked.program(after, "after", used if how.free else [])
    progress("switch", 0, 1)
    made = compile_switch(first, second, reservoir, serving=how.serving, keeps=how.keep_kv)
    for report in (*check_program(made, progress).values(), check_switch(first, second, made)):
        require(report)
    return Switched(before=first, after=second, program=made)


class _Asked:
    """What programs are made with, where a model is given."""

    def __init__(self, rack: Rack, options: CompileOptions, about: ModelKeywords, progress: Progress) -> None:
        self.rack, self.options, self.about, self.progress = rack, options, about, progress

    def program(self, side: Side, name: str, used: list[int] | None = None) -> Program:
        """A program, as it is or compiled and checked; of a model, without `used` chips if it fits there."""
        if isinstance(side, (Program, Compiled)) or _is_saved(side):
            found = programs_of(side)[0]
        else:
            opened = side if isinstance(side, OpenModel) else open_model(side, **self.about)
            found = self._placed(opened, used or [])
            for report in check_program(found, self.progress).values():
                require(report)
        if not isinstance(found.manifest.body, Step | Waves):
            raise FileError(f"switch: {name} is of kind {found.manifest.kind!r} and decodes no tokens.")
        return found

    def renewed(self, before: Side, after: Side) -> tuple[Program, Program]:
        """A program and the same for other weights: those that are asked for are of the one after."""
        if isinstance(after, (Program, Compiled)) or _is_saved(after):
            raise FileError("switch: --keep-kv: B is a program. Give its model and --weights.")
        old = self.about.copy()
        old.pop("weights", None)
        first = _Asked(self.rack, self.options, old, self.progress).program(before, "before")
        manifest = first.manifest
        same = ModelKeywords(batch=manifest.rows, context=manifest.contexts, kv=manifest.model.kv)
        same.update(self.about)
        opened = after if isinstance(after, OpenModel) else open_model(after, **same)
        second = with_weights(first, opened)
        for report in check_program(second, self.progress).values():
            require(report)
        return first, second

    def _placed(self, opened: OpenModel, used: list[int]) -> Program:
        model = traced(opened.source())
        if used and (self.rack.chips > len(used)):
            aside = _aside(self.rack, used)
            order = [chip for chip in numbering(self.rack).chips.tolist() if chip not in set(used)]
            try:
                numbers = in_order(aside, order)
                return compile_program(model, self.rack, self.options, self.progress, numbers=numbers)
            except CapacityError:
                pass
        return compile_program(model, self.rack, self.options, self.progress)


def _is_saved(side: object) -> TypeGuard[str | Path]:
    """Whether a side is the folder of a program."""
    return isinstance(side, (str, Path)) and (Path(side) / "manifest.json").is_file()


def _aside(rack: Rack, used: list[int]) -> Rack:
    """The rack without chips that work but have another model."""
    damage = rack.damage or Damage(faults=(), dead=(), cut=(), bad=(), whole=rack)
    return replace(rack, damage=replace(damage, avoided=tuple(sorted({*damage.avoided, *used}))))
