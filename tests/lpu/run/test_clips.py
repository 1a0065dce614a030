"""Values that fp16 cannot hold are counted by call and instruction, and the counts are the model's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_models import ONE_LAYER

from compiler.options import CompileOptions
from lpu import api
from lpu.api import Compiled
from lpu.certify.options import CertifyOptions
from lpu.cli.show_run import run_body
from lpu.decode.decoders import Flipped, machine_of, reference_params, restart
from lpu.decode.generate import generate
from lpu.run.clips import Clipped, at_limit, in_words
from models.contract.formats import F16, F32, clips16, rn16
from models.kv import empty_cache

PROMPT, TOKENS, LOUD = [3, 1, 4], 2, 1 << 9


class Louder(Flipped):
    """Weights whose gate and up are 512 times as large: many products of the two are beyond fp16."""

    def __getitem__(self, name: str) -> Any:
        loud = name.endswith(("gate.exponent", "up.exponent"))
        return self.weights[name] + loud * (LOUD.bit_length() - 1)


def loud(prompts: int = 1, **options: Any) -> Compiled:
    model = api.open_model("own_models:one_layer", context=16, batch=prompts)
    model = replace(model, weights=Louder(model.weights, ""))
    return api.compile(model, rack="quad", options=CompileOptions(**options), check=False)


def clipped(compiled: Compiled, stream: bool = False, prompts: Sequence[Sequence[int]] = (PROMPT,)) -> Any:
    machine = machine_of(compiled.program, compiled.model, stream)
    generate(restart(machine), prompts, TOKENS, compiled.program.manifest.rows)
    return machine.clips.found(len(prompts))


def by_reference(compiled: Compiled) -> Counter[str]:
    """Fp16 results of the reference at 65504, by primitive: the steps of one decode, equation by equation."""
    model, count = compiled.model, Counter[str]()
    params = reference_params(model)
    cache, tokens = empty_cache(model.step.cache), list(PROMPT)
    for at in range(len(PROMPT) + TOKENS - 1):
        args = (params, jnp.array(tokens[at : at + 1], jnp.int32), jnp.array([at], jnp.int32), cache)
        closed, shape = jax.make_jaxpr(model.step.fn, return_shape=True)(*args)
        found = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        found |= dict(zip(closed.jaxpr.invars, jax.tree.leaves(args), strict=True))
        for eqn in closed.jaxpr.eqns:
            out = eqn.primitive.bind(*(values_of(eqn.invars, found)), **eqn.params)
            out = out if eqn.primitive.multiple_results else [out]
            found |= dict(zip(eqn.outvars, out, strict=True))
            for one in out:
                if one.dtype == F16:
                    count[eqn.primitive.name] += int(jnp.sum(jnp.abs(one) == 65504))
        leaves = values_of(closed.jaxpr.outvars, found)
        _, chosen, cache = jax.tree.unflatten(jax.tree.structure(shape), leaves)
        tokens = tokens[: max(len(PROMPT), at + 1)] + [int(chosen[0])] * (at + 1 >= len(PROMPT))
    return +count


def values_of(atoms: Sequence[Any], found: dict[Any, Any]) -> list[Any]:
    return [atom.val if hasattr(atom, "val") else found[atom] for atom in atoms]


@pytest.mark.slow
def test_what_a_machine_clips_is_what_the_reference_clips() -> None:
    compiled = loud(tp=2)
    found = clipped(compiled)
    assert [(one.call, one.instruction) for one in found] == [("layers.0", "GLU")]
    assert sum(by_reference(compiled).values()) == found[0].values > 100


@pytest.mark.slow
def test_no_placement_batch_or_machine_changes_what_is_counted() -> None:
    compiled = loud(tp=2)
    found = clipped(compiled)
    assert clipped(loud(tp=1)) == clipped(loud(tp=4, layout="row")) == clipped(compiled, True) == found
    assert clipped(loud(prompts=3, tp=2)) == found  # two rows without a prompt
    twice = clipped(loud(prompts=2, tp=2), prompts=[PROMPT, PROMPT])
    assert twice == (replace(found[0], values=2 * found[0].values),)
    once = api.open_model("own_models:one_layer", context=16)
    chunks = api.compile(
        replace(once, weights=Louder(once.weights, "")), rack="quad", tp=2, prefill=2, check=False
    )
    assert api.run(chunks, [PROMPT], tokens=TOKENS).clipped == found  # its last chunk takes a position again


@pytest.mark.slow
def test_a_run_a_certificate_and_the_report_against_f32_say_what_was_clipped() -> None:
    compiled = loud(tp=2)
    done = api.run(compiled, [PROMPT], tokens=TOKENS)
    values = done.clipped[0].values
    assert done.clipped == clipped(compiled)
    assert run_body(done)["clipped"] == [{"call": "layers.0", "instruction": "GLU", "values": values}]
    assert f"{values:,} values at +-65504" in str(done)
    proof = api.certify(
        compiled.model,
        program=compiled.program,
        prompts=[PROMPT],
        tokens=TOKENS,
        how=CertifyOptions(plain=True),
    )
    assert proof.clipped == done.clipped
    assert proof.numerical_equivalence is not None
    assert proof.numerical_equivalence.clipped == values
    assert f"{values:,} values clipped at +-65504" in str(proof.numerical_equivalence)


def test_a_quiet_model_clips_nothing() -> None:
    assert ONE_LAYER.layers == 1
    model = api.open_model("own_models:one_layer", context=16)
    assert clipped(api.compile(model, rack="quad", tp=2, check=False)) == ()


def test_values_at_the_limit_are_those_that_are_clipped_and_those_that_round_there() -> None:
    values = jnp.array([65504.0, 65489.0, 65488.0, 7e4, -1e9, 1.0, -0.0, -65503.0], F32)[None, None]
    assert int(clips16(values)) == 2
    assert int(at_limit(rn16(values))[0, 0]) == 5
    assert at_limit(jnp.full((2, 3, 160), -65504.0, F16)).tolist() == [[160] * 3] * 2
    assert np.asarray(at_limit(jnp.full((1, 1, 160), 65472.0, F16))).sum() == 0


def test_the_instructions_that_clip_most_are_named_first() -> None:
    many = tuple(Clipped(call=f"layers.{i}.ffn", instruction="GLU", values=10**i) for i in range(5))
    assert in_words(many) == (
        "11,111 values at +-65504, the largest of fp16: 10,000 of GLU in layers.4.ffn, "
        "1,000 of GLU in layers.3.ffn, 100 of GLU in layers.2.ffn and 2 more"
    )
    assert in_words(()).startswith("none")
