"""Makes the tiny checkpoints with experts in variants/ and their expected logits, with transformers.

Not part of the test suite. In an environment of its own:
    pip install torch==2.13.0 transformers==5.24.0 safetensors && python make_expert_fixtures.py
Written with torch 2.13.0+cpu, transformers 5.24.0.
"""

# pyright: basic, reportMissingImports=false

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

HERE = Path(__file__).parent / "variants"
TOKENS, VOCAB = 12, 64

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "attn_implementation": "eager",
    "experts_implementation": "eager",
}
MIXTRAL = MixtralConfig(intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, **SMALL)
QWEN3: dict[str, Any] = {
    **SMALL,
    "moe_intermediate_size": 24,
    "head_dim": 16,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "tie_word_embeddings": True,
}
GLM: dict[str, Any] = {
    **SMALL,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "attention_bias": True,
}
MINIMAX: dict[str, Any] = {
    **SMALL,
    "head_dim": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
    "rotary_dim": 16,
    "intermediate_size": 24,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
}
OLMOE: dict[str, Any] = {**SMALL, "intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 3}
GRANITE: dict[str, Any] = {
    **SMALL,
    "intermediate_size": 24,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "tie_word_embeddings": True,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.05,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
SCORED: dict[str, tuple[str, dict[str, Any]]] = {
    "glm4-moe": ("glm4_moe", GLM | {"routed_scaling_factor": 1.5, "n_group": 3, "topk_group": 2}),
    "glm4-moe-qk-norm": ("glm4_moe", GLM | {"use_qk_norm": True, "attention_bias": False}),
    "minimax-m2": ("minimax_m2", MINIMAX),
    "olmoe": ("olmoe", OLMOE),
    "granite-moe": ("granitemoe", GRANITE),
}


def make(folder: Path, model: Any, held: torch.dtype = torch.float32) -> None:
    """Write one folder: config.json, safetensors, expected.npz with tokens [t] and logits [t, vocab].

    held: in which the weights are stored; the logits are f32 of them.
    """
    generator = torch.Generator().manual_seed(1)
    model = model.float()
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            width = tensor.shape[-1] ** -0.5
            value = 1 + 0.1 * noise if path.endswith("norm.weight") else width * noise
            tensor.copy_(value.to(held).float())
        for path, tensor in model.named_buffers():
            if path.endswith("e_score_correction_bias"):
                tensor.copy_((0.2 * torch.randn(tensor.shape, generator=generator)).to(held).float())
    if model.config.tie_word_embeddings:
        model.tie_weights()
    model.eval()
    tokens = torch.randint(0, VOCAB, (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model(tokens).logits[0]
    shutil.rmtree(folder, ignore_errors=True)
    model.to(held).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez(folder / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits.numpy())


if __name__ == "__main__":
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    make(into / "mixtral", MixtralForCausalLM(MIXTRAL))
    for name, renormalise in (("qwen3-moe", False), ("qwen3-moe-renormalised", True)):
        make(into / name, Qwen3MoeForCausalLM(Qwen3MoeConfig(norm_topk_prob=renormalise, **QWEN3)))
    for name, (kind, keys) in SCORED.items():
        scored = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **keys))
        make(into / name, scored, torch.bfloat16)
