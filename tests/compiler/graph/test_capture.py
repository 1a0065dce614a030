from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import pytest
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


def test_calls_are_inlined_and_keep_their_scope() -> None:
    graph = captured(lambda x, p: jax.jit(lambda y: ops.add(y, y))(x))
    (add,) = [node for node in graph.nodes if node.op == "add"]
    assert add.path == "layers.7.ffn"


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
