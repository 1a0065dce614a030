"""The keys of a config.json that say how sigmoid scores choose experts: DeepSeek-V3's, which others took.

Source of defaults: transformers 5.24, configuration_ of the model_types that name a `RouterType`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from models.configs.scored import ScoredExperts
from models.families.expert_tensors import ExpertCounts
from models.sources.json_keys import Keys

TRAINED_WITH = (
    *("ep_size", "aux_loss_alpha", "seq_aux", "output_router_logits", "pretraining_tp"),
    *("router_aux_loss_coef", "router_jitter_noise", "num_nextn_predict_layers", "num_mtp_layers"),
)
"""Keys that change nothing of a step."""
_METHODS = {"sigmoid": "noaux_tc", "softmax": "greedy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterType:
    """What the keys of experts are in the `config.json` of one model_type where they are absent.

    dense: first_k_dense_replace; experts: n_routed_experts.
    """

    dense: int
    experts: int
    width: int = 2048
    chosen: int = 8
    shared: int = 1
    groups: int = 8
    keep: int = 4
    scale: float = 2.5
    renormalise: bool = True
    score: Literal["sigmoid", "softmax"] = "sigmoid"


def first_dense(keys: Keys, usual: int) -> int:
    """How many layers come before those with experts: by their number, or by the kind of each FFN."""
    kinds = keys.get("mlp_layer_types")
    if kinds is not None:
        usual = _leading(keys, kinds)
    dense = keys.get("first_k_dense_replace", usual)
    if type(dense) is not int or dense < 0:
        raise keys.error("first_k_dense_replace", dense, "it is a whole number of at least 0")
    if kinds is not None and dense != usual:
        raise keys.error("first_k_dense_replace", dense, f"mlp_layer_types names {usual} dense layers")
    return dense


def _leading(keys: Keys, kinds: Any) -> int:
    """How many of the kinds come before the first "sparse"; raise unless none comes after."""
    known = isinstance(kinds, list) and set(kinds) <= {"dense", "sparse"}
    dense = kinds.count("dense") if known else 0
    if not known or kinds[:dense] != ["dense"] * dense:
        raise keys.error("mlp_layer_types", kinds, "it is a list of dense, then sparse")
    if len(kinds) != keys.values.get("num_hidden_layers", len(kinds)):
        layers = keys.values["num_hidden_layers"]
        raise keys.error(
            "mlp_layer_types", kinds, f"names {len(kinds)} layers, num_hidden_layers is {layers}"
        )
    return dense


def counts_of(config: ScoredExperts) -> ExpertCounts:
    """What the tensors of a layer with experts are of."""
    biased = config.score == "sigmoid"
    return ExpertCounts(config.hidden, config.experts, config.shared, config.expert_ffn, biased)


def router_numbers(keys: Keys, usual: RouterType) -> dict[str, Any]:
    """The numbers of `models.configs.scored.ScoredExperts`; raise for routers that are another's."""
    for key in TRAINED_WITH:
        keys.get(key)
    is_so = {"scoring_func": usual.score, "topk_method": _METHODS[usual.score], "moe_layer_freq": 1}
    for key, value in is_so.items():
        if keys.get(key) not in (None, value):
            raise keys.error(key, keys.get(key), f"experts are computed where it is {value!r}")
    shared = keys.get("n_shared_experts", usual.shared) or 0
    if type(shared) is not int or shared < 0:
        raise keys.error("n_shared_experts", shared, "it is a whole number of at least 0")
    stated = keys.get("norm_topk_prob")
    renormalise = usual.renormalise if stated is None else keys.flag("norm_topk_prob")
    if renormalise and usual.score == "softmax":
        raise keys.error("norm_topk_prob", True, "weights of this model_type are of all experts")
    experts, chosen = (
        keys.integer("n_routed_experts", usual.experts),
        keys.integer("num_experts_per_tok", usual.chosen),
    )
    if chosen > experts:
        raise keys.error("num_experts_per_tok", chosen, f"there are {experts} experts")
    return {
        "dense": first_dense(keys, usual.dense),
        "experts": experts,
        "chosen": chosen,
        "expert_ffn": keys.integer("moe_intermediate_size", usual.width),
        "shared": shared,
        "groups": keys.integer("n_group", usual.groups),
        "keep": keys.integer("topk_group", usual.keep),
        "scale": keys.number("routed_scaling_factor", usual.scale),
        "renormalise": renormalise,
        "score": usual.score,
    }
