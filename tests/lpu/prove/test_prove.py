from dataclasses import replace
from typing import Any

import pytest
from hopped import hopped
from models_named import of_model
from pairs import compiled_pair
from shapes import BIASED, HEADS, SCALED, SMALL

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.options import CompileOptions
from compiler.program.program import Program
from fabric.catalog import bridge_spec
from lpu import api
from lpu.prove.held import HeldHead
from lpu.prove.programs import left_out, prove_programs
from lpu.prove.prove import prove
from models.config import TransformerConfig

WIDE = replace(SMALL, max_context=240)


@pytest.mark.parametrize("name", ["pair_program", "piped_program", "dealt_program"])
def test_a_program_computes_its_model(name: str, request: pytest.FixtureRequest) -> None:
    found = prove(of_model(request.getfixturevalue(name), SMALL))
    assert found.ok, found.reason
    assert len(found.regions) == SMALL.layers * SMALL.kv_heads * (2 if name == "dealt_program" else 1)
    assert found.followed <= found.rows


@pytest.mark.parametrize(
    ("config", "layout"),
    [(BIASED, "column"), (SCALED, "row"), (HEADS, "2d")],
    ids=lambda value: getattr(value, "name", value),
)
def test_both_programs_of_a_pair_keep_one_memory(config: TransformerConfig, layout: str) -> None:
    _, decode, prefill = compiled_pair(
        config, 8, rack="quad", contexts=(40, 80), tp=4, layout=layout, batch=2
    )
    found = prove_programs(of_model(decode, config), of_model(prefill, config))
    assert found.ok, found.reason
    assert found.verdicts["decode"].regions == found.verdicts["prefill"].regions


def test_several_buckets_and_fp8_stripes_keep_one_memory() -> None:
    config = replace(WIDE, kv_heads=2)
    _, decode, prefill = compiled_pair(
        config, 16, contexts=(80, 160, 240), kv="fp8", tp=4, pp=1, cp=2, batch=2
    )
    found = prove_programs(of_model(decode, config, "fp8"), of_model(prefill, config, "fp8"))
    assert found.ok, found.reason
    heads = [one for one in found.verdicts["decode"].regions.values() if isinstance(one, HeldHead)]
    assert {one.stripe for one in heads} == {0, 1}


def test_the_first_wave_of_a_throughput_program_is_proved() -> None:
    made = api.compile(
        "llama-tiny", rack="quad", options=CompileOptions(tp=2, objective="throughput"), context=[32]
    )
    assert made.program.manifest.kind == "waves"
    assert api.prove(made).ok


@pytest.mark.parametrize(
    "config", [SMALL, replace(SMALL, ffn_down="fp8", ffn_up="fp16")], ids=["exact", "rounded"]
)
@pytest.mark.parametrize("layout", ["column", "2d"])
def test_hops_compute_the_ffn_of_their_layer(config: TransformerConfig, layout: str) -> None:
    _, program, _ = hopped(config, "quad", rows=2, tp=4, layout=layout)
    found = prove(of_model(program, config))
    assert found.ok, found.reason
    wrong = prove(of_model(program, replace(config, activation="gelu")))
    assert "glu(" in wrong.reason


def moved() -> tuple[Program, Program, Program]:
    _, decode, _ = compiled_pair(SMALL, 8, rack="quad", tp=2, pp=2)
    decode = of_model(decode, SMALL)
    bridge = bridge_spec("spectrum-x")
    return decode, compile_ingest(decode, 40, bridge), compile_egress(decode, 40, bridge)


def test_programs_that_move_kv_name_the_heads_that_the_proof_found() -> None:
    decode, ingest, egress = moved()
    assert prove_programs(decode, None, ingest, egress).ok
    first, second = ingest.calls
    chips = tuple(dict.fromkeys((*second.chips, *first.chips)))[: len(first.chips)]
    others = replace(first, chips=chips), replace(second, chips=first.chips[: len(second.chips)])
    exchanged = prove_programs(decode, None, replace(ingest, calls=others))
    assert "no KV of layer 0" in exchanged.reason
    assert "of 2 layers" in prove_programs(decode, None, replace(ingest, calls=(first,))).reason


def test_what_is_proved_unasked_has_a_reader_and_few_rows(
    pair_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert left_out(pair_program).startswith(
        "no reader of models knows a module of the user's own; lpu prove"
    )
    known = of_model(pair_program, SMALL)
    assert left_out(known) == ""
    monkeypatch.setattr("lpu.prove.programs.MOST_ROWS", 10)
    assert "more than 10" in left_out(known)


def test_another_model_is_refused_and_the_first_difference_named(pair_program: Program) -> None:
    def refused(**changed: Any) -> str:
        return prove(of_model(pair_program, replace(SMALL, **changed))).reason

    assert "its kernel says 240 rows, embed.table has 239" in refused(vocab=239)
    assert "rms_stat(embed<embed.table>, layers.0.attention.norm.gain, 1e-05)" in refused(eps=1e-6)
    assert "'layers.1.attention.norm.gain' is no tensor of the model" in refused(layers=1)
    assert "glu(matmul<layers.0.ffn.gate.codes" in refused(activation="gelu")
    assert "leaves 0 .. 239" in refused(hidden=240) or "map" in refused(hidden=120)
    assert "no reader of models knows the family" in prove(of_family(pair_program, "none")).reason


def of_family(program: Program, family: str) -> Program:
    about = replace(of_model(program, SMALL).manifest.model, config={"family": family})
    return replace(program, manifest=replace(program.manifest, model=about))
