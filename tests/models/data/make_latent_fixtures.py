"""Makes the tiny folders of data/latent and their expected logits, with transformers and PyTorch.

Not part of the test suite. In an environment of its own:
    pip install torch==2.13.0 transformers==5.24.0 safetensors && python make_latent_fixtures.py
Written with torch 2.13.0+cpu, transformers 5.24.0. Weights are bf16, the logits are f32 of them.
"""

# pyright: basic, reportMissingImports=false

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent / "latent"
TOKENS = 24
LAYERS = 2
BASE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "first_k_dense_replace": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,  # not that of the norms of latents
    "q_lora_rank": 48,
    "kv_lora_rank": 40,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
EXPERTS = {
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
}
V2 = {
    "q_lora_rank": None,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": False,
    "topk_method": "greedy",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
GLM = EXPERTS | {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.8, "n_shared_experts": 1}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
INDEX = {"index_n_heads": 1, "index_head_dim": 16, "index_topk": TOKENS}  # all tokens are chosen
FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "v3-dense": ("deepseek_v3", {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}}),
    "v3-mscale": ("deepseek_v3", {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}}),
    "v3-experts": ("deepseek_v3", EXPERTS),
    "kimi-experts": ("deepseek_v3", EXPERTS | {"n_group": 1, "topk_group": 1, "norm_topk_prob": False}),
    "glm4-lite": ("glm4_moe_lite", GLM),
    "v32-experts": ("deepseek_v32", GLM | INDEX),
    "glm5-experts": ("glm_moe_dsa", GLM | INDEX),
    "v2-lite": ("deepseek_v2", EXPERTS | V2),
    "v2-lite-dense": ("deepseek_v2", {"q_lora_rank": None, "tie_word_embeddings": True}),
}


def make(name: str, kind: str, keys: dict[str, Any]) -> None:
    """Write one folder: config.json, safetensors, expected.npz with tokens [t] and logits [t, vocab]."""
    config = AutoConfig.for_model(kind, **(BASE | keys))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    generator, of_indexers = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=of_indexers if ".indexer." in path else generator)
            width = 1.4 * tensor.shape[-1] ** -0.5  # scores spread over some e-folds
            value = 1 + 0.1 * noise if "norm" in path else width * noise
            tensor.copy_(value.to(torch.bfloat16).float())
        for path, tensor in model.named_buffers():
            if path.endswith("e_score_correction_bias"):
                noise = 0.2 * torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise.to(torch.bfloat16).float())
    model.tie_weights()
    model.eval()
    tokens = torch.randint(0, BASE["vocab_size"], (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model.float()(tokens).logits[0]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez(folder / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits.numpy())
    print(name, float(logits.std()), sum(one.stat().st_size for one in folder.iterdir()))


if __name__ == "__main__":
    for name, (kind, keys) in FOLDERS.items():
        make(name, kind, keys)
