"""Plain JAX of a user's own: what becomes an op of the contract, and that it computes the same."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import plain_models
import pytest

from compiler.errors import UnsupportedOpError
from compiler.graph.capture import capture
from models.contract.plain import plain, plain_cache, plain_params
from models.own.adopt import adopt
from models.sources.derived import derived, drawn
from models.sources.quantise import dequantise
from models.sources.seeded import seeded
from models.sources.weights import Weights, check_shapes, weight_shapes
from models.step import Step, build_step

ROWS = 2


@cache
def steps(module: Callable[..., Any], chunk: int = 1) -> tuple[Step, Step]:
    """The step as the user wrote it, and the same in the op vocabulary."""
    with jax.enable_x64(False):
        own = build_step(module, batch=ROWS // chunk, context=16, chunk=chunk)
    return own, adopt(own)


def weights_of(step: Step) -> Weights:
    shapes = weight_shapes(step)
    held = derived(seeded(drawn(shapes, step.made), 0), shapes, step.made)
    check_shapes(held, shapes)
    return held


def params_of(step: Step) -> dict[str, Any]:
    held = weights_of(step)
    values = {name: step.constants[name] if name in step.constants else held[name] for name in step.params}
    return {name: jnp.asarray(value) for name, value in values.items()}


def arguments(step: Step) -> tuple[Any, Any, Any]:
    """Tokens, positions and an empty cache."""
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), step.cache)
    return jnp.asarray([3, 7], jnp.int32), jnp.asarray([0, 0], jnp.int32), empty


def in_users_form(own: Step, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """The user's own arrays with the values of the contract's: matrices as f32."""
    held: dict[str, Any] = {}
    for name, shape in own.params.items():
        if name in params:
            held[name] = params[name]
            continue
        array = np.zeros(shape.shape, np.float32)
        for other, made in step.made.items():
            if made.source == name and made.part == "codes":
                path = other.removesuffix(".codes")
                flat = dequantise(np.asarray(params[other]), np.asarray(params[f"{path}.exponent"]))
                index = made.moved(np.arange(array.size).reshape(array.shape))
                array.reshape(-1)[index] = flat
        held[name] = jnp.asarray(array, shape.dtype)
    return held


def test_what_is_adopted_computes_what_the_user_wrote_but_for_the_roundings_of_the_contract() -> None:
    own, step = steps(plain_models.Decoder)
    params = params_of(step)
    logits, token, _ = step.fn(params, *arguments(step))
    wanted, _, _ = own.fn(in_users_form(own, step, params), *arguments(own))
    error = np.linalg.norm(logits - wanted) / np.linalg.norm(wanted)
    assert 0 < error < 3e-2  # the head is quantised
    assert token.tolist() == jnp.argmax(logits, axis=1).tolist()


def test_in_plain_f32_nothing_but_the_head_differs() -> None:
    own, step = steps(plain_models.Decoder)
    params = params_of(step)
    held = weights_of(step)
    exact = plain_params(params) | {"embed.table.T.codes": jnp.asarray(held.plain("embed.table.T.codes"))}
    cache = plain_cache(step.cache)
    logits, _, _ = plain(step.fn)(exact, *arguments(step)[:2], cache)
    users = plain_params(in_users_form(own, step, params))
    wanted, _, _ = plain(own.fn)(users, *arguments(own)[:2], cache)
    np.testing.assert_allclose(logits, wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("module", [plain_models.Stacked, plain_models.Scanned])
@pytest.mark.parametrize("chunk", [1, 2])
def test_stacked_layers_and_scans_are_the_list_of_layers(module: Any, chunk: int) -> None:
    _, plain_list = steps(plain_models.Decoder, chunk)
    own, step = steps(module, chunk)
    assert {name.replace("blocks.", "stack.") for name in plain_list.params} == set(step.params)
    assert len(jax.tree.leaves(step.cache)) == 2 * plain_models.LAYERS
    params = params_of(plain_list)
    renamed = {name.replace("blocks.", "stack."): value for name, value in params.items()}
    got, wanted = step.fn(renamed, *arguments(step)), plain_list.fn(params, *arguments(plain_list))
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(left, right)
    assert own.params.keys() != step.params.keys()


def test_the_ops_of_a_layer_and_the_names_of_its_parameters() -> None:
    _, step = steps(plain_models.Decoder)
    graph = capture(step.fn, *step.inputs())
    layer = "rms_norm matmul matmul rope rope round16 attention matmul multiply_add"
    feed = "rms_norm matmul matmul glu matmul bias multiply_add"
    assert " ".join(node.op for node in graph.nodes) == " ".join(
        ("embed multiply", *[layer, feed] * plain_models.LAYERS, "rms_norm matmul multiply argmax")
    )
    names = {name.removeprefix("blocks.1.") for name in step.params if name.startswith("blocks.1.")}
    codes = {name.removesuffix(".codes") for name in names if name.endswith(".codes")}
    assert codes == {"q.kernel.view1", "kv.kernel", "o.view1", "up.view1", "up.view2", "down.kernel"}
    assert "embed.table.T.codes" in step.params
    assert len(step.notes) == 1
    assert "weights are quantised to e4m3" in step.notes[0]


def test_weights_in_the_users_own_form_are_quantised_when_they_are_read() -> None:
    _, step = steps(plain_models.Stacked)
    shapes = weight_shapes(step)
    held = weights_of(step)
    (stacked,) = {one.stack[0] for name, one in step.made.items() if one.stack and ".kv.kernel." in name}
    kernels = np.stack([held.plain(f"stack.{i}.kv.kernel.codes") for i in range(plain_models.LAYERS)])

    class Users:
        def __init__(self) -> None:
            self.identity, self.notes, self.relative_errors = "mine", (), dict[str, float]()
            self.shapes = {stacked: jax.ShapeDtypeStruct(kernels.shape, kernels.dtype)}

        def __getitem__(self, name: str) -> Any:
            return kernels

        plain = __getitem__

        def digest(self) -> str:
            return "0"

    mine = derived(Users(), shapes, step.made)
    codes, exponent = (mine[f"stack.1.kv.kernel.{part}"] for part in ("codes", "exponent"))
    np.testing.assert_array_equal(dequantise(codes, exponent), kernels[1])
    assert mine.relative_errors["stack.1.kv.kernel.codes"] == 0
    assert "stack.1.q.kernel.view1.codes" not in mine.shapes


@pytest.mark.parametrize(
    ("module", "primitive", "line"),
    [
        (plain_models.LoRA, "add", "merged = "),
        (plain_models.PerHead, "", "logits = (heads"),
        (plain_models.Learned, "", "logits = logits * self.norm"),
        (plain_models.Rounded, "convert_element_type", "logits = logits.astype"),
        (plain_models.Widened, "convert_element_type", "logits = x + self.norm"),
    ],
)
def test_what_is_not_adopted_is_refused_at_the_users_line(module: Any, primitive: str, line: str) -> None:
    lines = Path(plain_models.__file__).read_text().splitlines()
    at = 1 + next(i for i, text in enumerate(lines) if text.strip().startswith(line))
    step = steps(module)[1]
    with pytest.raises(UnsupportedOpError, match=rf"'{primitive}\w*' at \S*plain_models\.py:{at}[: ]"):
        capture(step.fn, *step.inputs())
