import pytest

from compiler.lower.merging import levels
from compiler.program.instructions.attention import AttentionKernel
from fabric.rack import load_rack


def kernel(group: int, chunks: int) -> AttentionKernel:
    return AttentionKernel(
        head_dim=128,
        group=group,
        block=512,
        chunk=512,
        chunks=chunks,
        kv="fp16",
        kv_words=2,
        kv_stride=2 * 512 * chunks,
        capacity=512 * chunks,
        rows=1,
        sequences=1,
        cached=1,
        stripes=1,
        run=512,
    )


@pytest.mark.parametrize(
    ("group", "chunks", "rows", "expected"),
    [
        (8, 8, 1, []),
        (8, 16, 4, [(1, 4)]),  # 4 nodes: 72 + 84 cycles; 8: 123 + 59; 2: 46 + 136
        (8, 128, 4, [(1, 8), (8, 4)]),
    ],
)
def test_nodes_are_merged_by_the_number_that_takes_the_fewest_cycles_at_last(
    group: int, chunks: int, rows: int, expected: list[tuple[int, int]]
) -> None:
    assert levels(kernel(group, chunks), load_rack("lpx").chip, rows) == expected
