"""Numbers of a machine that a sweep can change, by key: one new value in, another rack out.

Keys are every number of the chip (`planes`, `vxm_latency_cycles`), `forward_ns`, each level's own
`tray.lanes` and `tray.hop_ns`, and two for the whole rack: `hop_ns` is the hop of the first level (of the
first link where a rack has no levels), and every other hop changes by the same factor, rounded to whole
nanoseconds; `lanes` is a factor on the lanes of every link and of the chip. Every other number keeps its
value: numbers of the file in nanoseconds stay nanoseconds, those in cycles stay cycles. docs/sweeps.md says
what to vary.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from fabric.catalog import chip_spec
from fabric.chip import ChipSpec, Sourced
from fabric.faults.broken import break_rack
from fabric.rack import Rack, build_rack
from fabric.topology import Level, RackSpec
from lpu.inputs.document import FileError

PRESETS = ("lp30", "lp30-p6", "lp30-p8")
SAME_RATES = ("clock_hz", "planes", "sram_bytes_per_cycle", "activation_ports", "slot_cycles")
"""What differs between the presets. All have the FLOPS, the SRAM and the lane bytes per second that NVIDIA
publishes. Source: facts hardware.md 1.1."""

REASON = "set by --sweep"


def keys(rack: Rack) -> tuple[str, ...]:
    """Every key of this rack."""
    chip = [name for name in rack.chip.numbers() if name != "lanes"]
    levels = [f"{level.name}.{what}" for level in rack.spec.levels for what in ("lanes", "hop_ns")]
    return (*chip, "hop_ns", "forward_ns", "lanes", *levels)


def default(rack: Rack, key: str) -> str:
    """The value of a key in the rack. Raises FileError for an unknown key."""
    if key not in keys(rack):
        raise FileError(f"sweep: {key!r} is no number of {rack.name}. It has {', '.join(keys(rack))}.")
    if key == "lanes":
        return "1"
    level, _, what = key.rpartition(".")
    if level:
        return str(next(getattr(one, what) for one in rack.spec.levels if one.name == level))
    if key == "hop_ns":
        return str(_first_hop(rack.spec))
    return str(rack.spec.forward_ns if key == "forward_ns" else rack.chip.numbers()[key])


def changed(rack: Rack, key: str, text: str) -> Rack:
    """The rack with one number changed and marked as assumed. Raises FileError."""
    before = default(rack, key)
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise FileError(f"sweep: {key}={text}: is no number") from None
    if value == Fraction(before):
        return rack
    try:
        made = _changed(rack, key, value)
        return made if rack.damage is None else break_rack(made, rack.damage.faults)
    except ValueError as error:
        raise FileError(f"sweep: {key}={text}: {error}") from None


def _changed(rack: Rack, key: str, value: Fraction) -> Rack:
    spec, chip = rack.spec, rack.chip
    level, _, what = key.rpartition(".")
    if key == "lanes":
        chip = chip.with_numbers(REASON, lanes=_whole(chip.lanes * value, "lanes of a chip", up=True))
        return build_rack(_each(spec, "lanes", lambda lanes: _whole(lanes * value, "the lanes")), chip)
    if key == "hop_ns":
        factor = Fraction(_at_least_1(_whole(value)), _first_hop(spec))
        return build_rack(_each(spec, "hop_ns", lambda ns: max(round(ns * factor), 1)), chip)
    if key == "forward_ns":
        return build_rack(_marked(replace(spec, forward_ns=_whole(value)), key), chip)
    if level:
        spec = _each(spec, what, lambda _: _whole(value), level)
        return build_rack(spec, chip)
    if key == "planes":
        chip = _planes(chip, _whole(value))
    else:
        number = float(value) if key == "weight_install_frac" else _whole(value)
        chip = chip.with_numbers(REASON, **{key: number})
    return build_rack(_same_seconds(spec, rack.chip, chip), chip)


def planes_keep_rates(chip: ChipSpec) -> bool:
    """Whether a change of `planes` changes the clock too, so that the chip's published rates stay equal."""
    return any(all(getattr(chip, n) == getattr(chip_spec(p), n) for n in SAME_RATES) for p in PRESETS)


def _planes(chip: ChipSpec, planes: int) -> ChipSpec:
    if not planes_keep_rates(chip):
        return chip.with_numbers(REASON, planes=planes)
    known = {chip_spec(name).planes: chip_spec(name) for name in PRESETS}
    if planes not in known:
        some = ", ".join(map(str, known))
        raise ValueError(f"at the published rates {chip.name} is known with {some} planes")
    return chip.with_numbers(REASON, **{name: getattr(known[planes], name) for name in SAME_RATES})


def _same_seconds(spec: RackSpec, before: ChipSpec, chip: ChipSpec) -> RackSpec:
    """If `slot_cycles` of the chip changed, the levels' own `slot_cycles` change by the same factor."""
    factor = Fraction(chip.slot_cycles, before.slot_cycles)
    levels = [
        level
        if level.slot_cycles is None
        else replace(level, slot_cycles=max(round(level.slot_cycles * factor), 1))
        for level in spec.levels
    ]
    return replace(spec, levels=tuple(levels))


def _each(spec: RackSpec, what: str, change: Callable[[int], int], only: str = "") -> RackSpec:
    """`lanes` or `hop_ns` changed on every level and link, or on the level `only`."""

    def new(level: Level) -> Level:
        if only not in ("", level.name):
            return level
        if what == "lanes":
            return replace(level, lanes=change(level.lanes))
        return replace(level, hop_ns=change(level.hop_ns))

    links = spec.links
    if not only and what == "lanes":
        links = tuple((a, b, change(lanes), ns) for a, b, lanes, ns in links)
    elif not only:
        links = tuple((a, b, lanes, change(ns)) for a, b, lanes, ns in links)
    levels = tuple(new(level) for level in spec.levels)
    fields = [f"{level.name}.{what}" for level in levels if only in ("", level.name)]
    return _marked(replace(spec, levels=levels, links=links), *fields, "" if only else "links")


def _marked(spec: RackSpec, *fields: str) -> RackSpec:
    """The spec with the sources of `fields` replaced: assumed, set by the sweep."""
    sources = [
        Sourced(field=s.field, confidence="assumed", source=REASON) if s.field in fields else s
        for s in spec.sources
    ]
    return replace(spec, sources=tuple(sources))


def _first_hop(spec: RackSpec) -> int:
    if spec.levels:
        return spec.levels[0].hop_ns
    return spec.links[0][3] if spec.links else 1


def _at_least_1(value: int) -> int:
    if value < 1:
        raise ValueError("needs at least 1")
    return value


def _whole(value: Fraction, what: str = "the number", up: bool = False) -> int:
    if value.denominator != 1 and not up:
        raise ValueError(f"{what} would be {float(value):g}, needs a whole number")
    return -(-value.numerator // value.denominator)
