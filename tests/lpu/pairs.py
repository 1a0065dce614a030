"""Decode and prefill programs of small models, compiled together."""

from dataclasses import replace
from typing import Any

from compiler.options import CompileOptions
from compiler.pipeline import compile_pair
from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from compiler.source import Source
from fabric.rack import load_rack
from models.config import TransformerConfig
from models.kv import KVFormat
from models.step import Step, family_step


def source(step: Step, contexts: tuple[int, ...]) -> Source:
    params, tokens, position, cache = step.inputs()
    return Source(
        step=step.fn,
        params=params,
        tokens=tokens,
        position=position,
        cache=cache,
        contexts=contexts,
        model=ModelIdentity(name="pair"),
        chunk=step.chunk,
    )


def compiled_pair(
    config: TransformerConfig,
    chunk: int,
    *,
    rack: str = "quad",
    batch: int = 1,
    contexts: tuple[int, ...] = (80,),
    kv: KVFormat = "fp16",
    chip: dict[str, int] | None = None,
    **options: Any,
) -> tuple[Step, Program, Program]:
    """(the decode step, its program, the prefill program); `chip`: numbers to change of the rack's chips."""
    config = replace(config, max_context=max(contexts))
    step = family_step(config, batch=batch, context=max(contexts), kv=kv)
    long = family_step(config, batch=1, context=max(contexts), kv=kv, chunk=chunk)
    machine = load_rack(rack)
    machine = replace(machine, chip=machine.chip.with_numbers("for a test", **(chip or {})))
    sources = source(step, contexts), source(long, contexts)
    return step, *compile_pair(*sources, machine, CompileOptions(**options))
