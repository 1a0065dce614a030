"""Machines with more of something: a model takes no more cycles on one than on the same with less of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from renumbered import level

from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.throughput.filled import SCALE
from fabric.catalog import chip_spec
from fabric.chip import stated
from fabric.rack import Rack, build_rack
from fabric.topology import Level, RackSpec
from lpu.inputs.model import OpenModel
from lpu.inputs.open import open_model

MODELS = ("llama-tiny", "moe-tiny", "mla-tiny", "deepseek-tiny")
CHIPS = ("tiny", "lp30")
KNOBS: dict[str, tuple[int, ...]] = {
    "planes": (1, 2, 3, 4, 6, 8),
    "vxm_chains": (1, 2, 3, 4, 8, 16),
    "accumulators": (1, 2, 4, 16),
    "activation_ports": (8, 16, 32, 64),
    "sram": (1, 2, 4),
    "lanes": (1, 2, 3, 4, 8),
    "links": (1, 2, 3, 4),
    "chips": (4, 8, 12, 16),
}
KINDS: dict[str, CompileOptions] = {
    "search": CompileOptions(),
    "columns": CompileOptions(tp=4),
    "rows": CompileOptions(tp=2, layout="row"),
    "waves": CompileOptions(tp=2, objective="throughput"),
    "prefill": CompileOptions(tp=4),
}


def levels(lanes: int = 2, chips: int = 8, links: int = 2) -> dict[str, tuple[Level, ...]]:
    """The levels of each form of rack, with that much of what there can be more of."""

    def one(name: str, kind: str, size: int, shape: tuple[int, ...] = ()) -> Level:
        return replace(level(name, kind, size, shape), lanes=lanes)  # pyright: ignore[reportArgumentType]

    return {
        "tray": (one("tray", "all-to-all", chips),),
        "ring": (one("ring", "ring", 8),),
        "torus": (one("torus", "torus", 8, (2, 4)),),
        "mesh": (one("row", "line", 4), one("column", "line", chips // 4)),
        "dragonfly": (one("tray", "all-to-all", 4), level("rack", "dragonfly", 4, links=links)),
    }


FORMS = tuple(levels())
OF_A_FORM = {"links": ("dragonfly",), "chips": ("tray", "mesh")}  # a ring of more chips is another machine
CASES = [
    (model, chip, form, knob, kind)
    for model in MODELS
    for chip in CHIPS
    for knob in KNOBS
    for form in OF_A_FORM.get(knob, FORMS)
    for kind in KINDS
]


def with_knob(form: str, name: str, knob: str, value: int) -> Rack:
    """A rack of that form whose chips, or whose wires, have `value` of something."""
    chip, wires = chip_spec(name), {"lanes", "chips", "links"}
    numbers = {} if knob in wires else {knob: value}
    if knob == "sram":
        numbers = {"sram_bytes": value * chip.sram_bytes}
    made = levels(**({knob: value} if knob in wires else {}))[form]
    spec = RackSpec(name="knob", chip=name, forward_ns=50, levels=made)
    spec = replace(spec, sources=stated(spec.numbers(), (), "test"))
    return build_rack(spec, chip.with_numbers("test", **numbers, lanes=1000))


@cache
def model(name: str) -> OpenModel:
    return open_model(name, context=[80])


def cycles(name: str, rack: Rack, kind: str) -> int:
    """Cycles of a step, from one user's token to the next user's, or of a step and a chunk."""
    one, options = model(name), KINDS[kind]
    if kind == "prefill":
        programs = compile_pair(one.source(), one.source(8), rack, options)
    else:
        programs = (compile_program(one.source(), rack, options),)
    body = programs[0].manifest.body
    if body.kind == "waves":
        return max(one.turn * one.interval * SCALE // body.users for one in body.contexts.values())
    return sum(max(program.manifest.cycles.values()) for program in programs)


def taken(name: str, rack: Callable[[int], Rack], values: tuple[int, ...], kind: str) -> list[int]:
    """Cycles with each value, the least first; those with too little of it to compile are left out."""
    found: list[int] = []
    for value in values:
        try:
            found.append(cycles(name, rack(value), kind))
        except (CapacityError, OptionError):
            assert not found, f"{value} is refused, and less was not"
    return found


def hold_enlarged(case: int) -> str:
    """A model, a form of rack, a kind of program and a knob: with more of it no cycle more."""
    name, chip, form, knob, kind = CASES[case]
    took = taken(name, lambda value: with_knob(form, chip, knob, value), KNOBS[knob], kind)
    assert took == sorted(took, reverse=True), f"{CASES[case]}: {took} with {KNOBS[knob]}"
    return "held" if len(took) > 1 else "refused"


def kind_of(case: int) -> str:
    """The knob of a case."""
    return CASES[case][3]
