"""Run the hops of a model: what a hop takes from its host lanes and gives back, by its schedule and weights.

Each hop is linked by itself. Its message lies in the pools as the lines that TAKE rows say they take; the
answer is what GIVE rows find. Hops that are equal but for their weights share one executable.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Int32, Shaped

from compiler.program.isa import F16_LANES, Op
from compiler.program.manifest import HOPS, Message
from compiler.program.program import Program
from compiler.program.ranges import ramp
from compiler.program.store import hop_alone
from lpu.link.host_lanes import host_lines
from lpu.link.link import Dataflow, link
from lpu.run import host_memory
from lpu.run.error import MachineError
from lpu.run.execute import take_steps
from lpu.run.fill import fill_image
from lpu.run.image import Image, Weights, image_bytes
from lpu.run.kv import KV
from lpu.run.overflow import require_enough
from lpu.run.pack.layout import Carried, StepLayout, StepTables
from lpu.run.pack.pack import pack
from lpu.run.pools import Env, Pools
from models.contract import formats
from models.contract.formats import F16, decode_e4m3, rn8


class RunnableHop(NamedTuple):
    """One hop ready to run. answer: the pool row of every line that it gives back."""

    name: str
    layout: StepLayout
    tables: StepTables
    image: Image
    answer: Int32[Array, " lines"]
    inputs: Message
    outputs: Message


class HopMachine:
    """The hops of a program with all their weights; `step` runs one of them on one message."""

    def __init__(self, hops: list[RunnableHop]) -> None:
        self.hops = hops

    def step(self, hop: int, message: Any) -> Float[Array, "rows width"]:
        """The answer, f32 (or fp16), of a hop to a message, fp16 [rows, width].

        Where the wire is fp8 the message crosses as e4m3 codes: uint8, or fp16 values that are e4m3 exactly.
        Raises MachineError for another shape or format and for NaN or Inf in the answer.
        """
        one = self.hops[hop]
        crosses = message_of(one, message)
        answer, finite = execute_hop(
            one.layout, one.inputs, one.outputs, one.tables, one.image, one.answer, crosses
        )
        if not bool(finite):
            raise MachineError(f"run: the answer of {one.name} holds NaN or Inf. The contract knows neither.")
        return answer


def message_of(hop: RunnableHop, message: Any) -> Shaped[Array, "rows width"]:
    """What crosses to a hop: fp16 as it is, or its e4m3 codes; MachineError for what cannot."""
    message = jnp.asarray(message)
    shape, coded = (hop.inputs.rows, hop.inputs.width), hop.inputs.wire == "fp8"
    known = (np.dtype(np.float16), np.dtype(np.uint8))[: 1 + coded]
    if message.shape != shape or message.dtype not in known:
        names = " or ".join(str(dtype) for dtype in known)
        raise MachineError(
            f"run: the message to {hop.name} is {message.dtype} {message.shape}, it takes {names} {shape}."
        )
    if coded and message.dtype != np.uint8:
        codes = rn8(message.astype(jnp.float32))
        exact = decode_e4m3(codes).astype(F16) == message
        if not bool(exact.all()):
            raise MachineError(
                f"run: {int((~exact).sum())} of {message.size} values of the message to {hop.name} are not "
                "e4m3, its wire is fp8. Round them with round8."
            )
        return codes
    return message


def prepare_hops(program: Program, weights: Weights) -> HopMachine:
    """Link every hop of a program, build its SRAM image, pack its steps.

    Raises LinkError for a program that breaks its schedule, MachineError for weights that do not fit it.
    """
    require_enough(program, "a program of hops")
    formats.guard()
    alone = [hop_alone(program, i) for i in range(len(program.manifest.hops))]
    flows = [link(one.manifest, one.loads(), one.expand(HOPS)) for one in alone]
    host_memory.require(sum(image_bytes(one.loads(), one.slots()) for one in alone))
    return HopMachine([_hop(one, flow, weights) for one, flow in zip(alone, flows, strict=True)])


def _hop(program: Program, flow: Dataflow, weights: Weights) -> RunnableHop:
    (hop,) = program.manifest.hops
    loaded = fill_image(program.loads(), program.slots(), weights)
    columns = flow.columns
    takes, gives = (np.flatnonzero(columns.op == op) for op in (Op.TAKE, Op.GIVE))
    taken = _lines(flow.result, columns.n, takes)
    carried = Carried(taken, 1 + _lines(columns.src3, columns.n, takes), (host_lines(hop.inputs), 0, 0))
    packed = pack(flow, loaded.plan, {}, carried)
    answer = np.zeros(host_lines(hop.outputs), np.int32)
    found = flow.lines.found[0][_lines(flow.lines.first[0][:-1], columns.n, gives)]
    answer[_lines(columns.src3, columns.n, gives)] = packed.where[found]
    return RunnableHop(
        name=hop.name,
        layout=packed.layout,
        tables=jax.device_put(packed.tables),
        image=loaded.image,
        answer=jnp.asarray(answer),
        inputs=hop.inputs,
        outputs=hop.outputs,
    )


def _lines(
    first: Int[np.ndarray, " rows"], count: Int[np.ndarray, " rows"], rows: Int[np.ndarray, " some"]
) -> Int[np.ndarray, " lines"]:
    """first[row] .. first[row] + count[row] - 1 of these rows, end to end."""
    return np.repeat(first[rows], count[rows]) + ramp(count[rows])


@partial(jax.jit, static_argnums=(0, 1, 2))
def execute_hop(
    layout: StepLayout,
    inputs: Message,
    outputs: Message,
    tables: StepTables,
    image: Image,
    answer: Int32[Array, " lines"],
    message: Shaped[Array, "rows width"],
) -> tuple[Float[Array, "rows answered"], Bool[Array, ""]]:
    """(answer, whether all of it is finite); the message is the fp16 pool from row 1 on."""
    rows = layout.batch
    if inputs.wire == "fp8":
        message = decode_e4m3(message).astype(F16)
    message = jnp.pad(message, ((0, 0), (0, -message.shape[1] % F16_LANES)))
    lines = jnp.moveaxis(message.reshape(rows, -1, F16_LANES), 1, 0)
    f16, *others = (jnp.zeros(shape, dtype) for shape, dtype in layout.pool_shapes(layout.pools))
    nobody = jnp.zeros(rows, jnp.int32)
    env = Env(image, KV((), ()), nobody, nobody, jnp.int32(0))
    done = take_steps(layout, tables, env, Pools(f16.at[1 : 1 + len(lines)].set(lines), *others))
    pool = done.f16 if outputs.wire == "fp16" else done.f32
    assert pool is not None
    out = jnp.moveaxis(pool[answer], 0, 1).reshape(rows, -1)[:, : outputs.width]
    return out, jnp.isfinite(out).all()
