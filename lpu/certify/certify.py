"""The certificate: one program's logits compared bit by bit with every other way to compute them."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from compiler.errors import CompileError
from compiler.options import LAYOUTS, PLACEMENTS, CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.program import Program
from compiler.program.store import content
from fabric.rack import Rack
from lpu.certify.certificate import REFERENCE, REPORTS, TWICE, BitsCompared, Certificate
from lpu.certify.child import Child, children
from lpu.certify.equivalence import difference, equivalence, quantisation
from lpu.certify.options import CertifyOptions
from lpu.check.check import check, require
from lpu.check.memory_image import pair
from lpu.decode.decoders import (
    check_layers,
    flipped,
    machine_of,
    plain_decode,
    reference_decode,
    restart,
    restart_pair,
    share_image,
)
from lpu.decode.generate import Decode, Generation, Prefill, generate, replay
from lpu.folder import Progress
from lpu.inputs.model import OpenModel
from lpu.modules import readers_of
from lpu.prove.programs import in_words
from lpu.run.clips import Clipped
from lpu.run.machine import Machine
from lpu.run.streamed.stream import StreamedMachine
from models.sources.packed.convert import changed_of

PACKAGES = ("lpu-emulator", "jax", "jaxlib", "numpy", "flax")
LEAST_TP = 4  # the fewest chips that split in two directions
EVERYTHING = "all"  # value of `corrupt` for every comparison


def certify(
    model: OpenModel,
    rack: Rack | None,
    options: CompileOptions,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    rack_name: str | None = None,
    how: CertifyOptions | None = None,
    saved: Program | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Certificate:
    """Compile, check, prove and run; then compute the same logits in every other way and compare bits.

    rack_name: how another process opens the rack (None: no runs in other processes). saved: a program that is
    compiled already; it is held against the reference and itself, and `rack` is None.
    Raises every error of compile, check, link and run.
    """
    program = saved if rack is None else compile_program(model.source(), rack, options, progress)
    assert program is not None
    how = how or CertifyOptions()
    proved, proof = in_words(program, readers_of(model), how.chunks, how.moves)
    rows = sum(require(check(program, context)).rows for context in model.contexts)
    stream = how.stream
    machine = machine_of(program, model, stream, progress)
    if streamed := isinstance(machine, StreamedMachine):
        check_layers(model)
        if how.estimated:
            how.estimated(machine.rate())
    batch = program.manifest.rows
    base = generate(restart(machine), prompts, count, batch, progress, "run")
    settled, clipped = program.manifest.options, machine.clips.found(len(base.prompts))
    dropped = machine.overflow.found()
    ways = _Ways(model, rack, program, base, how.corrupt, stream, progress)
    found = ways.of_itself(machine, how.chunks)
    del machine
    if rack is not None:
        found += ways.of_others(settled, None if streamed else how.prefill)
        for child in children(model.file, rack_name, options, prompts, count, how.pythons, stream):
            found.append(ways.take_child(child))
    return Certificate(
        model=model.about,
        rack=program.manifest.rack,
        options=program.manifest.options,
        inputs_sha256=program.manifest.inputs,
        program_sha256=program.manifest.digest,
        logits_sha256=base.digest,
        prompts=base.prompts,
        tokens=base.tokens,
        cycles_per_token=program.manifest.cycles,
        clock_hz=program.manifest.clock_hz,
        chip=program.manifest.chip.name,
        rows_checked=rows,
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        comparisons=tuple(found),
        proved=proved,
        proof=proof,
        clipped=clipped,
        dropped=dropped,
        **(
            _reports(model, base, batch, clipped, progress)
            if how.plain and not streamed
            else dict.fromkeys(REPORTS)
        ),
    )


def variants(options: CompileOptions, chips: int) -> list[tuple[str, CompileOptions]]:
    """Every other layout and every other placement than those of `options`, one changed at a time.

    Fewer than four chips cannot split in two directions, one chip not at all: tp is raised there.
    """
    wide, suffix = _at_least(LEAST_TP, options, chips)
    out = [
        (f"layout {name}{suffix}", replace(wide, layout=name))
        for name in LAYOUTS
        if name != options.layout or suffix
    ]
    placed, suffix = _at_least(2, options, chips)
    out += [
        (f"placement {name}{suffix}", replace(placed, placement=name))
        for name in PLACEMENTS
        if name != options.placement
    ]
    again = replace(placed, placement="random", seed=options.seed + 1)
    return [*out, (f"placement random, seed {again.seed}{suffix}", again)]


def _at_least(least: int, options: CompileOptions, chips: int) -> tuple[CompileOptions, str]:
    """The options at the smallest tp from `least` on that divides the chips, and a suffix for the name."""
    tp = options.tp or 1
    raised = next((n for n in range(max(tp, least), chips + 1) if chips % n == 0), tp)
    if raised == tp:
        return replace(options, tp=tp), ""
    return replace(options, tp=raised, pp=None), f" (tp {raised})"


def _chunked(tokens: int) -> str:
    return f"prefill in chunks of {tokens}"


@dataclass(frozen=True, slots=True)
class _Ways:
    """Makes comparisons with the base run."""

    model: OpenModel
    machine: Rack | None
    program: Program
    base: Generation
    corrupt: str
    stream: bool | None
    progress: Progress

    @property
    def rack(self) -> Rack:
        """What variants are compiled for; a saved program has none."""
        assert self.machine is not None
        return self.machine

    def of_itself(self, machine: Machine | StreamedMachine, chunks: Program | None) -> list[BitsCompared]:
        """The reference and a second run; chunks: a prefill program that is compiled already."""
        streamed = isinstance(machine, StreamedMachine)

        def again(model: OpenModel) -> Decode:
            same = model is self.model
            return restart(machine if same else machine_of(self.program, model, self.stream, self.progress))

        found = [
            self.take(REFERENCE, lambda model: reference_decode(model, stream=streamed)),
            self.take(TWICE, again),
        ]
        if chunks is not None and not streamed:
            found.append(self.take_chunks(self.program, chunks))
        return found

    def of_others(self, settled: CompileOptions, prefill: int | None) -> list[BitsCompared]:
        """Programs compiled for it: in chunks of `prefill` tokens, every other layout and placement."""
        found = [] if prefill is None else [self.take_prefill(prefill, settled)]
        for name, options in variants(settled, self.rack.chips):
            found.append(self.take_variant(name, options))
        return found

    def take(
        self,
        name: str,
        way: Callable[[OpenModel], Decode | tuple[Decode, Prefill]],
        program: Program | None = None,
    ) -> BitsCompared:
        """Decode again with the steps of `way`, in chunks if it has a prefill, and compare all bits."""
        model = self.model
        if self.corrupt in (name, EVERYTHING):
            model = replace(model, weights=flipped(model.weights))
        base, batch = self.base, self.program.manifest.rows
        made = way(model)
        decode, chunks = made if isinstance(made, tuple) else (made, None)
        run = generate(decode, base.prompts, len(base.tokens[0]), batch, self.progress, name, chunks)
        wrong = difference(base, run)
        if program is None:
            return BitsCompared(name=name, equal=not wrong, detail=wrong, logits_sha256=run.digest)
        return BitsCompared(
            name=name,
            equal=not wrong,
            detail=wrong,
            logits_sha256=run.digest,
            program_sha256=program.manifest.digest,
            cycles_per_token=program.manifest.cycles,
        )

    def take_variant(self, name: str, options: CompileOptions) -> BitsCompared:
        """Compile with other options, check, run, compare; the same program again would prove nothing."""
        try:
            program = compile_program(self.model.source(), self.rack, options, self.progress)
        except CompileError as error:
            return BitsCompared(name=name, equal=None, detail=f"cannot be compiled: {error}")
        if content(program) == content(self.program):
            return BitsCompared(name=name, equal=None, detail="is the same program on this rack")
        for context in self.model.contexts:
            require(check(program, context))

        def way(model: OpenModel) -> Decode:
            return restart(machine_of(program, model, self.stream, self.progress))

        return self.take(name, way, program)

    def take_prefill(self, tokens: int, options: CompileOptions) -> BitsCompared:
        """Compile a prefill program beside the same decode program, check both, run, compare."""
        sources = self.model.source(), self.model.source(tokens)
        try:
            decode, long = compile_pair(*sources, self.rack, options, self.progress)
        except CompileError as error:
            return BitsCompared(name=_chunked(tokens), equal=None, detail=f"cannot be compiled: {error}")
        return self.take_chunks(decode, long)

    def take_chunks(self, decode: Program, long: Program) -> BitsCompared:
        """Check both programs of a pair, run, compare."""
        for program in (decode, long):
            for context in program.manifest.contexts:
                require(check(program, context))
        require(pair(decode, long))
        tokens = long.manifest.chunk
        if all(len(prompt) < tokens for prompt in self.base.prompts):
            return BitsCompared(name=_chunked(tokens), equal=None, detail=f"no prompt has {tokens} tokens")

        def both(model: OpenModel) -> tuple[Decode, Prefill]:
            machine = machine_of(decode, model, stream=False)
            assert isinstance(machine, Machine)
            return restart_pair(machine, share_image(long, model, machine))

        return self.take(_chunked(tokens), both, long)

    def take_child(self, child: Child) -> BitsCompared:
        """Compile and run in another process and compare both digests."""
        self.progress(child.name, 0, 1)
        found = child.run(self.corrupt in (child.name, EVERYTHING))
        if found.reason:
            return BitsCompared(name=child.name, equal=None, detail=found.reason)
        wrong = [
            f"{what} {ours[:16]} here, {theirs[:16]} there"
            for what, ours, theirs in (
                ("program digest", self.program.manifest.digest, found.program_sha256),
                ("logits digest", self.base.digest, found.logits_sha256),
            )
            if ours != theirs
        ]
        return BitsCompared(
            name=child.name,
            equal=not wrong,
            detail="; ".join(wrong),
            logits_sha256=found.logits_sha256,
            program_sha256=found.program_sha256,
        )


def _reports(
    model: OpenModel, base: Generation, batch: int, clipped: tuple[Clipped, ...], progress: Progress
) -> dict[str, Any]:
    """Numerical equivalence, and the quantisation report where the weights come from a checkpoint."""
    same = replay(plain_decode(model), base, batch, progress, "plain f32")
    near = equivalence(base, same, ("contract", "the same weights in plain f32"))
    near = replace(near, clipped=sum(one.values for one in clipped))
    errors = model.weights.relative_errors
    if not errors:
        return {"numerical_equivalence": near, "quantisation": None}
    own = replay(plain_decode(model, rounded=False), base, batch, progress, "checkpoint in f32")
    cost = equivalence(same, own, ("e4m3 weights in plain f32", "the checkpoint's in plain f32"))
    return {
        "numerical_equivalence": near,
        "quantisation": quantisation(errors, cost, changed_of(model.weights)),
    }
