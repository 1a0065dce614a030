"""Times of a DeepSeek-V3.2 layer on one die of an Ascend 910C, by a roofline with published coefficients."""

from dataclasses import dataclass

# Source: published config of DeepSeek-V3.2-Exp (docs.modular.com lists it with its defaults).
HIDDEN, LAYERS, DENSE_LAYERS, VOCABULARY = 7168, 61, 3, 129_280
HEADS, NOPE, ROPE, VALUE, Q_RANK, KV_RANK = 128, 128, 64, 128, 1536, 512
INDEX_HEADS, INDEX_DIM, INDEX_TOP = 64, 128, 2048
EXPERT, DENSE, TOP_K, EXPERTS = 2048, 18_432, 8, 256
COPIES = (
    4 + 2
)  # of a token in dispatch: nodes of 16 dies, then dies of a node; the rule of the simulator below


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All numbers that are not geometry; seconds, bytes and FLOP per second of one die.

    simulator: JiusiServe/light-llm-simulator, Apache-2.0, for this model on this machine:
    conf/hardware_config.py and src/ops. Its values are unchanged.
    """

    # Source: arXiv 2506.12708: 752 TFLOPS BF16 and 3.2 TB/s of a 910C, which has two dies; INT8 is double.
    bf16_flops: float = 376e12
    int8_flops: float = 752e12
    memory_bytes: float = 1.6e12
    # Source: simulator, conf/hardware_config.py: 196 x 2 ** 30 B/s per die within and between nodes.
    network_bytes: float = 196.0 * 2**30
    # Source: simulator, src/ops/base.py, matmul.py: shares of peak; the last for 4 or 5 experts.
    compute_share: float = 0.651
    memory_share: float = 0.7
    expert_memory_share: float = 0.55
    # Source: simulator: 70 us before the indexer, 30 us in it, 5 us in the value projection.
    attention_fixed: float = 105e-6
    # Source: simulator, src/ops/communication.py, 49 to 104 dies: (a x transfer + b + 5 us) / 2, times 1.06.
    dispatch: tuple[float, float] = (2.02, 39.56e-6)
    combine: tuple[float, float] = (1.82, 75.2e-6)
    slowest_rank: float = 1.06
    # Source: facts/afd.md section 1.5: measured by xDeepServe at 96 tokens per die, 288 expert dies.
    a2e: float = 172e-6
    e2a: float = 193e-6
    # Source: afd-plugin recipe: forced routing reaches four experts of every expert rank.
    experts_read: int = 4


def attention_seconds(one: Inputs, tokens: int | float, context: int | float) -> float:
    """Seconds of projections, indexer over `context`, sparse attention and router, for one die's `tokens`."""
    gemms = (
        _gemm(one, tokens, HIDDEN, Q_RANK + KV_RANK + ROPE, 1),
        _gemm(one, tokens, Q_RANK, HEADS * (NOPE + ROPE), 1),
        _gemm(one, tokens, HEADS * VALUE, HIDDEN, 1),
        _gemm(one, tokens, HIDDEN, INDEX_DIM + INDEX_HEADS, 2),
        _gemm(one, tokens, Q_RANK, INDEX_HEADS * INDEX_DIM, 2),
        _gemm(one, tokens, HIDDEN, EXPERTS, 4),
    )
    absorbed = HEADS * KV_RANK * (NOPE + VALUE)
    kernels = (
        _roofline(one, 2 * absorbed, 2 * tokens * absorbed),
        _roofline(one, tokens * context * INDEX_DIM * 2, 2 * tokens * context * INDEX_HEADS * INDEX_DIM),
        _roofline(
            one,
            tokens * INDEX_TOP * (KV_RANK + ROPE) * 2,
            2 * tokens * HEADS * INDEX_TOP * (2 * KV_RANK + ROPE),
        ),
    )
    return sum(gemms) + sum(kernels) + one.attention_fixed


def experts_seconds(one: Inputs, tokens: int | float) -> float:
    """Seconds of routed and shared experts of one die for `tokens` tokens per die, TOP_K experts a token."""
    weights = 3 * HIDDEN * EXPERT
    read = (one.experts_read + 1) * weights / (one.memory_bytes * one.expert_memory_share)
    return max(read, 2 * weights * tokens * (TOP_K + 1) / (one.int8_flops * one.compute_share))


def dense_seconds(one: Inputs, tokens: int | float) -> float:
    """Seconds of the FFN of one of the first layers, which have no experts."""
    return _gemm(one, tokens, HIDDEN, 2 * DENSE, 1) + _gemm(one, tokens, DENSE, HIDDEN, 1)


def head_seconds(one: Inputs, tokens: int | float) -> float:
    """Seconds of the output projection for `tokens` tokens per die."""
    return _gemm(one, tokens, HIDDEN, VOCABULARY, 2)


def exchange_seconds(one: Inputs, tokens: int | float) -> tuple[float, float]:
    """Seconds of dispatch (1 byte an element) and combine (2) among 64 dies with attention and experts."""
    transfer = tokens * HIDDEN * COPIES / (one.network_bytes * one.memory_share)
    down, up = (
        one.slowest_rank * (slope * width * transfer + fixed + 5e-6) / 2
        for width, (slope, fixed) in ((1, one.dispatch), (2, one.combine))
    )
    return down, up


def wire_seconds(one: Inputs, tokens: int | float, fan_in: int | float) -> float:
    """Seconds of a link between the pools in the simulator: 3 us and the bytes of `fan_in` attention dies."""
    return 3e-6 + fan_in * tokens * HIDDEN * 2 / (one.network_bytes * one.memory_share)


def _gemm(one: Inputs, rows: int | float, inner: int, columns: int, width: int) -> float:
    """[rows, inner] x [inner, columns], elements of `width` bytes, results of 2."""
    moved = width * inner * (columns + rows) + 2 * rows * columns
    return _roofline(one, moved, 2 * rows * inner * columns, one.int8_flops if width == 1 else one.bf16_flops)


def _roofline(one: Inputs, moved: int | float, flops: int | float, peak: float | None = None) -> float:
    return max(
        moved / (one.memory_bytes * one.memory_share), flops / ((peak or one.bf16_flops) * one.compute_share)
    )
