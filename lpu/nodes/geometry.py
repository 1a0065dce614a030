"""What a published model asks of a node, from the keys of its config.json.

Parameters are those that models/published/count.py counts. Layers of attention are understood, with windows
and MLA; others (states, sparse or chunked attention) are refused by name. A shared K and V counts twice.
"""

from collections.abc import Mapping
from typing import Any

from lpu.inputs.document import FileError
from lpu.nodes.demand import NodeDemand
from models.published.count import experts_of, layer_kind, parameters

FULL, NEAR = "full_attention", "sliding_attention"
STATES = ("jamba", "mamba2", "nemotron_h", "falcon_h1", "granitemoehybrid")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


def of_published(name: str, config: Mapping[str, Any]) -> NodeDemand:
    """Of a model by its config. Raises FileError for layers that are not understood, by their kind."""
    count, kind = parameters(config), config.get("model_type", "")
    if count is None:
        raise _refused(name, f"its parameters cannot be counted from its config ({kind})")
    if kind in STATES:
        raise _refused(name, f"{kind} keeps states, of which no roofline is stated")
    if "index_topk" in config:
        raise _refused(name, "its attention is sparse (index_topk), of which no roofline is stated")
    kinds = [layer_kind(config, i) for i in range(config["num_hidden_layers"])]
    for other in sorted(set(kinds) - {FULL, NEAR}):
        raise _refused(name, f"it has layers of {other}, of which no roofline is stated")
    kept, pair, prompt = _layer(config, FULL)
    near, near_pair, _ = _layer(config, NEAR) if NEAR in kinds else (0, 0, 0)
    experts, many = experts_of(config), kinds.count(FULL)
    chosen = next((config[key] for key in CHOSEN if config.get(key)), 0) if experts > 1 else 0
    table = 0 if config["tie_word_embeddings"] else (config["vocab_size"] - 1) * config["hidden_size"]
    idle = count.total - count.active - table
    one = idle // (experts - chosen) if experts > chosen > 0 else 0
    return NodeDemand(
        name=name,
        parameters=count.total,
        shared=count.active - chosen * one,
        layers=len(kinds),
        hidden=config["hidden_size"],
        kept=many * kept,
        pair_flops=many * pair,
        prompt_flops=many * prompt,
        near=(len(kinds) - many) * near,
        near_flops=(len(kinds) - many) * near_pair,
        window=config.get("sliding_window") or 0 if NEAR in kinds else 0,
        experts=max(experts, 1),
        topk=chosen,
        expert_parameters=one,
    )


def _layer(c: Mapping[str, Any], kind: str) -> tuple[int, int, int]:
    """Of a layer: KV numbers of a token, FLOPs of a query and a key in decode, and in a prompt."""
    heads = c["num_attention_heads"]
    if "kv_lora_rank" in c:
        latent, turned = c["kv_lora_rank"], c["qk_rope_head_dim"]
        written = c["qk_nope_head_dim"] + turned + c["v_head_dim"]
        return latent + turned, 2 * heads * (2 * latent + turned), 2 * heads * written
    kv, lanes = c["num_key_value_heads"], c.get("head_dim") or c["hidden_size"] // heads
    if "global_head_dim" in c and kind == FULL:
        kv, lanes = c["num_global_key_value_heads"], c["global_head_dim"]
    if kind == NEAR:
        kv = c.get("swa_num_key_value_heads", kv)
    values = c.get("v_head_dim", lanes)
    return kv * (lanes + values), 2 * heads * (lanes + values), 0


def _refused(name: str, why: str) -> FileError:
    return FileError(f"nodes: {name}: {why}. Take a dense model, or one with experts and attention.")
