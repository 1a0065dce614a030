"""An op from outside: `scale`, f32 values times a constant, from the contract to the executor's kernel.

Importing it registers one record in each room. `scaled` is a decoder that scales its residual after a layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32, Int

from compiler import timing
from compiler.graph.graph import Node
from compiler.lower import rules
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program import instruction_set
from compiler.program.isa import F32_LANES, TRANSIENT, VXM, Holds, Instruction, Kernel, Operand, same
from lpu.check import cycles
from lpu.prove.known import Known
from lpu.prove.lines import Vector
from lpu.prove.models import own
from lpu.prove.ops import registry as proof
from lpu.prove.ops.taken import vectors
from lpu.prove.rule import Proved, RowOperands
from lpu.prove.terms import Terms
from lpu.run.ops import registry as executor
from lpu.run.ops.items import Executed, Items, Reads, Result, Rows, Static
from lpu.run.pools import Env, Pool, Pools, take
from models.catalog import catalog
from models.contract import ops
from models.contract.formats import F32, flush32
from models.contract.op import Results, check_operand, define, per_element
from models.decoder import Decoder
from models.families.llama import Angles, Layer, LayerKV, Positions
from models.kv import KVFormat

OPCODE = 200  # stated once and for all: equal numbers of two extensions are an error

# models: what it computes


def scale(x: Float32[Array, "*shape"], factor: float) -> Float32[Array, "*shape"]:
    """x times a constant, in f32."""
    return SCALE.bind(x, factor=factor)


def _shape(x: ShapedArray, *, factor: float) -> Results:
    check_operand("scale", "x", x, None, F32)
    return (x,)


def _contract(x: Array, *, factor: float) -> Array:
    return flush32(x * F32(factor))


SCALE = define(name="scale", shape=_shape, flops=per_element(1), contract=_contract, plain=_contract)
ops.register(SCALE)

# compiler: its instruction, how long it takes, and the rows of a node


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleKernel(Kernel):
    """A constant factor."""

    family: ClassVar[str] = "scale"
    factor: float


def _lower(low: Lowering, node: Node) -> None:
    by_lines(low, node, OPCODE, ScaleKernel(factor=node.attributes["factor"]))


instruction_set.register(
    Instruction(
        op=OPCODE,
        name="SCALE",
        unit=VXM,
        kernel=ScaleKernel,
        reads=(Operand("src", TRANSIENT, same, Holds.F32),),
        write=Operand("dst", TRANSIENT, same, Holds.F32),
        ordered=True,
    )
)
timing.register(OPCODE, timing.Vector(lanes=timing.of_lines, passes=1))
rules.register(LoweringRule(op="scale", lower=_lower, wants=every(F32_LANES), handed=by_line, residual=True))

# lpu: the same cycles once more, and the kernel

cycles.register(OPCODE, cycles.Vector(lambda n, kernel: 80 * n, passes=1))


def _items(at: Reads, rows: Rows, s: Static[ScaleKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(_compute, row, lines=[at.line(0, row, j)], out=out, params=s.kernel)


def _compute(k: ScaleKernel, env: Env, pools: Pools, t: Int[Array, "items width"]) -> Pools:
    return Pools(f32=_contract(take(pools.f32, t[:, 0]), factor=k.factor))


executor.register(Executed(op=OPCODE, build=_items))

# and what the proof makes of the module's op and of its rows: lane by lane, and zero stays zero


def _term(terms: Terms, values: Sequence[int], attributes: Mapping[str, Any]) -> int:
    return terms.make("scale", tuple(values), (attributes["factor"],), terms.shape(values[0]))


def _proved(known: Known, row: RowOperands) -> tuple[Vector, ...]:
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    made = _term(known.terms, [value], {"factor": row.kernel.factor})
    return tuple(Vector(Holds.F32, made, one) for one in lanes)


own.register("scale", _term)
proof.register(Proved(op=OPCODE, rule=_proved))

# a model that uses it


class _Layer(Layer):
    def __call__(
        self, x: Array, angles: Angles, position: Positions, k_cache: LayerKV, v_cache: LayerKV
    ) -> tuple[Array, LayerKV, LayerKV]:
        x, k_cache, v_cache = super().__call__(x, angles, position, k_cache, v_cache)
        with jax.named_scope("ffn"):
            return scale(x, 0.22), k_cache, v_cache


def scaled(*, batch: int, context: int, kv: KVFormat) -> Decoder:
    """A decoder of two such layers, as a model: `lpu_scale:scaled`."""
    return Decoder(_Layer, replace(catalog("llama-tiny"), layers=2), batch=batch, context=context, kv=kv)
