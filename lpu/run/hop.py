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

from compiler.program.isa import F16_LANES, Op
from compiler.program.program import HOPS, Program
from compiler.program.ranges import ramp
from lpu.link.host_lanes import host_lines
from lpu.link.link import Dataflow, link
from lpu.run import host_memory
from lpu.run.fill import place
from lpu.run.image import Image, MachineError, Weights, image_bytes
from lpu.run.kernels import KV, Env, Pools
from lpu.run.machine import pool_shapes, take_steps
from lpu.run.pack import Carried, Layout, Tables, pack
from models.contract import formats
from models.contract.formats import F16, decode_e4m3, rn8


class Hop(NamedTuple):
    """One hop ready to run. answer: the pool row of every line that it gives back."""

    name: str
    layout: Layout
    tables: Tables
    image: Image
    answer: Array
    rows: int
    widths: tuple[int, int]
    wires: tuple[str, str]


class HopMachine:
    """The hops of a program with all their weights; `step` runs one of them on one message."""

    def __init__(self, hops: list[Hop]) -> None:
        self.hops = hops

    def step(self, hop: int, message: Any) -> Array:
        """The answer, f32 (or fp16) [rows, width], of a hop to a message, fp16 [rows, width].

        Where the wire is fp8 the message crosses as e4m3 codes: uint8, or fp16 values that are e4m3 exactly.
        Raises MachineError for another shape or format and for NaN or Inf in the answer.
        """
        one = self.hops[hop]
        crosses = message_of(one, message)
        answer, finite = execute_hop(
            one.layout, one.widths[1], one.wires, one.tables, one.image, one.answer, crosses
        )
        if not bool(finite):
            raise MachineError(f"run: the answer of {one.name} holds NaN or Inf. The contract knows neither.")
        return answer


def message_of(hop: Hop, message: Any) -> Array:
    """What crosses to a hop: fp16 as it is, or its e4m3 codes; MachineError for what cannot."""
    message = jnp.asarray(message)
    shape = (hop.rows, hop.widths[0])
    known = (np.dtype(np.float16), np.dtype(np.uint8))[: 1 + (hop.wires[0] == "fp8")]
    if message.shape != shape or message.dtype not in known:
        names = " or ".join(str(dtype) for dtype in known)
        raise MachineError(
            f"run: the message to {hop.name} is {message.dtype} {message.shape}, it takes {names} {shape}."
        )
    if hop.wires[0] == "fp8" and message.dtype != np.uint8:
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
    formats.guard()
    alone = [program.hop(i) for i in range(len(program.manifest.hops))]
    flows = [link(one.manifest, one.loads(), one.expand(HOPS)) for one in alone]
    host_memory.require(sum(image_bytes(one.loads(), one.slots()) for one in alone))
    return HopMachine([_hop(one, flow, weights) for one, flow in zip(alone, flows, strict=True)])


def _hop(program: Program, flow: Dataflow, weights: Weights) -> Hop:
    stated = program.manifest.hops[0]
    placed = place(program.loads(), program.slots(), weights)
    columns, lines = flow.columns, host_lines(stated["inputs"])
    takes, gives = (np.flatnonzero(columns.op == op) for op in (Op.TAKE, Op.GIVE))
    taken = _lines(flow.result, columns.n, takes)
    carried = Carried(taken, 1 + _lines(columns.src3, columns.n, takes), (lines, 0, 0))
    packed = pack(flow, placed, {}, carried)
    answer = np.zeros(host_lines(stated["outputs"]), np.int32)
    found = flow.lines.found[0][_lines(flow.lines.first[0][:-1], columns.n, gives)]
    answer[_lines(columns.src3, columns.n, gives)] = packed.where[found]
    return Hop(
        name=stated["name"],
        layout=packed.layout,
        tables=jax.device_put(packed.tables),
        image=placed.image,
        answer=jnp.asarray(answer),
        rows=stated["inputs"]["rows"],
        widths=(stated["inputs"]["width"], stated["outputs"]["width"]),
        wires=(stated["inputs"]["wire"], stated["outputs"]["wire"]),
    )


def _lines(first: np.ndarray, count: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """first[row] .. first[row] + count[row] - 1 of these rows, end to end."""
    return np.repeat(first[rows], count[rows]) + ramp(count[rows])


@partial(jax.jit, static_argnums=(0, 1, 2))
def execute_hop(
    layout: Layout,
    width: int,
    wires: tuple[str, str],
    tables: Tables,
    image: Image,
    answer: Array,
    message: Array,
) -> tuple[Array, Array]:
    """(answer [rows, width], whether all of it is finite); the message is the fp16 pool from row 1 on."""
    rows = layout.batch
    if wires[0] == "fp8":
        message = decode_e4m3(message).astype(F16)
    message = jnp.pad(message, ((0, 0), (0, -message.shape[1] % F16_LANES)))
    lines = jnp.moveaxis(message.reshape(rows, -1, F16_LANES), 1, 0)
    f16, *others = (jnp.zeros(shape, dtype) for shape, dtype in pool_shapes(layout, layout.pools))
    nobody = jnp.zeros(rows, jnp.int32)
    env = Env(image, KV((), ()), nobody, nobody, jnp.int32(0))
    done = take_steps(layout, tables, env, Pools(f16.at[1 : 1 + len(lines)].set(lines), *others))
    pool = done.f16 if wires[1] == "fp16" else done.f32
    assert pool is not None
    out = jnp.moveaxis(pool[answer], 0, 1).reshape(rows, -1)[:, :width]
    return out, jnp.isfinite(out).all()
