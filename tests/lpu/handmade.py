"""Programs written by hand: no compiler, every cycle a literal that docs/matmul-by-hand.md derives."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.options import CompileOptions
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.matmul import MatmulKernel, WriteBackKernel
from compiler.program.instructions.vector import ArgmaxKernel, ArgredKernel, CastKernel, EmbedKernel
from compiler.program.isa import (
    COLUMNS,
    GAIN,
    KV,
    SCALE,
    SPACE_SHIFT,
    TABLE,
    TAG_SHIFT,
    TAGS,
    TILE,
    WEIGHTS,
    Columns,
    Op,
)
from compiler.program.manifest import Link, LogitsLine, Manifest, ModelIdentity, Place, Region, Regions, Step
from compiler.program.program import LOADS, Block, Call, Loads, Program
from fabric.chip import ChipSpec
from lpu.prove.models.record import ModelTerms
from lpu.prove.terms import Terms

CONTEXT, HANDMADE = 160, "handmade"
CHIP = ChipSpec(
    name="handmade",
    clock_hz=1_000_000_000,
    planes=2,
    sram_bytes=640_000,  # 2000 words
    sram_bytes_per_cycle=12_800,  # 6400 per plane
    weight_install_frac=1.0,
    mxm_fill_cycles=10,
    accumulators=2,
    vxm_chains=1,
    vxm_latency_cycles=5,
    lane_reduce_cycles=7,
    activation_ports=16,
    lanes=4,
    slot_cycles=4,
)
PLANE, DRAIN, VXM = 0, 2, 4  # unit numbers: planes 0 and 1, their drains 2 and 3, the VXM chain 4
W, K = WEIGHTS << SPACE_SHIFT, KV << SPACE_SHIFT


def tag(value: int, line: int = 0) -> int:
    """The tag of one line of a value."""
    return value << TAG_SHIFT | line


def columns(rows: list[dict[str, int]]) -> Columns:
    """Rows as dicts, absent fields -1, as columns."""
    return Columns(**{n: np.array([r.get(n, -1) for r in rows], np.int64) for n in COLUMNS + TAGS})


def loads(rows: list[dict[str, int]]) -> Loads:
    """Preloaded values as dicts, absent fields 0, as columns."""
    return Loads(**{n: np.array([r.get(n, 0) for r in rows], np.int64) for n in LOADS})


def change(table: Columns, row: int, **fields: int) -> Columns:
    """The columns with some fields of one row replaced."""
    new: dict[str, np.ndarray] = {}
    for name, value in fields.items():
        new[name] = getattr(table, name).copy()
        new[name][row] = value
    return replace(table, **new)


def change_load(table: Loads, row: int, **fields: int) -> Loads:
    """The loads with some fields of one row replaced."""
    new: dict[str, np.ndarray] = {}
    for name, value in fields.items():
        new[name] = getattr(table, name).copy()
        new[name][row] = value
    return replace(table, **new)


def extend(table: Columns, *rows: dict[str, int]) -> Columns:
    """The columns with rows appended."""
    more = columns(list(rows))
    return Columns(**{n: np.concatenate([getattr(table, n), getattr(more, n)]) for n in COLUMNS + TAGS})


def manifest(**changes: Any) -> Manifest:
    """Two chips, two lanes each way: transient words 0 .. 999, kv 1000 .. 1199, weights 1200 .. 1999."""
    out = Manifest(
        model=ModelIdentity(name="handmade"),
        options=CompileOptions(),
        rack="handmade",
        chips=2,
        chip=CHIP,
        forward_cycles=3,
        links=(Link(0, 1, 2, 20, 4), Link(1, 0, 2, 20, 4)),
        levels=(),
        sources=(),
        rows=1,
        sequences=1,
        chunk=1,
        prefill=0,
        capacity=CONTEXT,
        contexts=(CONTEXT,),
        cycles={CONTEXT: 0},
        kernels=(),
        regions=(Regions(Region(0, 1000), Region(1000, 200), Region(1200, 800)),) * 2,
        logits=(),
        token=None,
        vocab=16,
        groups=(),
        body=Step(),
    )
    return replace(out, **changes)


# Matmul: transient lines (rows = 1, so lines are words) and tags of the values.
X, H, Y, BEST, TOKEN = 0, 8, 12, 14, 16
T_X, T_H, T_Y, T_BEST, T_TOKEN, T_TABLE, T_W, T_SCALE = range(1, 9)
# Rows of the matmul on both chips (chip 1: + CHIP_ROWS), then the two that follow.
EMBED, CAST, MM0, MM1, WB, ARGMAX = range(6)
CHIP_ROWS, SEND, ARGRED = 6, 12, 13


def matmul() -> Program:
    """One row of 640 fp16 lanes times a 640 x 320 matrix, columns split over two chips, then the argmax."""
    kernels = (
        EmbedKernel(vocab=16, stride=4),
        CastKernel(),
        MatmulKernel(k_lines=2),
        WriteBackKernel(wide=False, products=2),
        ArgmaxKernel(vocab=320),
        ArgredKernel(),
    )
    rows: list[dict[str, int]] = []
    for chip in (0, 1):
        y = 2 * chip  # first global line of the chip's columns
        rows += [
            {"op": Op.EMBED, "chip": chip, "unit": VXM, "t0": 0, "t1": 7, "aux": 0, "n": 8}
            | {"dst": X, "dst_tag": tag(T_X), "src": W + 0, "src_tag": tag(T_TABLE)},
            {"op": Op.CAST, "chip": chip, "unit": VXM, "t0": 7, "t1": 14, "aux": 1, "n": 8}
            | {"dst": H, "dst_tag": tag(T_H), "src": X, "src_tag": tag(T_X)},
            {"op": Op.MM, "chip": chip, "unit": PLANE, "t0": 14, "t1": 22, "aux": 2, "n": 2}
            | {"dst": 0, "dst_tag": tag(T_Y, y), "src": H, "src_tag": tag(T_H)}
            | {"src2": W + 64, "src2_tag": tag(T_W, y)},
            {"op": Op.MM, "chip": chip, "unit": PLANE, "t0": 22, "t1": 30, "aux": 2, "n": 2}
            | {"dst": 0, "dst_tag": tag(T_Y, y), "src": H + 2, "src_tag": tag(T_H, 2)}
            | {"src2": W + 224, "src2_tag": tag(T_W, 4 + y)},
            {"op": Op.WB, "chip": chip, "unit": DRAIN, "t0": 30, "t1": 41, "aux": 3, "n": 2}
            | {"dst": Y, "dst_tag": tag(T_Y, y), "src3": 0, "src3_tag": tag(T_Y, y)}
            | {"src2": W + 384, "src2_tag": tag(T_SCALE, y)},
            {"op": Op.ARGMAX, "chip": chip, "unit": VXM, "t0": 41, "t1": 54, "aux": 4, "n": 2}
            | {"dst": BEST + chip, "dst_tag": tag(T_BEST, chip), "src": Y, "src_tag": tag(T_Y, y), "src3": y},
        ]
    rows += [
        {"op": Op.SEND, "chip": 1, "peer": 0, "lane": 0, "aux": 1, "t0": 54, "t1": 78, "n": 1}
        | {"dst": BEST + 1, "dst_tag": tag(T_BEST, 1), "src": BEST + 1, "src_tag": tag(T_BEST, 1)},
        {"op": Op.ARGRED, "chip": 0, "unit": VXM, "t0": 78, "t1": 91, "aux": 5, "n": 2}
        | {"dst": TOKEN, "dst_tag": tag(T_TOKEN), "src": BEST, "src_tag": tag(T_BEST)},
    ]
    image: list[dict[str, int]] = []
    for chip in (0, 1):
        y = 2 * chip
        image.append({"chip": chip, "addr": W, "words": 64, "kind": TABLE, "lines": 8, "tag": tag(T_TABLE)})
        image += [
            {"chip": chip, "addr": W + 64 + 160 * k + 80 * i, "words": 80, "kind": TILE, "tensor": 1}
            | {"k0": 320 * k, "n0": 80 * (y + i), "lines": 1, "tag": tag(T_W, 4 * k + y + i)}
            for k in (0, 1)
            for i in (0, 1)
        ]
        image += [
            {"chip": chip, "addr": W + 384 + i, "words": 1, "kind": SCALE, "tensor": 2}
            | {"n0": 80 * (y + i), "lines": 1, "tag": tag(T_SCALE, y + i)}
            for i in (0, 1)
        ]
    logits = tuple(LogitsLine(chip, Y + i, 2 * chip + i) for chip in (0, 1) for i in (0, 1))
    described = manifest(kernels=kernels, logits=logits, token=Place(0, TOKEN), cycles={CONTEXT: 91})
    return program(described, columns(rows), loads(image), ("embedding", "head", "head_scale"), 91)


def of_reader() -> Program:
    """The product with numbers of a model that `read` knows."""
    about = ModelIdentity(name=HANDMADE, config={"family": HANDMADE})
    made = matmul()
    return replace(made, manifest=replace(made.manifest, model=about, vocab=320))


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """Embedding, rounding, product: the model of docs/matmul-by-hand.md, for the proof."""
    shapes = {"embedding": (16, 640), "head": (640, 320), "head_scale": (320,)}
    out = ModelTerms(tensors={name: terms.tensor(name, shape) for name, shape in shapes.items()})
    x = terms.rounded(terms.embed(out.tensors["embedding"]), 16)
    out.logits = terms.matmul(x, out.tensors["head"], out.tensors["head_scale"])
    return out


def program(
    described: Manifest, rows: Columns, image: Loads, tensors: tuple[str, ...], cycles: int
) -> Program:
    """One block on chips 0 and 1, called once at cycle 0."""
    block = Block(
        name="handmade",
        columns={CONTEXT: rows},
        cycles={CONTEXT: cycles},
        loads=image,
        maps=(),
        slots=((-1, -1),) * len(tensors),
    )
    call = Call(
        block=0,
        name="handmade",
        chips=(0, 1),
        weight_base=(1200, 1200),
        kv_base=(1000, 1000),
        shared_base=(1200, 1200),
        tag=0,
        tensors=tensors,
        base={CONTEXT: 0},
    )
    return Program(manifest=described, blocks=(block,), calls=(call,))


# Attention of one kv head with two query heads on chip 0: two blocks of 80 tokens, head_dim 80.
A_EMBED, A_CAST, A_KVW, A_QK0, A_QK1, A_SMAX0, A_SMAX1, A_EXP0, A_EXP1, A_PV0, A_PV1, A_AOUT = range(12)


def attention() -> Program:
    """Two query heads of 80 lanes over 160 tokens in two blocks: from KVW to the division by AOUT."""
    kernel = AttentionKernel(
        head_dim=80,
        kv="fp16",
        kv_words=1,
        kv_stride=160,
        capacity=CONTEXT,
        cached=1,
        run=80,
        group=2,
        block=80,
        chunk=80,
        chunks=2,
        rows=1,
        sequences=1,
    )
    kernels = (EmbedKernel(vocab=16, stride=3), CastKernel(), kernel)
    x, f, s, m, e, o, out = 0, 8, 16, 20, 24, 32, 48
    rows = [
        {"op": Op.EMBED, "unit": VXM, "t0": 0, "t1": 7, "aux": 0, "n": 6}
        | {"dst": x, "dst_tag": tag(1), "src": W, "src_tag": tag(20)},
        {"op": Op.CAST, "unit": VXM, "t0": 7, "t1": 14, "aux": 1, "n": 6}
        | {"dst": f, "dst_tag": tag(2), "src": x, "src_tag": tag(1)},
        {"op": Op.KVW, "unit": VXM, "t0": 14, "t1": 20, "aux": 2, "n": 1}
        | {"dst": K, "dst_tag": tag(9), "src": f + 1, "src_tag": tag(2, 1), "src2": f + 2}
        | {"src2_tag": tag(2, 2)},
        *(
            {"op": Op.QK, "unit": i, "t0": 20, "t1": 32, "aux": 2, "n": i, "dst": s + 2 * i}
            | {"dst_tag": tag(3, 2 * i), "src": f, "src_tag": tag(2), "src2": K, "src2_tag": tag(9)}
            for i in (0, 1)
        ),
        *(
            {"op": Op.SMAX, "unit": VXM, "t0": 32 + i, "t1": 45 + i, "aux": 2, "n": 1}
            | {"dst": m + i, "dst_tag": tag(4, i), "src": s + 2 * i, "src_tag": tag(3, 2 * i)}
            for i in (0, 1)
        ),
        *(
            {"op": Op.EXP, "unit": VXM, "t0": 45 + 4 * i, "t1": 54 + 4 * i, "aux": 2, "n": 1}
            | {"dst": e + 3 * i, "dst_tag": tag(5, 3 * i), "src": s + 2 * i, "src_tag": tag(3, 2 * i)}
            | {"src2": m + i, "src2_tag": tag(4, i)}
            for i in (0, 1)
        ),
        *(
            {"op": Op.PV, "unit": i, "t0": 54 + 4 * i, "t1": 67 + 4 * i, "aux": 2, "n": i, "dst": o + 3 * i}
            | {"dst_tag": tag(6, 3 * i), "src": e + 3 * i, "src_tag": tag(5, 3 * i), "src2": K}
            | {"src2_tag": tag(9)}
            for i in (0, 1)
        ),
        {"op": Op.AOUT, "unit": VXM, "t0": 71, "t1": 78, "aux": 2, "n": 2}
        | {"dst": out, "dst_tag": tag(7), "src": o, "src_tag": tag(6)},
    ]
    rows = [{"chip": 0} | row for row in rows]
    image = [
        {"chip": 0, "addr": W, "words": 48, "kind": TABLE, "lines": 6, "tag": tag(20)},
        {"chip": 0, "addr": W + 48, "words": 1, "kind": GAIN, "lines": 1, "tag": tag(21)},
    ]
    described = manifest(
        kernels=kernels, logits=(LogitsLine(0, out, 0),), token=Place(0, out), cycles={CONTEXT: 78}
    )
    return program(described, columns(rows), loads(image), ("embedding", "gain"), 78)


def tiled(base: Program, pairs: int, times: int) -> tuple[Manifest, Loads, Columns]:
    """A two-chip program on many pairs of chips, again and again: big and legal, made without a row loop."""
    one, image = base.expand(CONTEXT), base.loads()
    rows, period = len(one), base.blocks[0].cycles[CONTEXT]
    pair = np.repeat(np.arange(pairs), times * rows)
    turn = np.tile(np.repeat(np.arange(times), rows), pairs)
    out = {n: np.tile(getattr(one, n), pairs * times) for n in COLUMNS + TAGS}
    out["chip"] += 2 * pair
    out["peer"] = np.where(out["peer"] < 0, -1, out["peer"] + 2 * pair)
    out["t0"] += period * turn
    out["t1"] += period * turn
    held = {n: np.tile(getattr(image, n), pairs) for n in LOADS}
    held["chip"] += 2 * np.repeat(np.arange(pairs), len(image))
    links = tuple(
        link._replace(a=2 * pair + link.a, b=2 * pair + link.b)
        for pair in range(pairs)
        for link in base.manifest.links
    )
    regions = base.manifest.regions * pairs
    described = replace(base.manifest, links=links, regions=regions, chips=len(regions))
    return described, Loads(**held), Columns(**out)
