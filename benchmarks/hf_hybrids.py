"""Makes small Hugging Face folders of hybrid models with transformers' logits: not part of the tests.

In an environment of its own (transformers 5.24.0, torch 2.13.0+cpu): `python hf_hybrids.py DIR [NAME ...]`.
The logits are those of the slow path in f32, eager attention.
"""

# pyright: basic, reportMissingImports=false

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

TOKENS, VOCAB = 24, 96
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_chunk_size": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
QWEN: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 24,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    "max_position_embeddings": 64,
}
FOLDERS: dict[str, dict[str, Any]] = {
    "mamba2": {
        "model_type": "mamba2",
        "hidden_size": 48,
        "num_heads": 4,
        "head_dim": 24,
        "state_size": 16,
        "n_groups": 1,
        "num_hidden_layers": 2,
        "chunk_size": 8,
        "tie_word_embeddings": True,
    },
    "mamba": {
        "model_type": "mamba",
        "hidden_size": 48,
        "state_size": 4,
        "conv_kernel": 5,
        "time_step_rank": 8,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
    },
    "falcon-h1": SMALL
    | {
        "model_type": "falcon_h1",
        "intermediate_size": 48,
        "mamba_d_ssm": 64,
        "mamba_d_head": 16,
        "mamba_n_groups": 2,
        "mamba_d_conv": 2,
        "embedding_multiplier": 5.5,
        "lm_head_multiplier": 0.04,
        "key_multiplier": 0.4,
        "attention_in_multiplier": 1.2,
        "attention_out_multiplier": 0.9,
        "ssm_in_multiplier": 1.3,
        "ssm_out_multiplier": 0.25,
        "ssm_multipliers": [0.35, 0.25, 0.2, 0.5, 0.35],
        "mlp_multipliers": [0.9, 0.2],
        "rope_theta": 1e11,
    },
    "bamba": SMALL
    | {
        "model_type": "bamba",
        "attn_layer_indices": [1],
        "mamba_n_groups": 2,
        "mamba_d_conv": 3,
        "tie_word_embeddings": True,
    },
    "jamba": {
        "model_type": "jamba",
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 0,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mamba_d_conv": 8,
        "mamba_d_state": 8,
        "mamba_dt_rank": 8,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
    },
    "nemotron-h": {
        "model_type": "nemotron_h",
        "hidden_size": 64,
        "intermediate_size": 80,
        "hybrid_override_pattern": "M-*-",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "mamba_num_heads": 4,
        "mamba_head_dim": 24,
        "ssm_state_size": 16,
        "n_groups": 2,
        "chunk_size": 8,
        "max_position_embeddings": 64,
    },
    "nemotron-3": {
        "model_type": "nemotron_h",
        "hidden_size": 48,
        "hybrid_override_pattern": "ME*E",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "mamba_num_heads": 4,
        "mamba_head_dim": 24,
        "ssm_state_size": 16,
        "n_groups": 2,
        "chunk_size": 8,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 64,
        "n_group": 2,
        "topk_group": 1,
        "routed_scaling_factor": 2.5,
        "max_position_embeddings": 64,
    },
    "granite4-dense": SMALL
    | {
        "model_type": "granitemoehybrid",
        "num_local_experts": 0,
        "shared_intermediate_size": 80,
        "layer_types": ["linear_attention", "full_attention"],
        "mamba_n_groups": 4,
        "mamba_d_conv": 7,
        "position_embedding_type": "nope",
        "embedding_multiplier": 12,
        "attention_multiplier": 0.0625,
        "residual_multiplier": 0.22,
        "logits_scaling": 3,
    },
    "qwen3-next": QWEN | {"model_type": "qwen3_next", "intermediate_size": 48, "mlp_only_layers": [0]},
    "qwen3.5-moe": QWEN
    | {
        "model_type": "qwen3_5_moe_text",
        "head_dim": 12,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 3,
    },
}
FOLDERS["nemotron-3-latent"] = FOLDERS["nemotron-3"] | {
    "hybrid_override_pattern": "ME*",
    "moe_latent_size": 24,
    "moe_shared_expert_intermediate_size": 80,
    "n_group": 1,
}
FOLDERS["granite4-moe"] = FOLDERS["granite4-dense"] | {
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 16,
    "shared_intermediate_size": 32,
    "mamba_expand": 1,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
}
FOLDERS["falcon-h1-normed"] = SMALL | {
    "model_type": "falcon_h1",
    "num_hidden_layers": 1,
    "intermediate_size": 48,
    "mamba_d_ssm": 64,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_rms_norm": True,
    "mamba_norm_before_gate": False,
    "ssm_out_multiplier": 0.25,
}
STORED = {
    "experts.gate_up_proj": "input_linear.weight",
    "experts.down_proj": "output_linear.weight",
    "router.weight": "router.layer.weight",
}  # names in memory, and in checkpoints
WHOLE = ("qwen3.5-moe", "granite4-moe")  # checkpoints hold all experts in one tensor
LESS = tuple(name for name in FOLDERS if name.startswith("qwen"))  # gains are stored less 1
WIDE = ("mamba", "mamba2")  # stored in f32, others in fp16


def make(folder: Path, names: list[str]) -> None:
    """Write every folder, or those named, with `expected.npz`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    for number, (name, own) in enumerate(FOLDERS.items()):
        if names and name not in names:
            continue
        at = folder / name
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        keys = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | own
        (at / "config.json").write_text(json.dumps(keys, indent=1))
        config = AutoConfig.from_pretrained(at)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        generator = torch.Generator().manual_seed(number)
        biases = [one for one in model.named_buffers() if one[0].endswith("e_score_correction_bias")]
        for path, tensor in [*model.named_parameters(), *biases]:
            less = name in LESS and ".linear_attn." not in path
            drawn = _drawn(path, torch.randn(tensor.shape, generator=generator), float(less))
            if ".linear_attn." in path:
                _near(path, drawn, keys["linear_num_key_heads"], keys["linear_key_head_dim"])
            tensor.data.copy_(drawn if name in WIDE else drawn.half().float())
        held = {path: value.detach().clone() for path, value in model.state_dict().items()}
        if keys["model_type"] == "nemotron_h":
            held = {path.replace("model.", "backbone.", 1): value for path, value in held.items()}
        for ours, theirs in STORED.items() if name == "granite4-moe" else ():
            held = {path.replace(ours, theirs): value for path, value in held.items()}
        if name not in WHOLE:
            held = {path: value for path, values in held.items() for path, value in _alone(path, values)}
        if model.config.tie_word_embeddings:
            held.pop("lm_head.weight", None)
            model.tie_weights()
        tokens = torch.randint(0, VOCAB, (1, TOKENS), generator=generator)
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits[0].numpy()
        np.savez(at / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits)
        held = {path: value if name in WIDE else value.half() for path, value in held.items()}
        save_file(held, at / "model.safetensors", {"format": "pt"})
        print(name, sum(value.numel() for value in held.values()), float(np.abs(logits).max()))


def _alone(path: str, values: Any) -> list[tuple[str, Any]]:
    """The matrices of a stack of experts by the names that checkpoints have for each."""
    module, _, matrix = path.rpartition(".experts.")
    if matrix == "gate_up_proj":
        pairs = [(i, one.chunk(2)) for i, one in enumerate(values)]
        names = ("gate_proj", "up_proj")
        return [
            (f"{module}.experts.{i}.{name}.weight", part.clone())
            for i, both in pairs
            for name, part in zip(names, both, strict=True)
        ]
    if matrix in ("up_proj", "down_proj"):
        return [(f"{module}.experts.{i}.{matrix}.weight", one.clone()) for i, one in enumerate(values)]
    return [(path, values)]


def _near(path: str, drawn: Any, heads: int, lanes: int) -> None:
    """Make the keys of a gated delta layer point where their queries do, at a correlation of 0.8.

    With few lanes a random query and a random key may be at right angles; then a head's result nearly
    cancels, and the norm behind it enlarges what was rounded before. docs/decisions/0021 has figures.
    """
    if path.endswith("in_proj_qkvz.weight"):
        by_head = drawn.view(heads, -1, drawn.shape[1])
        q, k = by_head[:, :lanes], by_head[:, lanes : 2 * lanes]
    elif path.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        q, k = drawn[: heads * lanes], drawn[heads * lanes : 2 * heads * lanes]
    else:
        return
    k.mul_(0.6).add_(q, alpha=0.8)


def _drawn(path: str, noise: Any, less: float) -> Any:
    """Values of a parameter: norms near 1, decays of -1 to -16, time steps near 0.1, matrices by width.

    less: what the model adds to the gains of norms, which are stored without.
    """
    if path.endswith("A_log"):
        return (1 + 15 * noise.abs().clamp(max=1)).log()
    if path.endswith(("dt_bias", "dt_proj.bias")):
        return noise - 2
    if path.endswith((".D", "norm.weight", "layernorm.weight", "norm_f.weight")):
        return 1 - less + 0.1 * noise
    if path.endswith("bias"):
        return 0.2 * noise
    return tensor_scale(noise.shape[1:] if ".experts." in path else noise.shape) * noise


def tensor_scale(shape: Any) -> float:
    """One over the root of what is summed."""
    return float(np.prod(shape[1:])) ** -0.5 if len(shape) > 1 else 1.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of the folders; all of them without")
    given = parser.parse_args()
    make(given.folder, given.names)
