"""Why a program got slower: the true cause comes first, and the cycles add up."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx
from hopped import hopped
from own_models import ONE_LAYER

from fabric.catalog import chip_spec, rack_spec
from fabric.faults.broken import break_rack
from fabric.faults.fault import parse_faults
from fabric.rack import Rack, build_rack, load_rack
from lpu import api
from lpu.cli import app as cli
from lpu.diff.diff import Difference, NothingComparableError, diff
from models.contract import ops
from models.parts import Norm

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "examples" / "own_module"))

parallel: Any = import_module("parallel")


@cache
def compiled(
    model: Any = "llama-tiny", rack: Any = "quad", context: int = 80, **options: Any
) -> api.Compiled:
    return api.compile(model, rack=rack, context=context, check=False, **options)


def quad(**changes: Any) -> Rack:
    """`quad` with other numbers of its one level."""
    spec = rack_spec("quad")
    (tray,) = spec.levels
    return build_rack(replace(spec, levels=(replace(tray, **changes),)), chip_spec("lp30"))


class InTurn(parallel.Block):
    """Attention, then the FFN on another norm: one residual more in each layer than side by side."""

    def __init__(self, context: int) -> None:
        super().__init__(context)
        self.norm2 = Norm(parallel.HIDDEN, 1e-5)

    def __call__(self, x: Any, angles: Any, position: Any, k_cache: Any, v_cache: Any) -> Any:
        heads, kv_heads, size = parallel.HEADS, parallel.KV_HEADS, parallel.HEAD_DIM
        a = self.norm(x)
        q = ops.rope(self.q(a).reshape(-1, heads, size), angles, position)
        k = ops.rope(self.k(a).reshape(-1, kv_heads, size), angles, position)
        v = ops.round16(self.v(a).reshape(-1, kv_heads, size))
        out, k_cache, v_cache = ops.attention(q, k, v, k_cache, v_cache, position)
        x = ops.add(x, self.o(out))
        b = self.norm2(x)
        return ops.add(x, self.down(ops.glu(self.gate(b), self.up(b), activation="gelu"))), k_cache, v_cache


class Serial(parallel.Parallel):
    def __init__(self, *, batch: int, context: int, kv: Any) -> None:
        super().__init__(batch=batch, context=context, kv=kv)
        self.blocks = nnx.List([InTurn(context) for _ in range(parallel.LAYERS)])


IN_TURN: Any = Serial
PAIRS: dict[str, Callable[[], tuple[api.Compiled, api.Compiled]]] = {
    "fewer lanes": lambda: (compiled(tp=4), compiled(rack=quad(lanes=1), tp=4)),
    "longer link hops": lambda: (compiled(tp=4), compiled(rack=quad(hop_ns=700), tp=4)),
    "another rack": lambda: (compiled(tp=4), compiled(rack=quad(kind="ring", size=8), tp=4)),
    "another tp": lambda: (compiled(tp=4), compiled(tp=2)),
    "a longer context": lambda: (compiled(tp=4), compiled(context=256, tp=4)),
    "a larger batch": lambda: (compiled(tp=4), compiled(tp=4, batch=4)),
    "another layout": lambda: (compiled(tp=4), compiled(tp=4, layout="row")),
    "2 more exchanges in each of the blocks": lambda: (
        compiled(parallel.Parallel, tp=2, pp=1),
        compiled(IN_TURN, tp=2, pp=1),
    ),
}


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("cause", PAIRS)
def test_the_true_cause_of_a_pair_comes_first_and_the_cycles_add_up(cause: str, again: bool) -> None:
    found = diff(*PAIRS[cause](), again=again)
    assert found.cycles
    assert found.first == cause
    assert sum(one.cycles for one in found.causes) + found.unexplained == found.cycles
    assert abs(found.unexplained) <= 0.02 * abs(found.cycles)
    for one in found.causes:
        assert not one.parts or sum(part.cycles for part in one.parts) == one.cycles
    for rows in found.tables.values():
        assert sum(row.more for row in rows) == found.cycles
        assert sum(row.a for row in rows) == found.a.cycles
        assert sum(row.b for row in rows) == found.b.cycles


def broken(*faults: str) -> Rack:
    return break_rack(load_rack("quad"), parse_faults(faults))


def prefill(chunk: int, rack: Any = "quad") -> Any:
    made = api.compile("llama-tiny", rack=rack, tp=2, context=160, prefill=chunk, check=False)
    assert made.prefill is not None
    return made.prefill


JAMBA = str(ROOT / "tests" / "models" / "data" / "variants" / "jamba")
WAVES: dict[str, Any] = {"tp": 2, "objective": "throughput"}
OTHERS: dict[str, tuple[tuple[str, ...], Callable[[], tuple[Any, Any]]]] = {
    "a hybrid": (
        ("another tp",),
        lambda: (compiled(JAMBA, context=64, tp=1), compiled(JAMBA, context=64, tp=2)),
    ),
    "experts": (("another tp",), lambda: (compiled("gpt-oss-tiny", tp=2), compiled("gpt-oss-tiny", tp=4))),
    "latents": (
        ("another KV format",),
        lambda: (compiled("mla-tiny", context=256, tp=2), compiled("mla-tiny", context=256, tp=2, kv="fp8")),
    ),
    "latents and experts": (
        ("a larger batch",),
        lambda: (compiled("deepseek-tiny", tp=2), compiled("deepseek-tiny", tp=2, batch=2)),
    ),
    "a rack that is broken": (
        ("faults of the rack",),
        lambda: (compiled(tp=4), compiled(rack=broken("link:0-1"), tp=4)),
    ),
    "waves": (
        ("fewer lanes", "another objective"),
        lambda: (
            compiled(**WAVES, interval_slack=2.0),
            compiled(rack=quad(lanes=1), **WAVES, interval_slack=1.0),
        ),
    ),
    "chunks of a prompt": (
        ("longer link hops", "a larger chunk"),
        lambda: (prefill(16), prefill(32, quad(hop_ns=700))),
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_causes_of_other_kinds_of_programs_are_found_by_compiling_them_again(kind: str) -> None:
    causes, pair = OTHERS[kind]
    found = diff(*pair())
    assert found.cycles
    assert tuple(one.name for one in found.causes) == causes
    assert found.how.startswith("compiled again")
    assert found.unexplained == 0
    assert {name for name, _ in found.changed} == set(causes)


def test_a_remapped_program_is_explained_by_the_faults_it_goes_round() -> None:
    parent = compiled(rack="lpx-tray", tp=2)
    child = api.remap(parent.program, ["link:0-1"], how=api.RemapOptions(prefer="moves")).program
    for a, b, sign in ((parent.program, child, 1), (child, parent.program, -1)):
        found = diff(a, b)
        assert found.cycles * sign > 0
        assert found.first == "faults of the rack, with blocks kept in place by lpu remap"
        assert found.unexplained == 0
        assert "more link hops" in found.causes[0].parts[0].name or sign < 0
    old = replace(child, manifest=replace(child.manifest, versions={"lpu-emulator": "0"}))
    assert diff(parent.program, old).unexplained == found.cycles * -1


def test_what_differs_is_said_where_nothing_is_compiled_again() -> None:
    text = str(diff(compiled(tp=4), compiled(rack=quad(hop_ns=700), tp=4, batch=4), again=False))
    assert "differs     a larger batch: batch 1 -> 4; longer link hops: tray.hop_ns 350 -> 700" in text


def test_fewer_cycles_of_a_slower_clock_are_not_called_faster() -> None:
    slow = build_rack(rack_spec("quad"), replace(chip_spec("lp30"), clock_hz=900_000_000))
    found = diff(compiled(tp=2), compiled(rack=slow, tp=2), again=False)
    assert found.cycles < 0 < found.b.microseconds - found.a.microseconds
    assert "why fewer cycles: other clock_hz" in str(found)


def test_of_two_changes_each_gets_its_own_cycles() -> None:
    base = compiled(tp=4)
    both = compiled(rack=quad(hop_ns=700), tp=4, batch=4)
    alone = compiled(tp=4, batch=4).program.manifest.cycles[80] - base.program.manifest.cycles[80]
    found = diff(base, both)
    assert {one.name: one.cycles for one in found.causes} == {
        "a larger batch": alone,
        "longer link hops": found.cycles - alone,
    }
    assert found.unexplained == 0


def test_what_the_same_inputs_do_not_give_again_is_not_explained() -> None:
    base, other = compiled(tp=4), compiled(tp=2)
    manifest = other.program.manifest
    longer = replace(other.program, manifest=replace(manifest, cycles={80: manifest.cycles[80] + 1000}))
    found = diff(base.program, longer)
    assert found.unexplained == 1000
    assert "1,000  not explained" in str(found)


def test_programs_of_unlike_kinds_or_blocks_have_nothing_to_compare() -> None:
    step = compiled(tp=4).program
    _, hops, _ = hopped(ONE_LAYER, "quad", tp=2)
    with pytest.raises(NothingComparableError, match="of kind step, b of kind hops"):
        diff(step, hops)
    calls = tuple(replace(call, name=f"other.{i}.x") for i, call in enumerate(step.calls))
    with pytest.raises(NothingComparableError, match="none of one kind"):
        diff(step, replace(step, calls=calls))


def test_reports_in_json_are_held_against_each_other_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: list[str] = []
    for name, tp in (("a", 2), ("b", 4)):
        paths.append(str(tmp_path / f"{name}.json"))
        Path(paths[-1]).write_text(json.dumps(api.report(compiled(tp=tp)).to_json()))
    assert cli.main(["diff", *paths, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["schema"] == "lpu-diff/1"
    assert body["causes"][0]["name"] == "another tp"
    assert diff(compiled(tp=2), compiled(tp=4)).cycles == body["difference_cycles"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": "x"}', '{"schema": "lpu-report/1"}', "a: 1"])
def test_a_file_that_is_no_report_is_refused_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert cli.main(["diff", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_that_steer_a_terminal_are_inert() -> None:
    base = compiled(tp=4).program
    bad = "<b>\x1b[31m\u202e" + "x" * 300
    named = replace(base, manifest=replace(base.manifest, model=replace(base.manifest.model, name=bad)))
    found: Difference = diff(base, named, again=False)
    assert not set(str(found)) & {"\x1b", "\u202e"}
    assert max(map(len, repr(found).splitlines())) <= 120


def test_a_program_that_names_a_placement_of_ones_own_imports_nothing() -> None:
    ours, theirs = compiled(tp=4).program, compiled(tp=2).program
    options = replace(theirs.manifest.options, placement="evil:factory")
    found = diff(ours, replace(theirs, manifest=replace(theirs.manifest, options=options)))
    assert "a placement of one's own is not imported again" in found.how
    assert "evil" not in sys.modules


def test_jax_is_not_traced_again_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = compiled(tp=4), compiled(tp=2)

    def refuse(*args: Any, **keywords: Any) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(jax, "make_jaxpr", refuse)
    assert diff(ours, theirs, again=False).first == "another tp"
