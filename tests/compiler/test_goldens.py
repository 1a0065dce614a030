"""The text of each intermediate of the compiler for tiny models: what changes there shows as a diff."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from golden import FOLDER, difference
from hopped import BRIDGE, hopped
from programs import compiled
from shapes import SMALL
from steps import llama

from compiler.graph.capture import capture
from compiler.graph.graph import Graph
from compiler.lower.blocks import ModelBlock, cut
from compiler.lower.rows import Rows
from compiler.moves.handover import compile_ingest
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import Columns, Op
from compiler.program.manifest import Move
from compiler.program.program import Program
from compiler.program.text import Selection, kernel_text, lines, table
from compiler.schedule import template
from compiler.schedule.allocate import Addresses
from compiler.schedule.list_schedule import Times
from fabric.rack import load_rack
from lpu import api

ATTENTION = "layers.0"
LONGEST = 300
FIXTURES = Path(__file__).parents[1] / "models" / "data" / "variants"


@cache
def pair() -> Program:
    return compiled("pair", CompileOptions(tp=2, pp=1))


@cache
def graph() -> Graph:
    source = llama(layers=1)
    return capture(source.step, source.params, source.tokens, source.position, source.cache)


@cache
def template_parts() -> tuple[Rows, Times, Addresses]:
    """Of the first layer of `pair`: its rows, their cycles, their addresses."""
    made: list[tuple[Rows, Times, Addresses]] = []
    emit = template.emit

    def noted(rows: Rows, times: Times, addresses: Addresses) -> Columns:
        made.append((rows, times, addresses))
        return emit(rows, times, addresses)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "emit", noted)
        compiled.__wrapped__("pair", CompileOptions(tp=2, pp=1))
    return next(parts for parts in made if (parts[0].op == Op.QK).any())


def block_text(block: ModelBlock) -> str:
    ops = " ".join(node.op for node in block.nodes)
    names = ", ".join(graph().values[index].name for index in block.params)
    return f"{block.name}: value {block.source} -> {block.result}\n  {ops}\n  {names}"


def rows_text(program: Program, **chosen: Any) -> str:
    """Rows of a program, and the kernels that they name."""
    found = list(lines(program, program.manifest.contexts[0], Selection(**chosen)))
    used = sorted({line.kernel for line in found if line.kernel is not None})
    kernels = [f"kernel {i}  {kernel_text(program.manifest.kernels[i])}" for i in used]
    return "\n".join([table(found), *kernels])


def calls_text(program: Program) -> str:
    """The calls of a program and what each chip's SRAM is divided into."""
    manifest = program.manifest
    calls = [
        f"{call.name}: block {call.block} on chips {call.chips} from {call.base}" for call in program.calls
    ]
    regions = [
        f"chip {chip}: transient {r.transient}, kv {r.kv}, weights {r.weights}"
        for chip, r in enumerate(manifest.regions)
    ]
    return "\n".join([f"{manifest.kind} on {manifest.rack}, cycles {manifest.cycles}", *calls, *regions])


def dealt_text() -> str:
    """An attention block on four chips, the context of each KV head dealt over two of them."""
    program = compiled("quad", CompileOptions(tp=4, pp=1, cp=2))
    names = [call.name for call in program.calls]
    return rows_text(program, calls=(names.index(ATTENTION),))


def hops_text() -> str:
    _, program, split = hopped(SMALL, "pair", tp=2)
    hops = [
        f"{hop.name}: from {hop.base}, {hop.cycles} cycles, {hop.inputs} -> {hop.outputs}"
        for hop in program.manifest.hops
    ]
    return "\n".join([str(split), *hops, rows_text(program, calls=(program.manifest.hops[0].call,))])


def throughput_text() -> str:
    options = CompileOptions(tp=1, objective="throughput", users=3, interval_slack=1.0)
    program = compile_program(llama(layers=1), load_rack("pair"), options)
    waves = program.manifest.waves
    assert waves is not None
    about = [f"users {waves.users}, arenas {waves.arenas} of {waves.arena_words} words, {waves.contexts}"]
    return "\n".join([*about, rows_text(program, chip=0)])


def ingest_text() -> str:
    program = compile_ingest(pair(), 33, BRIDGE)
    body = program.manifest.body
    assert isinstance(body, Move)
    return "\n".join([*map(str, body.slots), rows_text(program)])


KEPT = (
    ("llama-tiny", "quad", 4),
    ("smollm-135m", "quad", 4),
    ("tinyllama-1.1b", "lpx-tray", 8),
    ("qwen3-0.6b", "lpx-tray", 8),
    ("mla-tiny", "quad", 4),
    ("moe-tiny", "quad", 4),
    ("gpt-oss-tiny", "quad", 4),
    (f"{FIXTURES}/falcon-h1", "quad", 2),
    (f"{FIXTURES}/nemotron-h", "quad", 2),
    (f"{FIXTURES}/jamba", "quad", 2),
)


def kept_text() -> str:
    """Cycles and rows of models of each kind, all checked: what one kind's lowering does to another's."""
    found = []
    for model, rack, tp in KEPT:
        program = api.compile(model, rack=rack, tp=tp, context=64).program
        rows = sum(len(program.blocks[call.block].columns[64].op) for call in program.calls)
        found.append(
            f"{Path(model).name} on {rack}, tp {tp}: {program.manifest.cycles[64]:,} cycles, {rows:,} rows"
        )
    return "\n".join(found)


TEXTS: dict[str, Callable[[], str]] = {
    "graph": lambda: str(graph()),
    "blocks": lambda: "\n".join(map(block_text, cut(graph()))),
    "rows": lambda: str(template_parts()[0]),
    "schedule": lambda: str(template_parts()[1]),
    "addresses": lambda: str(template_parts()[2]),
    "calls": lambda: calls_text(compiled("quad", CompileOptions(tp=2, pp=2))),
    "program-pair": lambda: rows_text(pair(), chip=0),
    "program-quad": dealt_text,
    "hops": hops_text,
    "throughput": throughput_text,
    "ingest": ingest_text,
    "kept": kept_text,
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_an_intermediate_is_its_golden(name: str, golden: Callable[[str, str], None]) -> None:
    golden(name, TEXTS[name]())


def test_every_golden_is_held_and_short_enough_to_read() -> None:
    found = {path.stem: path.read_text().count("\n") for path in FOLDER.iterdir()}
    assert found.keys() == TEXTS.keys()
    assert max(found.values()) < LONGEST


def test_flipped_operands_of_a_row_show_in_a_golden_and_nothing_else_does() -> None:
    program = pair()
    at = next(call.block for call in program.calls if call.name == ATTENTION)
    block = program.blocks[at]
    columns = block.columns[80]
    (row, *_) = ((columns.op == Op.ADD) & (columns.chip == 0)).nonzero()[0].tolist()
    src, src2 = columns.src.copy(), columns.src2.copy()
    src[row], src2[row] = src2[row], src[row]
    flipped = replace(block, columns={80: replace(columns, src=src, src2=src2)})
    blocks = (*program.blocks[:at], flipped, *program.blocks[at + 1 :])
    found = difference("program-pair", rows_text(replace(program, blocks=blocks), chip=0)).splitlines()
    before = [line for line in found[2:] if line.startswith("-")]
    after = [line for line in found[2:] if line.startswith("+")]
    assert len(before) == len(after) == 1
    assert all("ADD" in line for line in before + after)
    assert difference("program-pair", rows_text(program, chip=0)) == ""


def test_a_missing_golden_is_all_new() -> None:
    assert difference("no such golden", "a\nb").splitlines()[-2:] == ["+a", "+b"]
