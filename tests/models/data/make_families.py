"""Makes tiny checkpoints of dense families and encoders in `families/` here, with logits of transformers.

Not part of the test suite. In an environment of its own (transformers 5.24.0, torch 2.13.0+cpu):
    python make_families.py [NAME ...]
"""

# pyright: basic, reportMissingImports=false

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent / "families"
TOKENS = 40
BASE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "sliding_window": 12,
}
SLIDING, FULL = "sliding_attention", "full_attention"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10_000.0}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "tie_word_embeddings": False},
    "ministral": {"model_type": "ministral", "layer_types": [SLIDING, FULL], "head_dim": 24},
    "gemma2": {"model_type": "gemma2", "head_dim": 24, "query_pre_attn_scalar": 24},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "layer_types": [SLIDING, FULL],
        "rope_parameters": {
            FULL: LINEAR,
            SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        },
    },
    "gemma3-older-keys": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "num_hidden_layers": 3,
        "sliding_window_pattern": 2,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_theta": 1e6,
        "rope_local_base_freq": 5_000.0,
        "final_logit_softcapping": 20.0,
        "attn_logit_softcapping": 30.0,
    },
    "phi3": {"model_type": "phi3", "pad_token_id": 0, "sliding_window": 12},
    "olmo2": {"model_type": "olmo2", "attention_bias": True},
    "olmo3": {
        "model_type": "olmo3",
        "num_hidden_layers": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "rope_scaling": {key: value for key, value in YARN.items() if key != "rope_theta"},
        "rope_theta": 500_000.0,
    },
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2, "pad_token_id": 0},
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.05,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "qwen2-window-yarn": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "max_window_layers": 1,
        "rope_parameters": YARN,
    },
    "qwen3-window": {
        "model_type": "qwen3",
        "use_sliding_window": True,
        "layer_types": [FULL, SLIDING],
        "head_dim": 32,
        "rope_parameters": YARN,
    },
    "exaone4": {"model_type": "exaone4", "layer_types": [SLIDING, FULL]},
    "seed-oss": {"model_type": "seed_oss", "head_dim": 16, "attention_out_bias": True},
    "bert-answers": {"model_type": "bert", "architectures": ["BertForQuestionAnswering"]},
    "bert-labels": {
        "model_type": "bert",
        "architectures": ["BertForTokenClassification"],
        "id2label": {"0": "O", "1": "B", "2": "I"},
        "intermediate_size": 96,
        "num_attention_heads": 2,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-6,
    },
}
_UNSAID = {"smollm3": ["sliding_window"], "granite": ["sliding_window"], "olmo2": ["sliding_window"]}
_UNSAID |= {"seed-oss": ["sliding_window"]}
_OF_DECODERS = ["sliding_window", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"]
_UNSAID |= {"bert-answers": _OF_DECODERS, "bert-labels": _OF_DECODERS}


def make(name: str) -> None:
    """One folder: config.json, safetensors, expected.npz with tokens [t] and logits [t, vocab]."""
    at = HERE / name
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    keys = {k: v for k, v in (BASE | FAMILIES[name]).items() if k not in _UNSAID.get(name, [])}
    (at / "config.json").write_text(json.dumps(keys))
    config = AutoConfig.from_pretrained(at)
    made = keys.get("architectures")
    encodes = bool(made)
    maker = getattr(transformers, made[0])._from_config if made else AutoModelForCausalLM.from_config
    model = maker(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(len(name))
    plus = name.startswith("gemma")  # their gains are stored less 1
    for path, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if path.lower().endswith("norm.weight"):
            value = 0.1 * noise + (0 if plus else 1)
        elif path.endswith("bias"):
            value = 0.2 * noise
        else:
            value = tensor.shape[-1] ** -0.5 * noise
        tensor.data.copy_(value.to(torch.float16).float())
    tied = config.tie_word_embeddings and not encodes
    if tied:
        model.tie_weights()
    held = {path: value.to(torch.float16).clone() for path, value in model.state_dict().items()}
    if tied:
        held.pop("lm_head.weight", None)
    save_file(held, at / "model.safetensors", {"format": "pt"})
    tokens = torch.randint(0, keys["vocab_size"], (1, TOKENS), generator=generator)
    with torch.no_grad():
        out = model(tokens)
    spans = "start_logits" in out
    logits = (torch.stack([out.start_logits, out.end_logits], -1) if spans else out.logits)[0].numpy()
    np.savez(at / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits)
    size = sum(path.stat().st_size for path in at.iterdir())
    print(f"{name}: {size} bytes, largest logit {np.abs(logits).max():.2f}")


if __name__ == "__main__":
    for one in sys.argv[1:] or FAMILIES:
        make(one)
