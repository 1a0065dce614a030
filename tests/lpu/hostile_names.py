"""A program whose names were made by somebody who wants a report to do something."""

from dataclasses import replace

from compiler.program.program import Program
from lpu import api

STEERING = {"\u202e", "\u2066", "\x1b", "\x07"}
MARKS = "\u202e\u2066\x1b[31m\x07"
HOSTILE = f"</script><img src=x onerror=\"window.ran=1\"><a href='https://example.com'>{MARKS}" + "x" * 300


def program() -> Program:
    """llama-tiny on `quad` with hostile names of its model, rack, levels, blocks, calls and sources."""
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False).program
    manifest = made.manifest
    named = replace(
        manifest,
        rack=HOSTILE,
        model=replace(manifest.model, name=HOSTILE, weights=f"seed:0{HOSTILE}"),
        levels=tuple(level._replace(name=HOSTILE) for level in manifest.levels),
        sources=tuple(replace(one, source=HOSTILE) for one in manifest.sources),
        versions={HOSTILE: HOSTILE},
    )
    return replace(
        made,
        manifest=named,
        blocks=tuple(replace(block, name=HOSTILE) for block in made.blocks),
        calls=tuple(replace(call, name=f"{HOSTILE}.{call.name}") for call in made.calls),
    )
