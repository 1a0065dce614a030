import numpy as np
import pytest

from fabric.catalog import gpu_names, gpu_spec
from lpu.gpu import latent
from lpu.gpu.experts.all_to_all import H200_NODE, H800_CX7
from lpu.gpu.experts.kernel import BYTES, ExpertShape, asked, expert_seconds, kernels
from lpu.gpu.experts.loads import rank_load
from lpu.gpu.experts.plain import plain_seconds
from lpu.gpu.generation import read_seconds
from lpu.gpu.latent import latent_seconds
from lpu.inputs.document import FileError
from lpu.validate.cases.gpu.expert_rows import FORMS, rows

DEEPSEEK = ExpertShape(hidden=7168, inter=2048, experts=256, topk=8)


def test_balanced_choices_hit_as_many_experts_as_there_can_be() -> None:
    assert [rank_load(tokens, 256, 8, 1).distinct for tokens in (1, 4, 32, 64)] == [8, 32, 256, 256]
    assert rank_load(64, 256, 8, 8).rows == 64


def test_skew_hits_fewer_experts_and_loads_one_rank_more() -> None:
    balanced, skewed = rank_load(64, 256, 8, 1), rank_load(64, 256, 8, 1, alpha=1.01)
    assert skewed.distinct < balanced.distinct
    assert skewed.rows == balanced.rows == 512
    assert rank_load(4096, 256, 8, 8, alpha=1.01).rows > 1.2 * rank_load(4096, 256, 8, 8).rows


@pytest.mark.parametrize("name", gpu_names())
def test_experts_have_a_time_on_every_gpu_and_more_tokens_never_take_less(name: str) -> None:
    times = [expert_seconds(gpu_spec(name), DEEPSEEK, 2**n, "fp8_block") for n in range(13)]
    assert times == sorted(times)
    assert plain_seconds(gpu_spec(name), DEEPSEEK, 64, "fp8_block") == pytest.approx(times[6], rel=1)


def test_a_format_without_a_kernel_is_refused() -> None:
    with pytest.raises(FileError, match="int3"):
        expert_seconds(gpu_spec("h200"), DEEPSEEK, 1, "int3")


def test_the_numbers_of_a_kernel_are_those_that_its_rows_give() -> None:
    (kernel,) = (one for one in kernels() if (one.gpu, one.format) == ("b200", "fp8"))
    mine = [row for row in rows() if row.gpu == "b200" and row.operator == "moe" and row.format == "fp8"]
    assert kernel.rows == len(mine)
    form, columns = FORMS["moe"]
    found = form.fit(columns([row.asked for row in mine]), [row.seconds for row in mine])
    assert found == pytest.approx(kernel.numbers, rel=0.02)
    assert {one.format for one in kernels()} == set(BYTES)


def test_latent_attention_grows_with_context_and_fp8_reads_less() -> None:
    h200 = gpu_spec("h200")
    times = [latent_seconds(h200, 8, kv, 128) for kv in (1024, 8192, 32768, 131072)]
    assert times == sorted(times)
    measured = np.array([21.8, 51.3, 133, 457]) * 1e-6  # facts gpu_moe_mla.md 7.3
    assert np.abs(np.array(times) / measured - 1).max() < 0.2
    assert latent_seconds(gpu_spec("b200"), 64, 131072, 128, "fp8") < latent_seconds(
        gpu_spec("b200"), 64, 131072, 128
    )
    with pytest.raises(FileError, match="fp4"):
        latent_seconds(h200, 1, 1024, 128, "fp4")


def test_an_exchange_grows_with_tokens_and_nodes() -> None:
    exchange, size = H800_CX7["dispatch"]
    times = [exchange.seconds(128, 7168, 8, gpus, size) for gpus in (8, 16, 32, 64)]
    assert times == sorted(times)
    node, size = H200_NODE["dispatch"]
    assert node.seconds(256, 7168, 8, 8, size) - node.launch == pytest.approx(
        2 * (node.seconds(128, 7168, 8, 8, size) - node.launch)
    )


def test_what_the_l2_holds_is_not_read_again_where_layers_are_replayed() -> None:
    """H200: 50 MB. Half of that is missed by half; served layers read all."""
    h200 = gpu_spec("h200")
    rate = h200.memory_bytes_per_second
    assert read_seconds(h200, 25e6, replayed=True) == 12.5e6 / rate
    assert read_seconds(h200, 25e6, replayed=False) == 25e6 / rate
    assert read_seconds(h200, 100e6, replayed=True) == 100e6 / rate
    assert read_seconds(gpu_spec("b200"), 63e6, replayed=True) == 31.5e6 / 7.7e12


def test_served_ranks_hold_their_own_tokens_and_read_their_weights() -> None:
    gpu, wide = gpu_spec("b200"), ExpertShape(hidden=2048, inter=768, experts=128, topk=8, ranks=32)
    table, served = asked(gpu, wide, 4096, "bfloat16"), asked(gpu, wide, 4096, "bfloat16", held=128)
    weights = 3 * 2048 * 768 * 2 * 4
    assert served[0] == weights / 7.7e12
    assert table[0] == served[0] * weights / 126e6
    assert (table[3], served[3]) == (2 * 2048 * 4096 * 8 / 7.7e12, 2 * 2048 * 1024 / 7.7e12)


def test_a_tile_of_many_rows_loads_them_beside_its_weights() -> None:
    gpu, one = gpu_spec("h200"), ExpertShape(hidden=1024, inter=1024, experts=1, topk=1)
    assert [asked(gpu, one, rows, "bfloat16")[-1] for rows in (64, 128, 256)] == [6144, 8192, 8192]


def test_heads_of_latents_are_padded_to_a_matrix_instruction_and_only_blackwell_takes_fp8() -> None:
    """H200: 64 rows, 16-bit products. B200: 128, and fp8 at its peak. By hand: 2 x 10 keys x 1,088 x rows."""

    def products(name: str, heads: int, width: int) -> float:
        return latent.asked(gpu_spec(name), 1, 10, heads, width)[1]

    assert [products("h200", heads, 2) * 989e12 for heads in (1, 64, 65)] == pytest.approx(
        [21760 * 64, 21760 * 64, 21760 * 128]
    )
    assert [products("b200", heads, 2) * 2.25e15 for heads in (1, 128)] == pytest.approx([21760 * 128] * 2)
    assert products("h200", 64, 1) == products("h200", 64, 2)
    assert products("b200", 64, 1) == products("b200", 64, 2) / 2
