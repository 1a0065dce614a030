"""Served LLMs on GroqChip1 racks, in a band over what is not published; and Gemma-4-31B on LPX, as bounds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product

from fabric.chip import ChipSpec
from lpu.report.words import CAUTION_FACTOR
from lpu.validate.cases.fitted import Fitted
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.suite import Case, Suite
from lpu.validate.cases.tsp.machine import PublishedMachine, catalog_machine
from lpu.validate.cases.tsp.served_model import Chips, LayerModel, fitted_share, tokens_per_second

LLM, GEMMA, CAUTION = 401, 402, 403
TP, NODES = (8,), (8, 16)
PHASE_NS = 722  # of an all-reduce as served (hardware.md 3.2)
REDUCES = (
    2,
    4,
)  # of a layer: after o and down; with those before qkv and gate where activations are split too
SHARES_OF_CONTEXT = (0.25, 1.0)  # of the longest: users stand anywhere in it
VECTOR_US = (2.0, 5.0)  # assumed: programs of this project take 3
HOST_US = (
    20.0,
    200.0,
)  # PCIe 10 us each way (hardware.md 4, case 11), and up to 180 for sampling and software
BARE_VECTOR_US = 3.0

LLAMA_2_70B = LayerModel(
    name="Llama-2-70B, 576 chips", layers=80, hidden=8192, weights=80 * 855_638_016, kv_full=2 * 1024,
    fp16=False, context=1536,
)  # fmt: skip
SERVED: tuple[tuple[LayerModel, int, tuple[int, ...], Kind], ...] = (
    (LLAMA_2_70B, 300, TP, "fit"),
    (
        LayerModel(
            name="Llama-2-7B", layers=32, hidden=4096, weights=32 * 202_375_168, kv_full=2 * 4096,
            fp16=True, context=2048,
        ),
        750, NODES, "check",
    ),
    (
        LayerModel(
            name="Llama-3-8B", layers=32, hidden=4096, weights=32 * 218_103_808, kv_full=2 * 1024,
            fp16=True, context=8192,
        ),
        877, NODES, "check",
    ),
    (replace(LLAMA_2_70B, name="Llama-3-70B", context=8192), 284, TP, "check"),
)  # fmt: skip
"""(model, tokens/s/user, chips that a layer may lie on, role). Source: facts served_speeds.md.

8-bit weights of Llama-2-70B are published (69 GB); 16 bits of the small ones are assumed."""

GEMMA_4_31B = LayerModel(
    name="Gemma-4-31B", layers=60, hidden=5376, weights=30_697_345_536, fp16=False,
    context=100_000, kv_bytes=1,
    kv_full=2 * 4 * 512 * 10 / 60, kv_near=2 * 16 * 256 * 50 / 60, window=1024,
)  # fmt: skip
GEMMA_POINTS = (
    ("100K, independent", 100_000, 3431),
    ("10K, independent", 10_000, 3382),
    ("16K, vendor", 16_000, 10_996),
)
SPECULATED = 3.0  # tokens a step with a drafter, at most; 1.5 to 2 is what is quoted (hardware.md 2.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corner:
    """One choice of all that is not published, and the share of the install rate fitted in it."""

    on: Chips
    reduces: int
    of_context: float


def corners(machine: PublishedMachine) -> tuple[Corner, ...]:
    """Every corner, with the share that makes Llama-2-70B as fast as it was."""
    out: list[Corner] = []
    link = float(machine.bytes_per_second(1))
    for reduces, share, vector, host in product(REDUCES, SHARES_OF_CONTEXT, VECTOR_US, HOST_US):
        on = Chips(
            install=install_rate(machine.chip),
            phase=1e-9 * PHASE_NS,
            link=link,
            vector=1e-6 * vector,
            host=1e-6 * host,
        )
        asked = TP[0], reduces, round(share * LLAMA_2_70B.context)
        fitted = fitted_share(on, LLAMA_2_70B, *asked, rate=SERVED[0][1])
        out.append(Corner(on=replace(on, share=fitted), reduces=reduces, of_context=share))
    return tuple(out)


def install_rate(chip: ChipSpec) -> float:
    """Bytes a second that all planes of a chip install."""
    return float(chip.plane_bytes_per_cycle * chip.planes * chip.clock_hz)


def llm_points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """The four served rows, each beside the same with 8-bit weights where 16 are assumed."""
    found = corners(machine)
    out: list[PublishedPoint] = []
    for model, rate, groups, role in SERVED:
        out.append(_banded(model.name, role, rate, _rates(found, model, groups)))
        if model.fp16:
            other = replace(model, fp16=False)
            out.append(_banded(f"{model.name} if of 8 bits", "shown", rate, _rates(found, other, groups)))
    bare = tokens_per_second(_bare(machine), LLAMA_2_70B, TP[0], REDUCES[0], LLAMA_2_70B.context)
    out.append(_banded("Llama-2-70B by the hardware alone", "shown", SERVED[0][1], [bare]))
    return tuple(out)


def gemma_points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """Bounds for LPX: from the older chip's share of the install rate and phases to the hardware alone."""
    chip = machine.later.chip
    hop = 1e-9 * machine.later.spec.levels[0].hop_ns
    shares = [corner.on.share for corner in corners(machine)]
    link = 8 * chip.clock_hz * 320 / chip.slot_cycles
    vector = 1e-6 * BARE_VECTOR_US * machine.chip.clock_hz / chip.clock_hz
    bare = Chips(install=install_rate(chip), phase=hop, link=link, vector=vector, host=0.0)
    slow = replace(
        bare, phase=hop * PHASE_NS / 300, host=1e-6 * HOST_US[1], share=min(shares), vector=2 * vector
    )
    out: list[PublishedPoint] = []
    for name, context, rate in GEMMA_POINTS:
        ends = [
            tokens_per_second(on, GEMMA_4_31B, tp, reduces, context)
            for on, reduces in ((bare, REDUCES[0]), (slow, REDUCES[1]))
            for tp in (8, 16, 32)
        ]
        out.append(_banded(f"{GEMMA_4_31B.name} {name}, no speculation", "shown", rate, ends, GEMMA))
        drafted = [*ends, SPECULATED * max(ends)]
        out.append(_banded(f"{GEMMA_4_31B.name} {name}, up to 3 a step", "shown", rate, drafted, GEMMA))
    return tuple(out)


def caution_points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """How much slower than the hardware alone Llama-2-70B was served: the caution of every LPX result."""
    bare = tokens_per_second(_bare(machine), LLAMA_2_70B, TP[0], REDUCES[0], LLAMA_2_70B.context)
    return (
        PublishedPoint(
            case=CAUTION,
            name="hardware alone over served",
            kind="anchor",
            unit="x",
            published=CAUTION_FACTOR,
            modelled=bare / SERVED[0][1],
            tolerance_percent=3,
        ),
    )


def _bare(machine: PublishedMachine) -> Chips:
    """The first chip at its own rates: a phase is a hop, a slot and an addition, as programs have it."""
    hop = 1e-9 * machine.spec.levels[0].hop_ns
    return Chips(
        install=install_rate(machine.chip),
        phase=hop + 53e-9,
        link=float(machine.bytes_per_second(1)),
        vector=1e-6 * BARE_VECTOR_US,
        host=0.0,
    )


def _rates(found: Iterable[Corner], model: LayerModel, groups: tuple[int, ...]) -> list[float]:
    return [
        tokens_per_second(one.on, model, tp, one.reduces, round(one.of_context * model.context))
        for one in found
        for tp in groups
    ]


def _banded(name: str, role: Kind, rate: float, rates: list[float], case: int = LLM) -> PublishedPoint:
    low, high = min(rates), max(rates)
    slack = 0.01  # of a published figure, three digits
    return PublishedPoint(
        case=case,
        name=name,
        kind=role,
        unit="tokens/s",
        published=rate,
        modelled=(low * high) ** 0.5,
        tolerance_percent=None,
        band=None if len(rates) == 1 else (low * (1 - slack), high * (1 + slack)),
    )


def _fitted(machine: PublishedMachine) -> tuple[Fitted, ...]:
    shares = [corner.on.share for corner in corners(machine)]
    return (
        Fitted(
            name="share of the install rate",
            value=f"{min(shares):.2f} to {max(shares):.2f} of {install_rate(machine.chip) / 1e12:.2f} TB/s",
            case=LLM,
            figure="300 tokens/s/user of Llama-2-70B, in each corner of the band",
            where="this suite alone",
        ),
    )


POINTS: dict[int, Callable[[PublishedMachine], tuple[PublishedPoint, ...]]] = {
    LLM: llm_points,
    GEMMA: gemma_points,
    CAUTION: caution_points,
}
SUITE = Suite(
    cases=(
        Case(
            number=LLM,
            title="served LLMs on GroqChip1 racks",
            points=llm_points,
            remark="one number was fitted to the first; the band is over all-reduces a layer, contexts, "
            "vector work, host and, where chips are not published, 8 or 16 of them a layer",
        ),
        Case(
            number=GEMMA,
            title="Gemma-4-31B on LPX, the only public measurement",
            points=gemma_points,
            remark="bounds, never tuned to: 3,431 and 3,382 lie near the hardware alone without speculation, "
            "so they exclude the first chip's software unless steps make several tokens; 10,996 for one user "
            "excludes a hop of 350 ns and two all-reduces a layer without about 3 tokens a step",
        ),
        Case(
            number=CAUTION,
            title="what every LPX result is to be read with",
            points=caution_points,
            remark="so much lies between the machine as stated and a served system, on the first chip",
        ),
    ),
    machine=catalog_machine,
    sources=lambda machine: machine.chip.sources,
    fitted=_fitted,
)
