from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from steps import llama

from compiler.errors import CompileError, UnsupportedOpError
from compiler.graph.capture import capture
from compiler.graph.graph import Graph
from compiler.lower.blocks import cut
from models.contract import ops

Shape = jax.ShapeDtypeStruct
PARAMS = {
    "embed.table": Shape((100, 320), jnp.float16),
    "gain": Shape((320,), jnp.float32),
    "other": Shape((320,), jnp.float32),
    "square.codes": Shape((320, 320), jnp.uint8),
    "square.exponent": Shape((320,), jnp.int32),
    "head.codes": Shape((320, 100), jnp.uint8),
    "head.exponent": Shape((100,), jnp.int32),
}
ONE = Shape((1,), jnp.int32)


def captured(middle: Any) -> Graph:
    def step(p: dict[str, Any], tokens: Any, position: Any, cache: Any) -> Any:
        with jax.named_scope("layers.7.ffn"):
            x = middle(ops.embed(p["embed.table"], tokens), p)
        y = ops.rms_norm(x, p["gain"], eps=1e-5)
        logits = ops.matmul(y, p["head.codes"], p["head.exponent"])
        return logits, ops.argmax(logits), cache

    return capture(step, PARAMS, ONE, ONE, ())


def test_a_llama_is_captured_op_by_op_with_module_paths() -> None:
    source = llama()
    graph = capture(source.step, source.params, source.tokens, source.position, source.cache)
    names = [node.op for node in graph.nodes if node.path == "layers.1.ffn"]
    assert names == ["rms_norm", "matmul", "matmul", "glu", "matmul", "add"]
    assert graph.values[graph.nodes[0].inputs[0].value].name == "embed.table"


def test_a_foreign_primitive_is_named_with_source_line_and_module_path() -> None:
    with pytest.raises(UnsupportedOpError, match=r"'sin'.*test_capture\.py:\d+.*layers\.7\.ffn"):
        captured(lambda x, p: jnp.sin(x))


def test_a_reshape_that_mixes_batch_and_features_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"reshape|transpose"):
        captured(lambda x, p: x.reshape(2, 160).T.reshape(1, 320))


@jax.custom_vjp
def twice(x: Any) -> Any:
    return ops.add(x, x)


twice.defvjp(lambda x: (twice(x), None), lambda _, g: (g,))


@jax.custom_jvp
def doubled(x: Any) -> Any:
    return ops.add(x, x)


doubled.defjvp(lambda primals, tangents: (doubled(*primals), tangents[0]))

CALLS: list[Callable[[Any], Any]] = [
    jax.jit(lambda x: ops.add(x, x)),
    jax.checkpoint(lambda x: ops.add(x, x)),
    jax.checkpoint(lambda x: checkpoint_name(ops.add(x, x), "kept")),
    jax.jit(jax.checkpoint(jax.jit(lambda x: ops.add(x, x)))),
    nnx.jit(lambda x: ops.add(x, x)),
    nnx.remat(lambda x: ops.add(x, x)),
    twice,
    doubled,
]


@pytest.mark.parametrize("call", CALLS)
def test_calls_are_looked_into_and_keep_their_scope(call: Callable[[Any], Any]) -> None:
    graph = captured(lambda x, p: call(x))
    (add,) = [node for node in graph.nodes if node.op == "add"]
    assert add.path == "layers.7.ffn"


def norm(x: Any, p: dict[str, Any]) -> Any:
    return ops.rms_norm(x, p["gain"], eps=1e-5)


DEAD: list[Callable[[Any, dict[str, Any]], Any]] = [
    norm,
    lambda x, p: ops.matmul(norm(x, p), p["head.codes"], p["head.exponent"]),
    lambda x, p: ops.argmax(ops.matmul(norm(x, p), p["head.codes"], p["head.exponent"])),
    lambda x, p: jnp.mean(jnp.sin(x)),
    lambda x, p: jax.jit(lambda y: (ops.add(y, y), jnp.cumsum(y)))(x),
    lambda x, p: jax.random.normal(jax.random.key(0), x.shape),
    lambda x, p: twice(doubled(x)),
]


@pytest.mark.parametrize("dead", DEAD)
def test_what_nobody_reads_is_dropped(dead: Callable[[Any, dict[str, Any]], Any]) -> None:
    def middle(x: Any, p: dict[str, Any]) -> Any:
        dead(x, p)
        return ops.add(x, x)

    assert str(captured(middle)) == str(captured(lambda x, p: ops.add(x, x)))


def test_of_a_call_only_the_results_that_are_read_are_kept() -> None:
    graph = captured(lambda x, p: jax.jit(lambda y: (ops.add(y, y), norm(y, p)))(x)[0])
    assert [node.op for node in graph.nodes] == ["embed", "add", "rms_norm", "matmul", "argmax"]


def test_a_print_is_not_dropped_in_silence() -> None:
    with pytest.raises(UnsupportedOpError, match=r"'debug_\w+'.*test_capture\.py:\d+"):
        captured(lambda x, p: jax.debug.print("{}", x) or x)


@pytest.mark.parametrize("call", [jax.jit, jax.checkpoint, nnx.remat, nnx.jit])
def test_in_a_call_a_foreign_primitive_is_named_with_its_line(call: Any) -> None:
    def foreign(x: Any) -> Any:
        return jnp.sin(x)

    line = foreign.__code__.co_firstlineno + 1
    with pytest.raises(UnsupportedOpError, match=rf"'sin' at \S*test_capture\.py:{line} "):
        captured(lambda x, p: call(foreign)(x))


def test_a_library_function_is_named_with_the_line_that_calls_it() -> None:
    def foreign(x: Any, p: Any) -> Any:
        return jnp.where(x > 0, x, 0.0)

    line = foreign.__code__.co_firstlineno + 1
    for _ in range(2):  # jax keeps what it traced, lines included
        with pytest.raises(UnsupportedOpError, match=rf" at \S*test_capture\.py:{line} "):
            captured(foreign)


@pytest.mark.parametrize("order", [(1, 0), (0, 0)])
def test_caches_that_come_back_in_other_places_are_refused(order: tuple[int, int]) -> None:
    leaf = Shape((1, 32, 1, 320), jnp.float16)

    def step(p: dict[str, Any], tokens: Any, position: Any, cache: Any) -> Any:
        x = ops.round16(ops.embed(p["embed.table"], tokens)).reshape(-1, 1, 320)
        k_cache, v_cache = cache
        out, *caches = ops.attention(x, x, x, k_cache, v_cache, position)
        logits = ops.matmul(out.reshape(1, 320), p["head.codes"], p["head.exponent"])
        return logits, ops.argmax(logits), tuple(caches[i] for i in order)

    with pytest.raises(CompileError, match=r"cache leaf \d: .* at \S*test_capture\.py:\d+"):
        capture(step, PARAMS, ONE, ONE, (leaf, leaf))


def test_blocks_are_cut_where_only_the_residual_crosses() -> None:
    source = llama()
    graph = capture(source.step, source.params, source.tokens, source.position, source.cache)
    blocks = cut(graph)
    assert [block.name for block in blocks][1:-1] == [
        f"layers.{i}.{part}" for i in range(2) for part in ("attention", "ffn")
    ]
    assert blocks[1].kind == blocks[3].kind != blocks[2].kind
    assert all(after.source == before.result for before, after in pairwise(blocks))


def test_a_step_that_does_not_end_in_argmax_is_refused() -> None:
    def step(p: dict[str, Any], tokens: Any, position: Any, cache: Any) -> Any:
        x = ops.embed(p["embed.table"], tokens)
        return x, tokens, cache

    graph = capture(step, PARAMS, ONE, ONE, ())
    with pytest.raises(CompileError, match="argmax"):
        cut(graph)


def scanned(carried: Callable[[Any, Any], Any], *, reverse: bool = False) -> Callable[..., Any]:
    """A scan over two gains that are stacked from parameters."""

    def middle(x: Any, p: dict[str, Any]) -> Any:
        def turn(x: Any, gain: Any) -> Any:
            y = ops.matmul(ops.rms_norm(x, gain, eps=1e-5), p["square.codes"], p["square.exponent"])
            return ops.add(x, y), y

        x, ys = jax.lax.scan(turn, x, jnp.stack([p["gain"], p["other"]]), reverse=reverse)
        return carried(x, ys)

    return middle


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_over_stacked_parameters_is_unrolled(reverse: bool) -> None:
    graph = captured(scanned(lambda x, ys: ops.add(x, ys[0]), reverse=reverse))
    norms = [node for node in graph.nodes if node.op == "rms_norm"]
    gains = [graph.values[node.inputs[1].value].name for node in norms]
    assert gains == (["other", "gain"] if reverse else ["gain", "other"]) + ["gain"]
    products = [node.outputs[0] for node in graph.nodes if node.op == "matmul"]
    assert graph.nodes[-4].op == "add"
    assert graph.nodes[-4].inputs[1].value == products[1 if reverse else 0]


def test_of_a_scan_a_result_that_is_read_as_a_whole_is_refused_with_its_line() -> None:
    with pytest.raises(UnsupportedOpError, match=r"primitive '\w+' at \S*test_capture\.py:\d+"):
        captured(scanned(lambda x, ys: ops.add(x, ys.sum(0))))


@pytest.mark.parametrize("along", [jnp.arange(2), None])
def test_a_scan_that_cannot_be_unrolled_is_refused_with_its_line(along: Any) -> None:
    length = 2 if along is not None else 1_000_000
    with pytest.raises(UnsupportedOpError, match=r"primitive '\w+' at \S*test_capture\.py:\d+"):
        captured(lambda x, p: jax.lax.scan(lambda y, i: (ops.add(y, y), None), x, along, length)[0])
