"""Makes the tiny checkpoints beside this file and their expected logits, with transformers and PyTorch.

Not part of the test suite. In an environment of its own:
    pip install torch==2.13.0 transformers==5.23.0 safetensors && python make_fixtures.py
Written with torch 2.13.0+cpu, transformers 5.23.0.
"""

# pyright: basic, reportMissingImports=false

import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
TOKENS = 12

LLAMA = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,  # of 8 pairs one keeps its speed, one blends, six are slowed
    },
)
QWEN3 = Qwen3Config(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,  # heads x head_dim is not hidden
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
)


def make(name: str, model: PreTrainedModel, shard: str) -> None:
    """Write one folder: config.json, safetensors, expected.npz with tokens [t] and logits [t, vocab]."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            width = tensor.shape[-1] ** -0.5
            tensor.copy_(1 + 0.1 * noise if path.endswith("norm.weight") else width * noise)
    if model.config.tie_word_embeddings:
        model.tie_weights()
    model.eval()
    tokens = torch.randint(0, 256, (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model(tokens).logits[0]
        round_turns(model.model.rotary_emb)
        rounded = model(tokens).logits[0]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez(
        folder / "expected.npz",
        tokens=tokens[0].numpy().astype(np.int32),
        logits=logits.numpy(),
        logits_rounded_turns=rounded.numpy(),
    )
    print(name, float(logits.std()), float((logits - rounded).abs().max() / logits.abs().max()))


def round_turns(rotary: torch.nn.Module) -> None:
    """Let the model use our contract's RoPE table: cos and sin rounded to 2^-15."""
    exact = rotary.forward

    def forward(*where: torch.Tensor, **named: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.round(turn * 2**15) / 2**15 for turn in exact(*where, **named))

    rotary.forward = forward


def build(kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """The model in f32 with plain attention."""
    config._attn_implementation = "eager"
    return kind(config).float()


if __name__ == "__main__":
    make("tiny-llama", build(LlamaForCausalLM, LLAMA), "5GB")
    make("tiny-qwen3", build(Qwen3ForCausalLM, QWEN3), "200KB")
