"""Streamed: call by call with each call's weights only, and still the bits of the whole machine."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slow import slow_but

from compiler.options import CompileOptions
from compiler.program.isa import Holds, Op
from lpu import api
from lpu.api import Compiled
from lpu.cli import app as cli
from lpu.decode.decoders import flipped, machine_of, reference_decode, restart
from lpu.decode.generate import Decode, generate
from lpu.link.link import link
from lpu.run import host_memory
from lpu.run.error import MachineError
from lpu.run.machine import Machine
from lpu.run.streamed import feed as stream_feed
from lpu.run.streamed.cut import cut
from lpu.run.streamed.stream import PackedCall, StreamedMachine
from models import streamed

HERE = Path(__file__).parents[2]
FOLDER = HERE.parent / "models" / "data" / "tiny-llama"
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "four chips": ("quad", {"tp": 4, "layout": "2d", "placement": "random"}, {"context": [80]}),
    "two groups, a batch, e4m3 cache, two context buckets": (
        "quad",
        {"tp": 2, "pp": 2},
        {"context": [8, 160], "batch": 2, "kv": "fp8"},
    ),
}


def digest(decode: Decode, compiled: Compiled, tokens: int = 6) -> str:
    """Of all logits of a decode whose steps cross from the first bucket into the second, if there are two."""
    batch = compiled.model.step.batch
    prompts = [[3, 1, 4, 1][row:] for row in range(batch)]
    return generate(decode, prompts, tokens, batch).digest


@pytest.fixture(scope="module")
def four() -> Compiled:
    rack, options, chosen = CASES["four chips"]  # so that both share what XLA compiles
    return api.compile("llama-tiny", rack=rack, options=CompileOptions(**options), check=False, **chosen)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_streamed_bits_equal_the_whole_machine_and_both_references(case: str) -> None:
    rack, options, chosen = CASES[case]
    compiled = api.compile("llama-tiny", rack=rack, options=CompileOptions(**options), check=False, **chosen)
    whole = machine_of(compiled.program, compiled.model, stream=False)
    parts = machine_of(compiled.program, compiled.model, stream=True)
    assert (type(whole), type(parts)) == (Machine, StreamedMachine)
    bits = {
        digest(restart(whole), compiled),
        digest(restart(parts), compiled),
        digest(reference_decode(compiled.model), compiled),
        digest(reference_decode(compiled.model, stream=True), compiled),
    }
    assert len(bits) == 1
    for context in compiled.program.manifest.contexts:
        assert parts.counts(context)["mm"] == whole.counts(context)["mm"]


@pytest.mark.slow
def test_neither_threads_nor_the_size_of_what_they_read_change_a_bit(
    four: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = digest(restart(machine_of(four.program, four.model, stream=True)), four)
    monkeypatch.setattr(stream_feed, "THREADS", 1)
    monkeypatch.setattr(streamed, "THREADS", 5)
    monkeypatch.setattr(streamed, "STRIP_BYTES", 1)
    assert digest(restart(machine_of(four.program, four.model, stream=True)), four) == usual
    assert digest(reference_decode(four.model, stream=True), four) == usual


@pytest.mark.slow
def test_another_line_handed_over_or_another_weight_changes_the_bits(four: Compiled) -> None:
    machine = machine_of(four.program, four.model, stream=True)
    assert isinstance(machine, StreamedMachine)
    usual = digest(restart(machine), four)
    entries: list[PackedCall] = machine.entries[80]
    last = entries[-1]
    assert len(last.takes[1]) > 1
    entries[-1] = replace(last, takes=(last.takes[0], np.roll(last.takes[1], 1), last.takes[2]))
    assert digest(restart(machine), four) != usual
    entries[-1] = replace(last, takes=(last.takes[0], 0 * last.takes[1], last.takes[2]))
    assert digest(restart(machine), four) != usual
    entries[-1] = last
    assert digest(restart(machine), four) == usual
    other = replace(four.model, weights=flipped(four.model.weights))
    assert digest(restart(machine_of(four.program, other, stream=True)), four) != usual
    assert digest(reference_decode(other, stream=True), four) != usual


def test_a_program_whose_calls_hang_together_otherwise_is_refused(four: Compiled) -> None:
    program = four.program
    flow = link(program.manifest, program.loads(), program.expand(80))
    head = len(program.blocks[program.calls[-1].block].columns[80])
    begin = len(flow.columns) - head
    first, found = flow.lines.first[0], flow.lines.found[0].copy()

    def message(**changes: Any) -> str:
        with pytest.raises(MachineError) as error:
            list(cut(program, 80, replace(flow, **changes)))
        return str(error.value)

    reader = int(np.flatnonzero((np.diff(first) > 0) & (flow.columns.op > 1))[0])
    found[first[reader]] = flow.result[-1]
    lines = replace(flow.lines, found=(found, flow.lines.found[1]))
    assert "of a later call" in message(lines=lines)
    kinds = flow.lines.kind.copy()
    kinds[: flow.result[begin]] = Holds.WIDE
    assert "hands over wide lines" in message(lines=replace(flow.lines, kind=kinds))
    reads_kv = (flow.region >= 0) & (flow.columns.op != Op.KVW)
    elsewhere = np.where(reads_kv, flow.region.max(), flow.region)
    assert "KV region that another call appends to" in message(region=elsewhere)
    assert "leaves products to another call" in message(
        drain=np.where(flow.drain >= 0, len(flow.columns) - 1, -1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but(["safetensors"], ["safetensors", "orbax"]))
def test_checkpoints_stream_with_the_same_bits(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(FOLDER), "--rack", "pair", "--context", "16", "--prompt-ids", "1,2", "--tokens", "2"]
    if kind == "orbax":
        assert cli.main(["convert", str(FOLDER), "-o", str(tmp_path / "w")]) == 0
        words += ["--weights", f"orbax:{tmp_path / 'w'}"]
    capsys.readouterr()
    bits: list[str] = []
    for choice in ("--stream", "--no-stream"):
        assert cli.main([*words, choice, "--json"]) == 0
        out, err = capsys.readouterr()
        bits.append(json.loads(out)["logits_sha256"])
        assert ("note: streamed: a step reads or draws" in err) == (choice == "--stream")
        assert ("(measured): about" in err and "s for 3." in err) == (choice == "--stream")
    assert bits[0] == bits[1]


def test_what_exceeds_memory_is_streamed_and_what_even_then_does_is_one_line(
    four: Compiled, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 4_000_000)
    assert isinstance(machine_of(four.program, four.model), StreamedMachine)
    with pytest.raises(MachineError, match="its weights and KV take"):
        machine_of(four.program, four.model, stream=False)
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 1000)
    assert cli.main(["run", "llama-tiny", "--rack", "quad", "--tokens", "1"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("error: run: the weights of its two largest calls and its KV take 0.0 GB")


def test_a_step_is_estimated_by_the_rate_of_a_sample(four: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(four.program, four.model, stream=True)
    assert isinstance(machine, StreamedMachine)
    now = iter((10.0, 12.0))
    monkeypatch.setattr("lpu.run.streamed.feed.time.perf_counter", lambda: next(now))
    rate = machine.rate()
    assert rate.sample_seconds == 2
    assert 0 < rate.sample_bytes < rate.step_bytes
    assert rate.step_seconds == 2 * rate.step_bytes / rate.sample_bytes


def test_inputs_out_of_range_and_nan_are_one_line(four: Compiled) -> None:
    machine = machine_of(four.program, four.model, stream=True)
    for tokens, positions, match in (
        ([0], [80], "position 80 is beyond the largest context, 80"),
        ([259], [0], "token 259"),
        ([0, 1], [0, 1], "have shape"),
    ):
        with pytest.raises(MachineError, match=match):
            machine.step(machine.start(), tokens, positions)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_module_of_ones_own_has_no_streamed_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(HERE)
    monkeypatch.syspath_prepend(str(HERE))
    words = ["own_models:one_layer", "--rack", "pair", "--context", "16", "--tokens", "1"]
    assert cli.main(["run", *words, "--stream"]) == 0
    capsys.readouterr()
    assert cli.main(["certify", *words, "--stream"]) == 2
    error = capsys.readouterr().err
    assert "own_models:one_layer is a user's module" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")
def test_a_streamed_run_takes_less_memory_than_its_weights() -> None:
    """1.1 GB of weights; measured where it runs, with what JAX and the program take."""
    code = (
        "from pathlib import Path; from lpu import api; "
        "made = api.compile('tinyllama-1.1b', rack='lpx', context=[256], check=False); "
        "api.run(made, [[1]], tokens=1, how=api.RunOptions(stream=True)); "
        "status = Path('/proc/self/status').read_text(); "  # ru_maxrss begins with the parent's
        "print(1024 * int(status.split('VmHWM:')[1].split()[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.0e9
