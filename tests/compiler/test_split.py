from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from steps import llama

from compiler.errors import CapacityError, CompileError, OptionError
from compiler.graph.capture import capture
from compiler.graph.graph import Graph, intensity
from compiler.program.manifest import ModelIdentity
from compiler.source import Source
from compiler.split import module_of, require_fit, split
from fabric.rack import load_rack
from models.contract import ops

Shape = jax.ShapeDtypeStruct


def graph_of(source: Source) -> Graph:
    return capture(source.step, source.params, source.tokens, source.position, source.cache)


def test_a_hop_is_the_ffn_of_a_layer_between_its_norm_and_its_residual_sum() -> None:
    graph = graph_of(llama(layers=3, batch=2))
    found = split(graph)
    assert [hop.name for hop in found.hops] == ["layers.0.ffn", "layers.1.ffn", "layers.2.ffn"]
    for hop in found.hops:
        assert [graph.nodes[i].op for i in hop.nodes] == ["matmul", "matmul", "glu", "matmul"]
        makes = {value: node.op for node in graph.nodes for value in node.outputs}
        assert (makes[hop.input], makes[hop.output]) == ("rms_norm", "matmul")
        assert (hop.wire_down, hop.wire_up) == ("fp16", "f32")
        assert (hop.down_bytes, hop.up_bytes) == (2 * 256 * 2, 2 * 256 * 4)
        assert hop.weight_bytes == 3 * 256 * 704 + 4 * (704 + 704 + 256)
        assert hop.flops == 2 * 2 * 3 * 256 * 704 + 6 * 2 * 704
    assert len(found.gpu_nodes) + 3 * 4 == len(graph.nodes)
    assert found.kv_bytes == 3 * 2 * 2 * 160 * 4 * 32 * 2
    assert str(found).startswith("split: 3 hops of 2 rows")


def test_both_sides_together_hold_every_weight_once() -> None:
    source = llama()
    graph = graph_of(source)
    found = split(graph)
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in source.params.values())
    assert found.weight_bytes + found.gpu_weight_bytes == total


def test_a_path_below_a_role_belongs_to_its_module() -> None:
    assert module_of("layers.3.ffn.gate", ("ffn",)) == "layers.3.ffn"
    assert module_of("layers.3.ffn", ("ffn",)) == "layers.3.ffn"
    assert module_of("layers.3.mlp.gate", ("ffn",)) == "layers.3.mlp.gate"


def test_the_ffn_is_what_reaches_a_threshold_between_it_and_attention() -> None:
    """With many rows the FFN does more per byte than attention, whose every sequence reads its own KV."""
    graph = graph_of(llama(batch=64, context=1600))
    modules = {
        name: [n for n in graph.nodes if n.path == name] for name in ("layers.0.ffn", "layers.0.attention")
    }
    ffn, attention = (intensity(graph, nodes) for nodes in modules.values())
    assert ffn > attention
    found = split(graph, by="intensity", threshold=(ffn + attention) / 2)
    assert found == split(graph)
    with pytest.raises(CompileError, match=rf"layers.0.attention: its {attention:.2f} FLOP/byte reach .* 0.5,"
                       rf".*--mode pd or a threshold above {attention:.2f}"):  # fmt: skip
        split(graph, by="intensity", threshold=0.5)
    with pytest.raises(CompileError, match=rf"threshold 1000 FLOP/byte, the most is {ffn:.2f}"):
        split(graph, by="intensity", threshold=1000.0)


def test_where_attention_does_more_per_byte_no_threshold_parts_them() -> None:
    graph = graph_of(llama(batch=1, context=1600))
    with pytest.raises(CompileError, match=r"no threshold parts them"):
        split(graph, by="intensity", threshold=0.5)


def test_attention_keeps_its_kv_on_the_gpus() -> None:
    with pytest.raises(CompileError, match=r"module layers.0.attention: it holds a KV cache"):
        split(graph_of(llama()), role="attention")


def test_a_role_that_no_layer_has_is_refused() -> None:
    with pytest.raises(CompileError, match=r"role experts selects 0 of its modules"):
        split(graph_of(llama()), role="experts")


@pytest.mark.parametrize(
    "options", [{"by": "size"}, {"by": "intensity"}, {"threshold": 2.0}, {"by": "role", "threshold": 2.0}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="a threshold goes with intensity alone"):
        split(graph_of(llama()), **options)


def own(ffn: Callable[[Any, Any, Any], Any]) -> Source:
    """A model of one layer whose FFN is `ffn(x, norm of x, product)`, of 160 columns throughout."""
    params: dict[str, Any] = {"table": Shape((200, 160), jnp.float16), "gain": Shape((160,), jnp.float32)}
    for name in ("a", "b", "c"):
        params |= {
            f"{name}.codes": Shape((160, 160), jnp.uint8),
            f"{name}.exponent": Shape((160,), jnp.int32),
        }

    def step(p: dict[str, Any], tokens: Any, position: Any, cache: Any) -> Any:
        def product(x: Any, name: str) -> Any:
            return ops.matmul(x, p[f"{name}.codes"], p[f"{name}.exponent"])

        x = ops.embed(p["table"], tokens)
        with jax.named_scope("layers.0.ffn"):
            x = ffn(x, ops.rms_norm(x, p["gain"], eps=1e-5), product)
        return x, ops.argmax(x), cache

    row = Shape((2,), jnp.int32)
    return Source(
        step=step,
        params=params,
        tokens=row,
        position=row,
        cache=(),
        contexts=(80,),
        model=ModelIdentity(name="own"),
    )


def test_a_hop_crosses_in_the_formats_that_the_model_rounds_to() -> None:
    def ffn(x: Any, y: Any, product: Any) -> Any:
        return ops.add(x, ops.round16(product(ops.round16(product(ops.round8(y), "a")), "b")))

    graph = graph_of(own(ffn))
    (hop,) = split(graph).hops
    assert [graph.nodes[i].op for i in hop.nodes] == ["matmul", "round16", "matmul", "round16"]
    assert (hop.wire_down, hop.wire_up, hop.down_bytes, hop.up_bytes) == ("fp8", "fp16", 320, 640)


def test_a_rounding_that_others_read_beside_the_sum_stays_on_the_gpus() -> None:
    def ffn(x: Any, y: Any, product: Any) -> Any:
        z = product(y, "a")
        return ops.add(ops.add(x, z), ops.round16(z))

    (hop,) = split(graph_of(own(ffn))).hops
    assert (len(hop.nodes), hop.wire_up) == (1, "f32")


def test_two_values_that_cross_are_named() -> None:
    def down(x: Any, y: Any, product: Any) -> Any:
        return ops.add(product(y, "a"), product(ops.round16(x), "b"))

    def up(x: Any, y: Any, product: Any) -> Any:
        one, other = product(y, "a"), product(y, "b")
        return ops.add(ops.add(x, one), other)

    with pytest.raises(CompileError, match=r"2 values cross down to the LPUs \(embed of the model"):
        split(graph_of(own(down)))
    with pytest.raises(CompileError, match=r"2 values cross up from the LPUs \(matmul of layers.0.ffn"):
        split(graph_of(own(up)))


def test_a_module_without_weights_is_no_hop() -> None:
    with pytest.raises(CompileError, match=r"module layers.0.ffn: it holds 0 matmuls"):
        split(graph_of(own(lambda x, y, product: ops.add(x, y))))


def test_each_side_that_is_too_small_says_both_numbers() -> None:
    found, rack = split(graph_of(llama())), load_rack("pair")
    require_fit(found, rack, 1, 1 << 30)
    small = replace(rack, chip=rack.chip.with_numbers("for a test", sram_bytes=320_000))
    with pytest.raises(CapacityError, match=rf"need {found.weight_bytes} bytes .* its 2 chips have 640000"):
        require_fit(found, small, 1, 1 << 30)
    needs = found.gpu_weight_bytes + found.kv_bytes
    with pytest.raises(CapacityError, match=rf"2 GPUs: .* need {needs} bytes .* have 2000. Use more GPUs"):
        require_fit(found, rack, 2, 1000)
