"""Mutated programs of every kind: each is caught by the checker or the proof, or its dataflow is the same."""

from functools import cache
from typing import Any

from faults import same
from hopped import hopped
from models_named import of_model
from mutations import mutated
from pairs import compiled_pair
from shapes import HEADS, SMALL

from compiler.program.manifest import Hops
from compiler.program.program import Program
from compiler.program.store import hop_alone
from lpu.check.check import check
from lpu.link.link import LinkError, link
from lpu.prove.prove import prove
from models.config import TransformerConfig
from models.kv import KVFormat

CASES = 5000


@cache
def programs() -> tuple[Program, ...]:
    """Decode and prefill programs with several buckets, stripes and formats, and hops."""
    out: list[Program] = []
    asked: tuple[tuple[TransformerConfig, KVFormat, dict[str, Any]], ...] = (
        (SMALL, "fp16", {"tp": 4, "pp": 1, "layout": "2d", "contexts": (40, 80)}),
        (SMALL, "fp8", {"tp": 4, "pp": 1, "cp": 2, "batch": 2}),
        (HEADS, "fp16", {"tp": 2, "pp": 2}),
    )
    for config, kv, options in asked:
        named: dict[str, Any] = {"kv": kv, **options}
        _, decode, prefill = compiled_pair(config, 8, **named)
        out += [of_model(decode, config, kv), of_model(prefill, config, kv)]
    return (*out, of_model(hopped(SMALL, "quad", tp=4, layout="2d")[1], SMALL))


@cache
def flows(which: int) -> list[Any]:
    return _flows(programs()[which])


def _flows(program: Program) -> list[Any]:
    body = program.manifest.body
    if isinstance(body, Hops) and len(body.hops) > 1:  # a step of the executor is one hop
        return [flow for i in range(len(body.hops)) for flow in _flows(hop_alone(program, i))]
    loads = program.loads()
    return [link(program.manifest, loads, program.expand(c)) for c in program.manifest.contexts]


def hold_mutated(case: int) -> str:
    """ "refused", "illegal" or "harmless". Raises AssertionError for what nothing notices."""
    which = case % len(programs())
    made = mutated(programs()[which], case // len(programs()))
    if made is None:
        return "harmless"
    kind, program = made
    if not prove(program).ok:
        return "refused"
    if not all(check(program, context).ok for context in program.manifest.contexts):
        return "illegal"
    try:
        after = _flows(program)
    except LinkError:
        return "illegal"
    alike = all(same(one, two) for one, two in zip(flows(which), after, strict=True))
    assert alike, f"{kind}, case {case}: unnoticed, and the dataflow differs"
    return "harmless"
