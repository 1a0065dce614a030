"""The tp of a whole request, by its prompt and its new tokens."""

from dataclasses import replace

import pytest

from compiler.choose.request import Pair, fastest_request, request_cycles, require_choice
from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.program import Program
from fabric.rack import load_rack
from lpu.inputs.open import open_model
from lpu.report.program import search_line

QUAD = load_rack("quad")
TINY = open_model("llama-tiny", context=(64, 128))


def pair(options: CompileOptions) -> Pair:
    return compile_pair(TINY.source(), TINY.source(16), QUAD, options)


def slower(program: Program, factor: int) -> Program:
    cycles = {context: one * factor for context, one in program.manifest.cycles.items()}
    return replace(program, manifest=replace(program.manifest, cycles=cycles))


def test_cycles_of_a_request_are_those_of_its_chunks_and_its_steps() -> None:
    made = decode, chunk = pair(CompileOptions(tp=1))
    short, long = decode.manifest.cycles[64], decode.manifest.cycles[128]
    waves = request_cycles(made, 32, 1)
    assert waves == 2 * chunk.manifest.cycles[64]
    assert request_cycles(made, 32, 5) == waves + 4 * short
    assert request_cycles(made, 62, 5) == request_cycles(made, 62, 1) + 2 * short + 2 * long


def test_the_tp_is_that_of_the_shortest_request() -> None:
    """tp 2 takes steps faster here, tp 1 prompts."""
    one, two = pair(CompileOptions(tp=1)), pair(CompileOptions(tp=2))
    by = {1: (slower(one[0], 90), one[1]), 2: (one[0], slower(two[1], 90)), 4: (slower(two[0], 900), two[1])}

    def made(options: CompileOptions) -> Pair:
        assert options.tp is not None
        assert options.request is None
        return by[options.tp]

    found = {
        request: fastest_request(made, QUAD, CompileOptions(request=request), 16, 128)[0].manifest
        for request in ("112+2", "16+100")
    }
    assert {request: manifest.search[0].cycles for request, manifest in found.items()} == {
        request: request_cycles(by[1], *CompileOptions(request=request).requested) for request in found
    }
    chosen = {
        request: min((one for one in manifest.search if one.cycles), key=lambda one: one.cycles or 0).tp
        for request, manifest in found.items()
    }
    assert chosen == {"112+2": 1, "16+100": 2}


def test_what_was_asked_for_is_in_the_program_and_changes_its_digest() -> None:
    decode, chunk = pair(CompileOptions(request="32+4"))
    plain, _ = pair(CompileOptions(tp=decode.manifest.tp))
    assert decode.manifest.options.request == chunk.manifest.options.request == "32+4"
    assert search_line(decode.manifest).startswith("tp 1 is the shortest request of 32+4 tokens of tp 1 ")
    assert decode.manifest.cycles == plain.manifest.cycles
    assert decode.manifest.digest != plain.manifest.digest
    again = compile_program(TINY.source(), QUAD, decode.manifest.options)
    assert again.manifest.cycles.keys() == decode.manifest.cycles.keys()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("8", "is no two counts of tokens"),
        ("8+0", "is no two counts of tokens"),
        ("8+4+4", "is no two counts of tokens"),
        ("-8+4", "is no two counts of tokens"),
        ("", "is no two counts of tokens"),
        ("15+4", "its prompt of 15 tokens is no chunk of 16"),
        ("128+2", "takes 129 places, the longest context has 128"),
    ],
)
def test_bad_requests(request_: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        pair(CompileOptions(request=request_))


def test_a_request_without_chunks_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"is of programs that take prompts in chunks\. Add --prefill TOKENS"
    ):
        compile_program(TINY.source(), QUAD, CompileOptions(request="16+4"))


def test_a_tp_that_is_stated_is_not_chosen() -> None:
    require_choice(CompileOptions(tp=2), None)
    require_choice(CompileOptions(request="16+4"), 16)
    with pytest.raises(OptionError, match="chooses the tp, --tp 2 states it"):
        require_choice(CompileOptions(request="16+4", tp=2), 16)


def test_where_no_tp_fits_the_last_refusal_is_told() -> None:
    def full(options: CompileOptions) -> Pair:
        raise CapacityError("stages", f"tp {options.tp}", "is full", "Take less.")

    with pytest.raises(CapacityError, match="tp 4: is full"):
        fastest_request(full, QUAD, CompileOptions(request="16+4"), 16, 128)
