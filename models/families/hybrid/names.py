"""What the tensors of the checkpoints of hybrid decoders are called, by model_type.

Source of names: transformers 5.24, modeling_ of the model_types here.
"""

from dataclasses import dataclass, replace

from models.families.expert_tensors import ExpertNames

_JAMBA_EXPERTS = ExpertNames(router="router.weight")
_GRANITE_EXPERTS = ExpertNames(
    router="block_sparse_moe.router.layer.weight",
    every=("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"),
    shared="shared_mlp",
    both="input_linear",
    matrices=("", "", "output_linear"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the tensors of a checkpoint are called: table, last norm, and in a layer its modules and norms.

    norm: of a layer's first part; ffn_norm: of its FFN; gate_up: of an FFN that holds both in one tensor.
    experts: names in the module of experts, which is the FFN's, or in the layer if they are `apart`. plus:
    what gains of norms lack. step_norms: of Mamba-1, what time steps are made of, B and C.
    """

    table: str = "model.embed_tokens.weight"
    last: str = "model.final_layernorm"
    layer: str = "model.layers.{}"
    mixer: str = "mamba"
    norm: str = "input_layernorm"
    attention: str = "self_attn"
    ffn: str = "feed_forward"
    ffn_norm: str = "pre_ff_layernorm"
    gate_up: str = ""
    down: str = "down_proj"
    experts: ExpertNames = _JAMBA_EXPERTS
    apart: bool = False
    plus: float = 0.0
    step_norms: tuple[str, str, str] = ("dt_layernorm", "b_layernorm", "c_layernorm")


_QWEN = Names(
    last="model.norm",
    mixer="linear_attn",
    ffn="mlp",
    ffn_norm="post_attention_layernorm",
    plus=1.0,
)
_BACKBONE = Names(
    table="backbone.embeddings.weight",
    last="backbone.norm_f",
    layer="backbone.layers.{}",
    mixer="mixer",
    norm="norm",
)
_SQUARED_EXPERTS = ExpertNames(matrices=("up_proj", "down_proj"))
NAMES = {
    "mamba2": _BACKBONE,
    "mamba": _BACKBONE,
    "nemotron_h": replace(
        _BACKBONE, attention="mixer", ffn="mixer", ffn_norm="norm", experts=_SQUARED_EXPERTS
    ),
    "falcon_h1": Names(),
    "bamba": Names(),
    "jamba": Names(),
    "qwen3_5_text": _QWEN,
    "qwen3_5_moe_text": replace(
        _QWEN,
        experts=ExpertNames(shared="shared_expert", every=("experts.gate_up_proj", "experts.down_proj")),
    ),
    "qwen3_next": replace(_QWEN, experts=ExpertNames(shared="shared_expert")),
    "granitemoehybrid": Names(
        last="model.norm",
        ffn="shared_mlp",
        ffn_norm="post_attention_layernorm",
        gate_up="input_linear",
        down="output_linear",
        experts=_GRANITE_EXPERTS,
        apart=True,
    ),
}
