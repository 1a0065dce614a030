"""Makes the tiny checkpoints of gpt-oss in variants/ and their expected logits, with transformers.

`gpt-oss` is in bf16, `gpt-oss-mxfp4` has its experts in MXFP4, whose values are those of transformers' own
reader. Not part of the test suite. In an environment of its own:
    pip install torch==2.13.0 transformers==5.24.0 safetensors && python make_gpt_oss_fixtures.py
Written with torch 2.13.0+cpu, transformers 5.24.0.
"""

# pyright: basic, reportMissingImports=false

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

HERE = Path(__file__).parent / "variants"
TOKENS, VOCAB, BIASES = 12, 64, 3.0  # biases so large that gate and up reach what clips them
CONFIG: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 5,
    "max_position_embeddings": 256,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150_000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 8,
    },
    "attn_implementation": "eager",
    "experts_implementation": "eager",
}
PACKED = ("gate_up_proj", "down_proj")


def drawn(generator: torch.Generator) -> GptOssForCausalLM:
    """A model whose weights are bf16 values, held in f32."""
    model = GptOssForCausalLM(GptOssConfig(**CONFIG)).float()
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            k = tensor.shape[-2] if path.endswith(PACKED) else tensor.shape[-1]
            size = BIASES if path.endswith("proj_bias") else 1.0 if path.endswith("sinks") else k**-0.5
            value = 1 + 0.1 * noise if path.endswith("norm.weight") else size * noise
            tensor.copy_(value.bfloat16().float())
    return model.eval()


def finish(folder: Path, model: GptOssForCausalLM, tokens: torch.Tensor) -> None:
    """Write expected.npz with tokens [t] and logits [t, vocab]."""
    with torch.no_grad():
        logits = model(tokens).logits[0]
    np.savez(folder / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits.numpy())


def save(folder: Path, model: GptOssForCausalLM, more: dict[str, Any], held: dict[str, torch.Tensor]) -> None:
    """Write config.json and one file of tensors."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    text = json.loads((folder / "config.json").read_text()) | {"dtype": "bfloat16"} | more
    (folder / "config.json").write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in held.items()}, folder / "model.safetensors")


def main(into: Path) -> None:
    """Both folders."""
    generator = torch.Generator().manual_seed(1)
    model = drawn(generator)
    tokens = torch.randint(0, VOCAB, (1, TOKENS), generator=generator)
    held = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    save(into / "gpt-oss", model, {}, held)
    finish(into / "gpt-oss", model, tokens)
    state = dict(model.state_dict())
    for name in [one for one in held if one.endswith(PACKED)]:
        experts, k, out = held.pop(name).shape
        shape = (experts, out, k // 32, 16)
        blocks = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        scales = torch.randint(120, 127, shape[:3], generator=generator, dtype=torch.uint8)
        held |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        state[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).reshape(experts, k, out)
    model.load_state_dict(state)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    quantised = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    save(into / "gpt-oss-mxfp4", model, {"quantization_config": quantised}, held)
    finish(into / "gpt-oss-mxfp4", model, tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
