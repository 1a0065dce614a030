"""Named programs and what they give when run, as digests: whether two checkouts compile and run the same.

At the root of one checkout: `same_programs.py --json FILE`; at the root of the other: `--against FILE`.
columns: every instruction, preload, map, slot and call; `aux` names its kernel by content, so kernels may be
numbered anew. stated: what the manifest says, but for hashes and versions. ran: logits, tokens, answers and
KV of a few steps of small models. The exit code is 1 if one differs.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# From here to `plain`: whatever depends on how a checkout is laid out.
sys.path.insert(0, str(Path.cwd()))  # the checkout, whichever environment runs it


def named(name: str, *modules: str) -> Any:
    """What goes by that name in the first of these modules that has it: the new place, then the old one."""
    for module in modules:
        with suppress(ModuleNotFoundError):
            if hasattr(found := importlib.import_module(module), name):
                return getattr(found, name)
    raise ImportError(f"{name} is in none of {', '.join(modules)}")


PROGRAM = ("compiler.program.program", "compiler.program.isa", "compiler.program", "compiler.isa")
HANDOVER = ("compiler.moves.handover", "compiler.ingest")
COLUMNS, TAGS, LOADS, Op = (named(name, *PROGRAM) for name in ("COLUMNS", "TAGS", "LOADS", "Op"))
CompileOptions = named("CompileOptions", "compiler.options")
compile_program, compile_pair = (named(f"compile_{x}", "compiler.pipeline") for x in ("program", "pair"))
compile_hops = named("compile_hops", "compiler.hops")
compile_ingest, compile_egress = (named(f"compile_{x}", *HANDOVER) for x in ("ingest", "egress"))
bridge_spec, load_rack = named("bridge_spec", "fabric.catalog"), named("load_rack", "fabric.rack")
open_model = named("open_model", "lpu.inputs.open", "lpu.opening")
Tensors = named("Tensors", "lpu.decode.decoders", "lpu.decoders")
prepare = named("prepare", "lpu.run.machine", "lpu.run")
prepare_hops = named("prepare_hops", "lpu.run.hop", "lpu.run_hop")
Handover = named("Handover", "lpu.run.handed.handover", "lpu.ingest")
CALL = ("block", "name", "chips", "weight_base", "kv_base", "shared_base", "tag", "tensors", "base")
STATED = (  # not: schema, model, sources, versions, inputs, digest, program
    *("kind", "rack", "chips", "chip_name", "chip", "clock_hz", "forward_cycles", "levels", "links"),
    *("options", "search", "groups", "rows", "sequences", "chunk", "prefill", "contexts", "capacity"),
    *("regions", "vocab", "logits", "token", "cycles", "waves", "hops", "split", "bridge", "tokens"),
    *("layers", "slots", "ready"),
)
PARTS = ("columns", "stated", "ran")
AS_ABSENT = {"stripes": 1, "wide": False}  # kernel attributes that mean the same where they are left out


def manifest_get(program: Any, name: str) -> Any:
    """An entry of the manifest as the old layout has it, None for one that it does not have."""
    known = program.manifest
    return known.get(name) if isinstance(known, Mapping) else typed_get(known, name)


def typed_get(known: Any, name: str) -> Any:
    """The same from a typed manifest, in the words of the old one."""
    body = known.body
    match name:
        case "chip_name":
            return known.chip.name
        case "chip":
            return known.chip.numbers()
        case "kind":
            return None if body.kind in ("step", "waves") else body.kind
        case "token":
            return known.token or []
        case "waves":
            return plain({**plain(body), "kind": None}) if body.kind == "waves" else None
        case "hops":
            return [hop_dict(hop) for hop in body.hops] if body.kind == "hops" else None
        case "split":
            named = [{"name": hop.name, "nodes": hop.nodes} for hop in known.hops]
            return named if body.kind == "hops" else None
        case "bridge":
            return bridge_dict(body)
        case "tokens" | "layers" | "slots" | "ready":
            return getattr(body, name, None)
        case "levels":
            return [list(level) for level in known.levels]
        case "search":
            return None if body.kind in ("ingest", "egress") else known.search
        case _:
            return getattr(known, name, None)


def hop_dict(hop: Any) -> dict[str, Any]:
    """A hop with its one context, and without its nodes."""
    return {**plain(hop), "base": {"1": hop.base}, "cycles": {"1": hop.cycles}, "nodes": None}


def bridge_dict(body: Any) -> dict[str, Any] | None:
    """The bridge of a program that has one, with its slot where the old manifest had it."""
    if not hasattr(body, "bridge"):
        return None
    slot = {"slot_cycles": body.host_slot} if body.kind == "hops" else {}
    return {"name": body.bridge.name, **body.bridge.numbers(), **slot}


def kernel_dict(kernel: Any) -> dict[str, Any]:
    """The attributes of a kernel and the `op` that it is of, without those that say nothing."""
    stated = {"op": getattr(kernel, "family", None), **plain(kernel)}
    return {name: value for name, value in stated.items() if (name, value) not in AS_ABSENT.items()}


def plain(value: Any) -> Any:
    """JSON values of records, dicts, tuples, enums and numpy numbers; entries that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return getattr(value, "value", value)  # of an enum


def add(sha: Any, *values: Any) -> None:
    """Arrays, integers by value whatever their width and all else by bits, and JSON values."""
    for value in values:
        if hasattr(value, "dtype"):
            array = np.asarray(value, "<i8" if value.dtype.kind in "iu" else None)
            sha.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        else:
            sha.update((json.dumps(plain(value), sort_keys=True) + "\n").encode())


def add_program(sha: Any, program: Any) -> None:
    """Every row, call by call and context by context, and all that is loaded before the first one."""
    texts = [json.dumps(kernel_dict(kernel), sort_keys=True) for kernel in manifest_get(program, "kernels")]
    used = sorted({texts[aux] for aux in kernels_used(program)})
    rank = np.array([used.index(text) if text in used else -1 for text in texts], np.int64)
    add(sha, used)
    for context in manifest_get(program, "contexts"):
        for call in program.calls:
            add_rows(sha, program.expand_call(call, context), rank)
        if manifest_get(program, "waves") is not None:
            add_rows(sha, wave_of(program, context), rank)
    for loads in program.loads_by_call():
        add(sha, *(getattr(loads, name) for name in LOADS))
    for block in program.blocks:
        add(sha, block.name, block.cycles, block.slots, *block.maps)
    add(sha, *({name: getattr(call, name) for name in CALL} for call in program.calls))


def kernels_used(program: Any) -> list[int]:
    """The kernels that rows have; a program may hold others."""
    every = [rows for block in program.blocks for rows in block.columns.values()]
    return sorted({aux for rows in every for aux in rows.aux[rows.op > Op.FORWARD].tolist()})


def wave_of(program: Any, context: int) -> Any:
    """The rows of the second wave."""
    if isinstance(program.manifest, Mapping):
        return program.expand(context, 1)
    return named("expand_wave", "compiler.program.waves")(program, context, 1)


def add_rows(sha: Any, rows: Any, rank: np.ndarray) -> None:
    """All columns of these rows, the kernel of each in place of its number."""
    computes = (rows.op != Op.SEND) & (rows.op != Op.FORWARD)
    aux = rows.aux.copy()
    assert (aux[computes] >= 0).all()
    aux[computes] = rank[aux[computes]]
    add(sha, *(aux if name == "aux" else getattr(rows, name) for name in COLUMNS + TAGS))


class Case(NamedTuple):
    """A program, or several that go together. chosen: of the model; tokens: of a chunk or a message."""

    name: str
    rack: str
    kind: str = "step"
    model: str = "smollm-135m"
    context: tuple[int, ...] = (80, 260)
    chosen: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    tokens: int = 0


BATCH, WIRE = {"batch": 2}, {"batch": 3, "ffn_down": "fp8", "ffn_up": "fp16"}
ROW, WAVES = {"tp": 8, "pp": 3, "layout": "row", "placement": "random"}, {"objective": "throughput"}
CASES = (
    Case("latency tp 1", "pair", chosen=BATCH, options={"tp": 1}),
    Case("latency tp 8", "lpx-tray", model="qwen3-0.6b", context=(80,), options={"tp": 8}),
    Case("latency tp 64", "lpx", chosen={"kv": "fp8"}, options={"tp": 64, "cp": 4}),
    Case("layout row", "lpx", options=ROW),
    Case("layout 2d", "lpx-tray", options={"tp": 8, "layout": "2d"}),
    Case("throughput", "lpx-tray", options={"tp": 2, "users": 5, **WAVES}),
    Case("prefill pair", "quad", "pair", chosen=BATCH, options={"tp": 4}, tokens=24),
    Case("hops", "lpx-tray", "hops", chosen=WIRE, options={"tp": 8}),
    Case("ingest", "lpx-tray", "ingest", chosen=BATCH, options={"tp": 8, "cp": 2}, tokens=100),
    Case("llama-3.1-70b", "lpx", "large", "llama-3.1-70b", (8192,)),
    Case("llama-3.1-405b", "lpx-x4", "large", "llama-3.1-405b", (8192,), options={"tp": 8}),
)


def made(case: Case, model: Any) -> tuple[Any, ...]:
    """One program; two of a pair; of ingest the decode program, then two ways to ingest and to egress."""
    rack, options, bridge = load_rack(case.rack), CompileOptions(**case.options), bridge_spec("spectrum-x")
    if case.kind == "pair":
        return compile_pair(model.source(), model.source(case.tokens), rack, options)
    if case.kind == "hops":
        return compile_hops(model.source(), rack, options, bridge)[:1]
    decode = compile_program(model.source(), rack, options)
    if case.kind != "ingest":
        return (decode,)
    late = range(0, 1000 * model.config.layers, 1000)
    ingests = [compile_ingest(decode, case.tokens, bridge, arrivals) for arrivals in (None, late)]
    egresses = [compile_egress(decode, case.tokens, bridge, overlap=overlap) for overlap in (False, True)]
    return (decode, *ingests, *egresses)


def run(case: Case, model: Any, programs: tuple[Any, ...], sha: Any) -> None:
    """What comes out where the numbers that go in are made up."""
    random, tokens, shape = np.random.default_rng(1), case.tokens, model.config
    if case.kind == "hops":  # the answer of every hop to a message of its own, of e4m3 codes
        hops = prepare_hops(programs[0], Tensors(model))
        size = manifest_get(programs[0], "rows"), shape.hidden
        for hop in range(len(manifest_get(programs[0], "hops"))):
            sign, codes = (random.integers(0, most, size, np.uint8) for most in (2, 0x48))
            add(sha, hops.step(hop, sign << 7 | codes))
        return
    machine = prepare(programs[0], Tensors(model))
    state, parts = machine.start(), [(row, first) for row in range(machine.rows) for first in (0, tokens)]
    if case.kind == "step":  # from the start on, and at the end of each context
        ends = [context - back for context in manifest_get(programs[0], "contexts") for back in (2, 1)]
        decoded(machine, state, (0, 1, 2, *ends), sha)
    if case.kind == "pair":  # two chunks of a prompt for each sequence, then decode
        chunks = prepare(programs[1], Tensors(model), machine)
        for sequence, first in parts:
            ids, at = random.integers(0, model.vocab, tokens), np.arange(first, first + tokens)
            done = chunks.step(state, ids, at, sequence)
            add(sha, done.logits, done.token)
            state = done.state
        decoded(machine, state, range(2 * tokens, 2 * tokens + 3), sha)
    if case.kind == "ingest":  # two messages for each sequence, the second short; decode; all given back
        for ingest, egress in zip(programs[1:3], programs[3:], strict=True):
            over, state = Handover(machine, ingest, egress), machine.start()
            for sequence, first in parts:
                size = (2, shape.layers, tokens - first // 9, shape.kv_heads, shape.head_dim)
                state = over.take(state, sequence, first, *random.standard_normal(size).astype(np.float16))
            add(sha, *state.keys, *state.values)
            state = decoded(machine, state, range(2 * tokens - 2, 2 * tokens + 1), sha)
            for sequence, first in parts:
                add(sha, *over.give(state, sequence, first, tokens))


def decoded(machine: Any, state: Any, positions: Iterable[int], sha: Any) -> Any:
    """The state after greedy steps, each sequence three positions behind the one before it."""
    tokens = np.arange(5, 5 + machine.rows, dtype=np.int32)
    for position in positions:
        done = machine.step(state, tokens, np.maximum(position - 3 * np.arange(machine.rows), 0))
        state, tokens = done.state, np.asarray(done.token)
        add(sha, done.logits, tokens)
    add(sha, *state.keys, *state.values)
    return state


def digests(case: Case) -> dict[str, Any]:
    """The three digests, and the seconds that they took."""
    parts = PARTS[:2] if case.kind == "large" else PARTS
    start, shas = time.perf_counter(), {part: hashlib.sha256() for part in parts}
    model = open_model(case.model, context=case.context, **case.chosen)
    programs = made(case, model)
    for program in programs:
        add_program(shas["columns"], program)
        add(shas["stated"], {name: manifest_get(program, name) for name in STATED})
    if "ran" in shas:
        run(case, model, programs, shas["ran"])
    found = {part: sha.hexdigest() for part, sha in shas.items()}
    return {"rack": case.rack, "seconds": round(time.perf_counter() - start, 1), "ran": "not run"} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the digests")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with those of another checkout")
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append", help="repeatable")
    args = parser.parse_args()
    before: dict[str, Any] = json.loads(args.against.read_text()) if args.against else {}
    found, differ = dict[str, dict[str, Any]](), False
    for case in (case for case in CASES if not args.only or case.name in args.only):
        now, was = found.setdefault(case.name, digests(case)), before.get(case.name, {})
        print(f"{case.name:<15} {case.rack:<9}", end="")
        for part in PARTS:
            print("", part, *([was.get(part, "none")[:8]] if args.against else []), now[part][:8], end=" ")
        if args.against:
            differ |= bool(wrong := [part for part in PARTS if was.get(part) != now[part]])
            print(f" DIFFERENT: {', '.join(wrong)}" if wrong else " equal", end="")
        print(flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(differ)


if __name__ == "__main__":
    main()
