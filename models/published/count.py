"""Parameters of a published model, counted from the keys of its config.json.

Source of the parts: the modeling files of transformers 5.24. The counts are held against those of its own
modules (tests/models/data/published_counts.json), and against what the authors publish.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Config = Mapping[str, Any]


class Count(NamedTuple):
    """All parameters, and those that a token uses: of an untied embedding one row, of experts the chosen."""

    total: int
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What the keys of a model_type leave unsaid.

    biased: which attention matrices have a bias. qk_norm: over each head's lanes, over the whole vector, or
    as the config's `use_qk_norm` says (`asked`). gate: whether q makes a gate of its own width too. norms:
    vectors of `hidden` per layer. matrices: of an FFN. bias: whether the router chooses with one. mixer_norm:
    whether mamba2 ends in a norm.
    """

    biased: str = ""
    qk_norm: Literal["", "head", "vector", "asked"] = ""
    gate: bool = False
    norms: int = 2
    matrices: int = 3
    bias: bool = False
    mixer_norm: bool = True


STYLES = {
    "llama": Style(),
    "qwen2": Style(biased="qkv"),
    "qwen3": Style(qk_norm="head"),
    "phi3": Style(),
    "mistral": Style(),
    "granite": Style(),
    "smollm3": Style(),
    "olmo2": Style(qk_norm="vector"),
    "olmo3": Style(qk_norm="vector"),
    "gemma2": Style(norms=4),
    "gemma3_text": Style(norms=4, qk_norm="head"),
    "gemma4_text": Style(norms=4, qk_norm="head"),
    "mixtral": Style(),
    "qwen3_moe": Style(qk_norm="head"),
    "olmoe": Style(qk_norm="vector"),
    "granitemoe": Style(),
    "qwen3_next": Style(qk_norm="head", gate=True),
    "qwen3_5_text": Style(qk_norm="head", gate=True),
    "qwen3_5_moe_text": Style(qk_norm="head", gate=True),
    "deepseek_v2": Style(),
    "deepseek_v3": Style(bias=True),
    "deepseek_v32": Style(bias=True),
    "kimi_k2": Style(bias=True),
    "gpt_oss": Style(biased="qkvo"),
    "llama4_text": Style(),
    "glm4_moe": Style(biased="qkv", qk_norm="asked", bias=True),
    "glm4_moe_lite": Style(bias=True),
    "glm_moe_dsa": Style(bias=True),
    "minimax_m2": Style(qk_norm="vector", bias=True),
    "mimo_v2_flash": Style(bias=True),
    "jamba": Style(),
    "mamba2": Style(norms=1),
    "nemotron_h": Style(norms=1, matrices=2, bias=True),
    "falcon_h1": Style(mixer_norm=False),
    "granitemoehybrid": Style(),
}
"""By model_type; of one that is not here no parameters are counted."""

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def parameters(config: Config) -> Count | None:
    """The parameters of a model; None where its keys, or what we know of them, do not say."""
    style = STYLES.get(config.get("model_type", ""))
    if style is None or "vocab_size" not in config or config.get("hidden_size_per_layer_input"):
        return None
    hidden, table = config["hidden_size"], config["vocab_size"] * config["hidden_size"]
    total, idle = hidden, 0  # the last norm
    for kind in _layers(config):
        total += kind.mixer + kind.ffn + style.norms * hidden
        idle += kind.idle
    if config["tie_word_embeddings"]:
        return Count(total + table, total - idle + table)
    return Count(total + 2 * table, total - idle + table + hidden)


class _Layer(NamedTuple):
    """Parameters of one layer: what mixes tokens, its FFN, and how many of them a token leaves idle."""

    mixer: int
    ffn: int
    idle: int


def _layers(c: Config) -> Iterator[_Layer]:
    kind = c["model_type"]
    if kind == "nemotron_h":
        for block in blocks_of(c):
            ffn, idle = {"moe": _experts, "mlp": _plain_ffn}.get(block, _none)(c)
            mixer = {"mamba": _state_space, "attention": _attention}.get(block, lambda c: 0)(c)
            yield _Layer(mixer, ffn, idle)
        return
    for i in range(c["num_hidden_layers"]):
        ffn, idle = (_none if kind == "mamba2" else _experts if _has_experts(c, i) else _plain_ffn)(c)
        yield _Layer(_mixer(c, i), ffn, idle)


def blocks_of(c: Config) -> list[str]:
    """What each layer of a Nemotron-H is."""
    names = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
    if "block_counts" in c:
        return [block for block, count in c["block_counts"].items() for _ in range(count)]
    return [names[letter] for letter in c["hybrid_override_pattern"]]


def _has_experts(c: Config, i: int) -> bool:
    if "expert_layer_period" in c:
        return i % c["expert_layer_period"] == c["expert_layer_offset"]
    if "interleave_moe_layer_step" in c:
        return (i + 1) % c["interleave_moe_layer_step"] == 0
    return experts_of(c) > 1 and i >= c.get("first_k_dense_replace", 0)


def experts_of(c: Config) -> int:
    """Routed experts of a layer; 0 for a dense model."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((c[name] for name in names if c.get(name)), 0)


def _mixer(c: Config, i: int) -> int:
    """Parameters of what mixes tokens in layer i."""
    kind = c["model_type"]
    if kind == "jamba" and i % c["attn_layer_period"] != c["attn_layer_offset"]:
        return _selective(c)
    if kind == "mamba2":
        return _state_space(c)
    if kind == "falcon_h1":
        return _attention(c) + _state_space(c)
    if kind == "granitemoehybrid":
        return _state_space(c) if layer_kind(c, i) == "mamba" else _attention(c)
    if layer_kind(c, i) == "linear_attention":
        return _delta(c)
    return _latent(c) if "kv_lora_rank" in c else _attention(c, layer_kind(c, i))


def layer_kind(c: Config, i: int) -> str:
    """The kind of attention of layer i."""
    kinds, windowed = c.get("layer_types"), _LOCAL if c.get("sliding_window") else _GLOBAL
    if kinds:
        return kinds[i]
    if "full_attention_layers" in c:
        return _GLOBAL if i in c["full_attention_layers"] else windowed
    return _GLOBAL


def _attention(c: Config, kind: str = _GLOBAL) -> int:
    """GQA: its matrices, biases, norms of q and k, sinks."""
    style, hidden, heads = STYLES[c["model_type"]], c["hidden_size"], c["num_attention_heads"]
    kv, lanes, shared = c["num_key_value_heads"], c.get("head_dim") or hidden // heads, False
    if "global_head_dim" in c and kind == _GLOBAL:
        kv, lanes, shared = c["num_global_key_value_heads"], c["global_head_dim"], c["attention_k_eq_v"]
    if kind == _LOCAL:
        kv = c.get("swa_num_key_value_heads", kv)
    values = c.get("v_head_dim", lanes)
    q, k, v, o = heads * lanes, kv * lanes, 0 if shared else kv * values, heads * values
    widths = {"q": q * (1 + style.gate), "k": k, "v": v}
    total = hidden * (sum(widths.values()) + o)
    total += sum((widths | {"o": hidden})[name] for name in style.biased)
    if style.qk_norm == "vector":
        total += q + k
    elif style.qk_norm == "head" or (style.qk_norm == "asked" and c["use_qk_norm"]):
        total += 2 * lanes
    sinks = c["model_type"] == "gpt_oss" or (c.get("attention_sinks") and kind == _LOCAL)
    return total + (heads if sinks else 0)


def _latent(c: Config) -> int:
    """MLA, and the indexer of sparse attention."""
    hidden, heads, q, kv = c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"], c["kv_lora_rank"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    queries = heads * (nope + rope)
    total = (hidden * queries if q is None else q * (hidden + 1 + queries)) + hidden * (kv + rope) + kv
    total += kv * heads * (nope + v) + heads * v * hidden
    if "index_topk" in c:
        count, lanes = c["index_n_heads"], c["index_head_dim"]
        total += q * count * lanes + hidden * lanes + 2 * lanes + hidden * count
    return total


def _delta(c: Config) -> int:
    """A gated delta net: its projections, convolution, decay, norm of a head."""
    hidden = c["hidden_size"]
    k = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    heads, lanes = c["linear_num_value_heads"], c["linear_value_head_dim"]
    v = heads * lanes
    inputs = hidden * (2 * k + 2 * v + 2 * heads)
    return inputs + (2 * k + v) * c["linear_conv_kernel_dim"] + 2 * heads + lanes + v * hidden


def _state_space(c: Config) -> int:
    """Mamba2."""
    hidden = c["hidden_size"]
    heads = c.get("mamba_num_heads") or c.get("mamba_n_heads") or c["num_heads"]
    lanes = c.get("mamba_head_dim") or c.get("mamba_d_head") or c["head_dim"]
    state = c.get("ssm_state_size") or c.get("mamba_d_state") or c["state_size"]
    groups = c.get("n_groups") or c["mamba_n_groups"]
    taps = c.get("conv_kernel") or c["mamba_d_conv"]
    inner, both = heads * lanes, 2 * groups * state
    norm = inner if STYLES[c["model_type"]].mixer_norm else 0
    conv = (inner + both) * (taps + 1)
    return hidden * (2 * inner + both + heads) + conv + 3 * heads + norm + inner * hidden


def _selective(c: Config) -> int:
    """Mamba, with Jamba's norms of dt, B and C."""
    hidden, state, rank = c["hidden_size"], c["mamba_d_state"], c["mamba_dt_rank"]
    inner = c["mamba_expand"] * hidden
    total = 2 * hidden * inner + inner * (c["mamba_d_conv"] + 1) + inner * (rank + 2 * state)
    return total + rank * inner + inner + inner * state + inner + inner * hidden + rank + 2 * state


def _none(c: Config) -> tuple[int, int]:
    return 0, 0


def _plain_ffn(c: Config) -> tuple[int, int]:
    """A dense FFN, all of it used."""
    width = c.get("intermediate_size_mlp", c["intermediate_size"])
    return STYLES[c["model_type"]].matrices * c["hidden_size"] * width, 0


def _experts(c: Config) -> tuple[int, int]:
    """Experts with their router, shared ones, and what stands beside them; and what a token leaves idle."""
    kind, style, hidden, count = c["model_type"], STYLES[c["model_type"]], c["hidden_size"], experts_of(c)
    width, inside = c.get("moe_intermediate_size") or c["intermediate_size"], c.get("moe_latent_size", hidden)
    one = style.matrices * inside * width
    total = count * one + hidden * count
    if kind == "gpt_oss":
        one += 2 * width + hidden
        total = count * one + hidden * count + count
    if style.bias:
        total += count
    if inside != hidden:
        total += 2 * hidden * inside
    shared = c.get("moe_shared_expert_intermediate_size") or c.get("shared_expert_intermediate_size")
    shared = shared or c.get("shared_intermediate_size") or width * c.get("n_shared_experts", 0)
    shared = width if kind == "llama4_text" else shared
    total += style.matrices * hidden * shared
    if "shared_expert_intermediate_size" in c:
        total += hidden  # its gate
    if kind == "gemma4_text":  # a dense FFN beside them, three norms more, the router's scales
        total += _plain_ffn(c)[0] + 3 * hidden + hidden + count
    return total, (count - (c.get("num_experts_per_tok") or c["top_k_experts"])) * one
