"""Prefill: a chunk of a prompt gives the bits of its tokens taken one by one, and leaves the same KV."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside import bits, made_up
from own_models import head_norms
from pairs import compiled_pair
from shapes import HEADS, SMALL

from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import Op
from compiler.program.program import Program
from lpu import api
from lpu.certify import certify
from lpu.check.check import check, require
from lpu.check.memory_image import pair
from lpu.cli.app import main
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import chunk_starts, generate
from lpu.run import host_memory
from lpu.run.error import MachineError
from lpu.run.machine import Machine, StepResult, prepare
from models.catalog import catalog
from models.config import TransformerConfig
from models.kv import empty_cache

TINY = catalog("llama-tiny")
CASES: dict[str, tuple[TransformerConfig, int, dict[str, Any]]] = {
    "one chip, few rows": (TINY, 8, {"tp": 1, "batch": 2}),
    "four chips, e4m3 cache, many rows": (TINY, 36, {"tp": 4, "kv": "fp8"}),
    "partial sums, three sequences, two context buckets": (
        SMALL,
        40,
        {"tp": 4, "layout": "row", "batch": 3, "contexts": (40, 90)},
    ),
    "chunks in waves over three groups": (TINY, 8, {"tp": 1, "pp": 3, "batch": 2}),
    "head norms, heads across lines": (HEADS, 17, {"tp": 2}),
    "experts, of which a chunk chooses more": (catalog("moe-tiny"), 8, {"tp": 2, "batch": 2}),
}


def decoded(step: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """Logits of `count` single steps, [sequences, positions, vocab]."""
    return np.stack([step(position) for position in range(count)], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_chunks_and_a_decode_step_have_the_bits_of_single_steps(case: str) -> None:
    config, chunk, options = CASES[case]
    step, decode, long = compiled_pair(config, chunk, **options)
    for program in (decode, long):
        for context in program.manifest.contexts:
            require(check(program, context))
    require(pair(decode, long))
    weights = made_up(step)
    single = prepare(decode, weights)
    chunks = prepare(long, weights, single)
    assert chunks.image is single.image
    tokens = np.random.default_rng(1).integers(0, config.vocab, (step.batch, 2 * chunk + 1)).astype(np.int32)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    reference, cache, state = jax.jit(step.fn), empty_cache(step.cache), single.start()

    def by_reference(position: int) -> np.ndarray:
        nonlocal cache
        at = jnp.full(step.batch, position, jnp.int32)
        logits, _, cache = reference(params, jnp.asarray(tokens[:, position]), at, cache)
        return np.asarray(logits)

    def by_machine(position: int) -> np.ndarray:
        nonlocal state
        done = single.step(state, tokens[:, position], np.full(step.batch, position))
        state = done.state
        return np.asarray(done.logits)

    want = decoded(by_reference, 2 * chunk)
    assert bits(decoded(by_machine, 2 * chunk)) == bits(want)
    filled = single.start()
    for sequence in range(step.batch):
        for first in (0, chunk):
            at = np.arange(first, first + chunk)
            done = chunks.step(filled, tokens[sequence, at], at, sequence)
            filled = done.state
            assert bits(done.logits) == bits(want[sequence, at])
            assert np.asarray(done.token).tolist() == want[sequence, at].argmax(axis=1).tolist()
    for ours, theirs in zip(jax.tree.leaves(filled), jax.tree.leaves(state), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    after = single.step(filled, tokens[:, 2 * chunk], np.full(step.batch, 2 * chunk))
    assert bits(after.logits) == bits(by_reference(2 * chunk))


@pytest.mark.slow
def test_prompts_of_any_length_to_an_own_module_give_the_logits_of_the_reference() -> None:
    """19 tokens in chunks of 8 are three chunks, the last from 11 on; 5 tokens are fed one by one."""
    compiled = api.compile(head_norms, rack="pair", prefill=8, batch=3, context=[40])
    prompts = [list(range(3, 22)), [7, 8, 9, 10, 11], list(range(30, 46))]
    done = api.run(compiled, prompts, tokens=4)
    same = generate(reference_decode(compiled.model), prompts, 4, 3)
    assert done.generation.digest == same.digest
    assert done.generation.tokens == same.tokens
    assert done.generation.chunks == (7, 15, 18, 7, 15)
    assert done.generation.steps == 5 + 4 - 1
    assert len(done.prefill_cycles) == 5


@pytest.mark.slow
def test_a_certificate_holds_chunks_against_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other comparisons have tests of their own."""
    monkeypatch.setattr(certify, "variants", lambda *_: [])
    monkeypatch.setattr(certify, "children", lambda *_: [])
    name = "prefill in chunks of 8"
    for corrupt in ("", name):
        found = api.certify(
            head_norms,
            rack="pair",
            context=[40],
            tokens=2,
            how=api.CertifyOptions(prefill=8, plain=False, corrupt=corrupt),
        )
        (chunks,) = (one for one in found.comparisons if one.name == name)
        assert chunks.equal is (not corrupt)
        assert found.ok is (not corrupt)


def test_the_last_chunk_of_a_prompt_ends_with_it() -> None:
    assert chunk_starts(700, 512) == [0, 188]
    assert chunk_starts(512, 512) == [0]
    assert chunk_starts(1025, 512) == [0, 512, 513]


@pytest.fixture(scope="module")
def both() -> tuple[Program, Program]:
    return compiled_pair(SMALL, 16, rack="pair", tp=2, batch=2)[1:]


def edited(program: Program, **fields: Any) -> Program:
    """The program with another manifest."""
    return replace(program, manifest=replace(program.manifest, **fields))


def kernels(program: Program, **fields: Any) -> Program:
    """The program with other attributes of its attention kernels."""
    known = program.manifest.kernels
    changed = (replace(k, **fields) if isinstance(k, AttentionKernel) else k for k in known)
    return edited(program, kernels=tuple(changed))


def test_a_shared_image_is_one_and_its_programs_say_so(both: tuple[Program, Program]) -> None:
    decode, long = both
    assert pair(decode, long).ok
    assert decode.manifest.regions == long.manifest.regions
    assert (decode.manifest.rows, long.manifest.rows) == (2, 16)
    assert (decode.manifest.sequences, long.manifest.sequences) == (2, 2)
    assert decode.manifest.inputs != long.manifest.inputs


def moved_weight(program: Program) -> Program:
    """One preloaded tile a word further."""
    block = next(i for i, b in enumerate(program.blocks) if len(b.loads) > 2)
    loads = program.blocks[block].loads
    addr = loads.addr.copy()
    addr[1] += 1
    blocks = list(program.blocks)
    blocks[block] = replace(blocks[block], loads=replace(loads, addr=addr))
    return replace(program, blocks=tuple(blocks))


def other_tensor(program: Program) -> Program:
    last = program.calls[-1]
    call = replace(last, tensors=(*last.tensors[:-1], "another"))
    return replace(program, calls=(*program.calls[:-1], call))


def moved_cache(program: Program) -> Program:
    """The KV of one block of one chip somewhere else."""
    i = next(i for i, call in enumerate(program.calls) if call.name.startswith("layers."))
    call = program.calls[i]
    call = replace(call, kv_base=(call.kv_base[0] + 80, *call.kv_base[1:]))
    return replace(program, calls=(*program.calls[:i], call, *program.calls[i + 1 :]))


def moved_regions(program: Program) -> Program:
    first, second, *rest = program.manifest.regions
    weights = second.weights._replace(base=second.weights.base + 1)
    return edited(program, regions=(first, second._replace(weights=weights), *rest))


UNEQUAL: dict[str, tuple[Callable[[Program], Program], int, str]] = {
    "a weight elsewhere": (moved_weight, 2, "to decode, word"),
    "another tensor": (other_tensor, 2, "of other tensors"),
    "KV elsewhere": (moved_cache, 7, "of the prefill program"),
    "KV in another format": (lambda p: kernels(p, kv="fp8"), 7, "fp8"),
    "other regions": (moved_regions, 5, "chip 1: regions"),
    "another vocabulary": (lambda p: edited(p, vocab=7), 0, "vocab differs"),
    "another chunk": (lambda p: edited(p, chunk=8), 0, "goes with chunks of 16"),
}


@pytest.mark.parametrize("fault", UNEQUAL)
def test_programs_of_unequal_images_are_no_pair(both: tuple[Program, Program], fault: str) -> None:
    change, rule, message = UNEQUAL[fault]
    found = pair(both[0], change(both[1]))
    assert found.counts[rule] >= 1
    assert any(message in violation.message for violation in found.violations)


@pytest.mark.slow
def test_a_machine_shares_its_image_with_no_other_program(both: tuple[Program, Program]) -> None:
    step, decode, _ = compiled_pair(SMALL, 16, rack="pair", tp=2, batch=2)
    weights = made_up(step)
    single = prepare(decode, weights)
    for other, what in (
        (compiled_pair(SMALL, 16, rack="pair", tp=2, batch=1)[2], "KV shapes"),
        (compiled_pair(SMALL, 16, rack="pair", tp=1, batch=2)[2], "preloaded values"),
        (moved_cache(both[1]), "KV regions"),
    ):
        with pytest.raises(MachineError, match=f"different.*{what}.*no common memory image"):
            prepare(other, weights, single)


FORMS: dict[str, tuple[Callable[[Program], Program], int, str]] = {
    "K installed for every row": (
        lambda p: edited(kernels(p, sequences=16), chunk=1, sequences=16),
        0,
        "16 of 2",
    ),
    "sequences of another share": (lambda p: kernels(p, sequences=3), 0, "3 sequences of 16 rows"),
    "another cache": (lambda p: kernels(p, cached=5), 0, "1 of 5 cached sequences, the program has 2"),
    "no sequences": (lambda p: kernels(p, sequences=0), 0, "has sequences 0, not a count"),
    "a chunk of nothing": (lambda p: edited(p, chunk=0), 0, "chunk is 0"),
}


@pytest.mark.parametrize("fault", FORMS)
def test_a_chunk_that_breaks_a_rule_is_found(both: tuple[Program, Program], fault: str) -> None:
    change, rule, message = FORMS[fault]
    found = check(change(both[1]), 80)
    assert found.counts[rule] >= 1
    assert any(message in violation.message for violation in found.violations)


def test_keys_are_installed_once_for_all_rows_of_a_sequence() -> None:
    """80 tokens of 32 fp16 lanes at 100 bytes a cycle take 52 cycles, 16 rows of 2 heads each 32."""
    long = compiled_pair(SMALL, 16, rack="pair", tp=2, chip={"sram_bytes_per_cycle": 400})[2]
    assert check(long, 80).ok
    rows = long.expand(80)
    scores = np.flatnonzero(rows.op == Op.QK)
    assert set((rows.t1 - rows.t0)[scores].tolist()) == {52 + 64}
    several = check(edited(kernels(long, sequences=16, cached=16), chunk=1, sequences=16), 80)
    assert any("QK" in v.message and f"takes 116 cycles, must take {16 * 52 + 64}" in v.message
               for v in several.violations)  # fmt: skip


def test_a_chunk_larger_than_host_memory_is_refused_before_it_runs(
    both: tuple[Program, Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = made_up(compiled_pair(SMALL, 16, rack="pair", tp=2, batch=2)[0])
    single = prepare(both[0], weights)
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 1000)
    with pytest.raises(MachineError, match=r"a chunk computes take .* GB are free\. .*smaller --prefill"):
        prepare(both[1], weights, single)


def test_inputs_that_are_no_chunk_are_refused(both: tuple[Program, Program]) -> None:
    step, decode, long = compiled_pair(SMALL, 16, rack="pair", tp=2, batch=2)
    single = prepare(decode, weights := made_up(step))
    chunks = prepare(long, weights, single)
    tokens, at = np.zeros(16, np.int32), np.arange(16)

    def refused(machine: Machine, *inputs: Any) -> StepResult:
        return machine.step(machine.start(), *inputs)

    with pytest.raises(MachineError, match=r"sequence 2 is outside 0\.\.1"):
        refused(chunks, tokens, at, 2)
    with pytest.raises(MachineError, match="do not ascend"):
        refused(chunks, tokens, at // 2)
    with pytest.raises(MachineError, match="have shape"):
        refused(chunks, tokens[:2], at[:2])


@pytest.mark.slow
def test_a_chunk_that_does_not_fit_is_one_line_with_its_remedy() -> None:
    with pytest.raises(
        OptionError, match=r"--prefill 81: is above the longest context, 80\. Give --prefill 80"
    ):
        compiled_pair(SMALL, 81, rack="pair", tp=2)
    wide = replace(SMALL, hidden=1600, ffn=16_000, vocab=4000)
    with pytest.raises(CapacityError) as error:
        compiled_pair(wide, 6000, rack="pair", contexts=(6000,), tp=1)
    text = str(error.value)
    assert "--prefill 6000" in text
    assert "a chip has 500.0 MB" in text
    assert text.endswith("Give a smaller --prefill, or raise --tp or --pp.")


@pytest.mark.slow
def test_what_does_not_fit_without_prefill_is_not_its_fault() -> None:
    huge = replace(SMALL, hidden=32_000, ffn=64_000)
    with pytest.raises(CapacityError) as error:
        compiled_pair(huge, 16, rack="pair", tp=1)
    assert "--prefill" not in str(error.value)


@pytest.mark.slow
def test_the_command_line_saves_checks_reports_and_runs_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lpu(*words: str) -> tuple[int, str]:
        code = main([*words])
        return code, capsys.readouterr().out

    folder = str(tmp_path / "p")
    code, out = lpu(
        "compile", "llama-tiny", "--rack", "pair", "--context", "40", "--prefill", "8", "-o", folder
    )
    assert code == 0
    assert "cycles" in out
    assert "for 8 tokens of a prompt at context 40" in out
    assert (tmp_path / "p" / "prefill" / "manifest.json").is_file()
    assert "for 8 tokens of a prompt" in lpu("report", folder)[1]
    out = lpu("report", f"{folder}/prefill")[1]
    assert "us for 8 tokens of a prompt at context 40" in out
    assert "context 40, batch 1 of 8 tokens" in out
    assert main(["run", f"{folder}/prefill"]) == 2
    assert "Give the program folder that it lies in" in capsys.readouterr().err
    code, out = lpu("check", folder)
    assert code == 0
    assert "image       one for both programs" in out
    code, out = lpu("run", folder, "--prompt-ids", "1,2,3,4,5,6,7,8,9", "--tokens", "2")
    assert code == 0
    assert "prefill     2 chunks of 8 tokens" in out
    other = api.compile("llama-tiny", rack="pair", context=[40], prefill=8, options=CompileOptions(tp=2))
    assert other.prefill is not None
    loaded = api.load_program(folder)
    api.save_program(loaded, tmp_path / "q", other.prefill)
    code, out = lpu("check", str(tmp_path / "q"))
    assert (code, "broken" in out) == (4, True)
