"""Small programs that several tests look at, compiled once."""

from functools import cache

import pytest
from shapes import SMALL

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from compiler.source import Source
from fabric.rack import Rack, load_rack
from models.step import family_step


@cache
def compiled(rack: str, options: CompileOptions) -> Program:
    """SMALL, batch 1, context 80."""
    return on_rack(load_rack(rack), options)


def on_rack(rack: Rack, options: CompileOptions) -> Program:
    """The same on a rack, such as one with faults."""
    step = family_step(SMALL, batch=1, context=80)
    params, tokens, position, cache = step.inputs()
    source = Source(
        step=step.fn,
        params=params,
        tokens=tokens,
        position=position,
        cache=cache,
        contexts=(80,),
        model=ModelIdentity(name=SMALL.name),
    )
    return compile_program(source, rack, options)


@pytest.fixture(scope="session")
def pair_program() -> Program:
    """SMALL on both chips of `pair`, one group."""
    return compiled("pair", CompileOptions(tp=2, pp=1))


@pytest.fixture(scope="session")
def piped_program() -> Program:
    """SMALL on the four chips of `quad`, two groups of two."""
    return compiled("quad", CompileOptions(tp=2, pp=2))


@pytest.fixture(scope="session")
def dealt_program() -> Program:
    """SMALL on the four chips of `quad`, the context of each KV head dealt over two of them."""
    return compiled("quad", CompileOptions(tp=4, pp=1, cp=2))
