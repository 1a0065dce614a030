from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

from compiler import timing
from compiler.errors import UnsupportedOpError
from compiler.graph.graph import Node
from compiler.lower import rules
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program import instruction_set
from compiler.program.isa import F32_LANES, TRANSIENT, VXM, Holds, Instruction, Kernel, Operand, same
from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from compiler.source import Source
from fabric.rack import load_rack
from models.contract import ops
from models.contract.op import OpRecord, define, per_element

Shape = jax.ShapeDtypeStruct
SCALE_OP, WIDE, VOCAB = 200, 256, 160


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleKernel(Kernel):
    """A constant factor."""

    family: ClassVar[str] = "scale"
    factor: float


def _lower(low: Lowering, node: Node) -> None:
    by_lines(low, node, SCALE_OP, ScaleKernel(factor=node.attributes["factor"]))


INSTRUCTION = Instruction(
    op=SCALE_OP,
    name="SCALE",
    unit=VXM,
    kernel=ScaleKernel,
    reads=(Operand("src", TRANSIENT, same, Holds.F32),),
    write=Operand("dst", TRANSIENT, same, Holds.F32),
    ordered=True,
)
RULE = LoweringRule(op="scale", lower=_lower, wants=every(F32_LANES), handed=by_line, residual=True)


TABLES: tuple[dict[Any, Any], ...] = (
    *(ops.OPS, rules.RULES, timing.RULES),
    *(instruction_set.INSTRUCTIONS, instruction_set.KERNELS),
)


@pytest.fixture
def scale() -> Iterator[OpRecord]:
    """An op `scale` of the vocabulary, without a rule, until the test ends."""
    before = [dict(table) for table in TABLES]
    yield ops.register(
        define(
            name="scale",
            shape=lambda x, *, factor: (x,),
            flops=per_element(1),
            contract=lambda x, *, factor: x * jnp.float32(factor),
            plain=lambda x, *, factor: x * jnp.float32(factor),
        )
    )
    for table, known in zip(TABLES, before, strict=True):
        table.clear()
        table.update(known)


def source(scale: OpRecord) -> Source:
    """A step that scales the embedding, what a matmul gives, and their sum."""
    params: dict[str, Any] = {"table": Shape((VOCAB, WIDE), jnp.float16), "gain": Shape((WIDE,), jnp.float32)}
    for name, n in (("up", WIDE), ("head", VOCAB)):
        params |= {f"{name}.codes": Shape((WIDE, n), jnp.uint8), f"{name}.exponent": Shape((n,), jnp.int32)}

    def step(p: dict[str, Any], tokens: Any, position: Any, cache: Any) -> Any:
        def mm(a: Any, name: str) -> Any:
            return ops.matmul(a, p[name + ".codes"], p[name + ".exponent"])

        x = scale.bind(ops.embed(p["table"], tokens), factor=0.5)
        y = mm(ops.rms_norm(x, p["gain"], eps=1e-5), "up")
        x = scale.bind(ops.add(x, scale.bind(y, factor=3.0)), factor=0.25)
        logits = mm(ops.rms_norm(x, p["gain"], eps=1e-5), "head")
        return logits, ops.argmax(logits), cache

    one = Shape((1,), jnp.int32)
    return Source(
        step=step, params=params, tokens=one, position=one, cache=(), contexts=(80,), model=ModelIdentity()
    )


def compiled(scale: OpRecord, **options: Any) -> Program:
    return compile_program(source(scale), load_rack("quad"), CompileOptions(**options))


def register() -> None:
    instruction_set.register(INSTRUCTION)
    timing.register(SCALE_OP, timing.Vector(lanes=timing.of_lines, passes=1))
    rules.register(RULE)


@pytest.mark.parametrize("options", [{"tp": 1}, {"tp": 4}, {"tp": 4, "layout": "row"}, {"tp": 2, "pp": 2}])
def test_an_op_from_outside_compiles_once_its_records_are_registered(
    scale: OpRecord, options: dict[str, Any]
) -> None:
    register()
    program = compiled(scale, **options)
    rows = program.expand(80)
    kernels = [program.manifest.kernels[aux] for aux in rows.aux[rows.op == SCALE_OP].tolist()]
    assert {kernel.factor for kernel in kernels if isinstance(kernel, ScaleKernel)} == {0.5, 3.0, 0.25}
    lines = {0.5: 0, 3.0: 0, 0.25: 0}
    for kernel, n in zip(kernels, rows.n[rows.op == SCALE_OP].tolist(), strict=True):
        assert isinstance(kernel, ScaleKernel)
        lines[kernel.factor] += n
    assert all(count >= -(-WIDE // F32_LANES) for count in lines.values())  # each line, wherever it is held


def test_waves_of_a_model_with_an_op_from_outside_are_scheduled_too(scale: OpRecord) -> None:
    register()
    program = compiled(scale, tp=2, objective="throughput", users=2)
    assert (program.expand(80).op == SCALE_OP).sum() >= 3


def test_an_op_without_a_rule_is_refused_where_it_stands(scale: OpRecord) -> None:
    with pytest.raises(UnsupportedOpError, match=r"lower: .*scale \(.*test_rules.py:\d+\): has no rows"):
        compiled(scale, tp=1)


def test_an_op_has_one_rule() -> None:
    with pytest.raises(ValueError, match="op 'add' has a rule already"):
        rules.register(LoweringRule(op="add"))
