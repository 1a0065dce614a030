"""Makes tiny checkpoints of Gemma 4 and Llama 4 (text) in variants/ and their logits, with transformers.

Not part of the test suite. In an environment of its own:
    pip install torch==2.13.0 transformers==5.24.0 safetensors && python make_text_fixtures.py
Written with torch 2.13.0+cpu, transformers 5.24.0.
"""

# pyright: basic, reportMissingImports=false

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent / "variants"
TOKENS = 24
SLIDING, FULL = "sliding_attention", "full_attention"
DENSE: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "layer_types": [SLIDING, FULL, SLIDING],  # the last sees all, whatever it says
    "final_logit_softcapping": 30.0,
    "hidden_size_per_layer_input": 0,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    },
    "tie_word_embeddings": True,
}
EXPERTS: dict[str, Any] = {
    **DENSE,
    "num_hidden_layers": 2,
    "layer_types": [SLIDING, FULL],
    "vocab_size": 64,
    "enable_moe_block": True,
    "num_experts": 6,
    "top_k_experts": 3,
    "moe_intermediate_size": 16,
}
APART: dict[str, Any] = {
    **DENSE,
    "num_hidden_layers": 2,
    "layer_types": [SLIDING, FULL],
    "attention_k_eq_v": False,
    "sliding_window": 256,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.75, "factor": 4.0},
    },
    "tie_word_embeddings": False,
}
SCOUT: dict[str, Any] = {
    "model_type": "llama4_text",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 16,
    "intermediate_size_mlp": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "no_rope_layers": [1, 0, 1],
    "attention_chunk_size": 8,
    "floor_scale": 4,
    "attn_scale": 0.5,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": 64,
    },
}
MAVERICK: dict[str, Any] = {
    **SCOUT,
    "num_hidden_layers": 4,
    "no_rope_layers": [1, 1, 1, 0],
    "vocab_size": 32,
    "interleave_moe_layer_step": 2,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "use_qk_norm": False,
    "attn_temperature_tuning": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
FOLDERS = {"gemma4": DENSE, "gemma4-experts": EXPERTS, "gemma4-apart": APART}
FOLDERS |= {"llama4": SCOUT, "llama4-interleaved": MAVERICK}


def make(folder: Path, keys: dict[str, Any]) -> None:
    """Write one folder: config.json, safetensors, expected.npz with tokens [t] and logits [t, vocab]."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(keys))
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), **options).float().eval()
    generator = torch.Generator().manual_seed(4)
    held = dict(model.named_parameters())
    held |= {name: one for name, one in model.named_buffers() if name.endswith("layer_scalar")}
    for path, tensor in held.items():
        noise = torch.randn(tensor.shape, generator=generator)
        near_one = path.endswith(("norm.weight", "norm_1.weight", "norm_2.weight", "scale", "layer_scalar"))
        value = 1 + 0.1 * noise if near_one else tensor.shape[-1] ** -0.5 * noise
        if path.endswith(("q_norm.weight", "k_norm.weight")):  # scores as where they are over sqrt(head_dim)
            value *= tensor.shape[-1] ** -0.25
        if path.endswith(("layer_scalar", "per_expert_scale")):
            value = 0.75 + 0.2 * noise
        tensor.data.copy_(value.to(torch.bfloat16).float())
    if model.config.tie_word_embeddings:
        model.tie_weights()
    stored = {path: value.to(torch.bfloat16).clone() for path, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        stored.pop("lm_head.weight", None)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    tokens = torch.randint(0, keys["vocab_size"], (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
    np.savez(folder / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.name}: {size} bytes, largest logit {np.abs(logits).max():.2f}", *stored, sep="\n  ")


if __name__ == "__main__":
    for one in sys.argv[1:] or FOLDERS:
        make(HERE / one, FOLDERS[one])
