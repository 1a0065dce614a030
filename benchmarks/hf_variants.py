"""Makes Hugging Face folders of many kinds, with transformers' logits of each: not part of the test suite.

In an environment of its own (transformers 5.24.0, torch 2.13.0+cpu): `python hf_variants.py DIR [NAME ...]`.
Then, in ours, `python benchmarks/hf_agreement.py DIR` says what becomes of each folder.
"""

# pyright: basic, reportMissingImports=false

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TOKENS = 24
BASE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
OWN: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "phi3": {"pad_token_id": 0},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
}
Tensors = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A folder: its model_type, changes of config.json (None: the key is left out) and of the stored tensors.

    truth: what transformers is to load instead of the stored tensors (of fp8: what they stand for).
    """

    name: str
    kind: str
    keys: dict[str, Any] = field(default_factory=dict)
    tensors: Callable[[Tensors], Tensors] = lambda held: held
    truth: Callable[[Tensors], Tensors] | None = None
    shard: str = "5GB"
    nested: bool = False


LLAMA3 = {
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}


def long_rope(pairs: int, original: int, **more: Any) -> dict[str, Any]:
    short, long = [1.0 + 0.1 * i for i in range(pairs)], [2.0 + 0.5 * i for i in range(pairs)]
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original,
        **more,
    }


def ropes(pairs: int) -> dict[str, dict[str, Any]]:
    """Changes of config.json by name, for heads of this many pairs."""
    table: dict[str, dict[str, Any]] = {
        "linear": {"rope_type": "linear", "factor": 2.0},
        "linear-half": {"rope_type": "linear", "factor": 0.5},
        "linear-0": {"rope_type": "linear", "factor": 0.0},
        "linear-negative": {"rope_type": "linear", "factor": -2.0},
        "linear-none": {"rope_type": "linear"},
        "linear-nan": {"rope_type": "linear", "factor": float("nan")},
        "linear-odd-key": {"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1.0},
        "dynamic": {"rope_type": "dynamic", "factor": 2.0},
        "dynamic-0": {"rope_type": "dynamic", "factor": 0.0},
        "llama3": {"rope_type": "llama3", **LLAMA3},
        "llama3-no-original": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": None},
        "llama3-swapped": {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 4.0, "high_freq_factor": 1.0},
        "yarn": {"rope_type": "yarn", **YARN},
        "yarn-not-truncated": {"rope_type": "yarn", **YARN, "truncate": False},
        "yarn-attention": {"rope_type": "yarn", **YARN, "attention_factor": 1.25},
        "yarn-betas": {"rope_type": "yarn", **YARN, "beta_fast": 8, "beta_slow": 2},
        "yarn-mscale": {"rope_type": "yarn", **YARN, "mscale": 0.7, "mscale_all_dim": 1.0},
        "yarn-no-original": {"rope_type": "yarn", "factor": 4.0},
        "longrope-long": long_rope(pairs, 16),
        "longrope-short": long_rope(pairs, 32),
        "longrope-factor": long_rope(pairs, 16, factor=3.0),
        "longrope-attention": long_rope(pairs, 16, attention_factor=1.5),
        "longrope-short-list": {**long_rope(pairs, 16), "long_factor": [1.0]},
        "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5},
        "mystery": {"rope_type": "mystery", "factor": 2.0},
        "no-type": {"factor": 4.0},
        "no-type-llama3": dict(LLAMA3),
        "two-types": {"rope_type": "linear", "type": "dynamic", "factor": 2.0},
        "two-equal-types": {"rope_type": "linear", "type": "linear", "factor": 2.0},
        "partial": {"rope_type": "default", "partial_rotary_factor": 0.5},
    }
    found: dict[str, dict[str, Any]] = {
        f"rope-{name}": {"rope_parameters": one} for name, one in table.items()
    }
    for name in ("linear", "yarn", "llama3", "dynamic", "longrope-long"):
        old = dict(table[name])
        old["type"] = old.pop("rope_type")
        found[f"rope-old-{name}"] = {"rope_scaling": old, "rope_theta": 10_000.0}
    found["rope-theta"] = {"rope_theta": 500_000}
    found["rope-theta-inside"] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    found["rope-theta-twice"] = {"rope_theta": 1e4, **found["rope-theta-inside"]}
    linear, yarn = table["linear"], table["yarn"]
    found["rope-both-equal"] = {"rope_scaling": linear, "rope_parameters": linear}
    found["rope-both-differ"] = {"rope_scaling": linear, "rope_parameters": yarn}
    outside = {
        key: value for key, value in table["llama3"].items() if key != "original_max_position_embeddings"
    }
    found["rope-original-outside"] = {"rope_parameters": outside, "original_max_position_embeddings": 16}
    found["rope-original-twice"] = {
        "rope_parameters": table["llama3"],
        "original_max_position_embeddings": 32,
    }
    return found


KEYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "one-kv-head": {"num_key_value_heads": 1},
    "all-kv-heads": {"num_key_value_heads": 4},
    "kv-heads-null": {"num_key_value_heads": None},
    "head-dim-20": {"head_dim": 20},
    "gelu": {"hidden_act": "gelu"},
    "gelu-tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "gelu-new": {"hidden_act": "gelu_new"},
    "quick-gelu": {"hidden_act": "quick_gelu"},
    "eps": {"rms_norm_eps": 1e-3},
    "no-eps": {"rms_norm_eps": "absent"},
    "no-act": {"hidden_act": "absent"},
    "no-tie": {"tie_word_embeddings": "absent"},
    "no-positions": {"max_position_embeddings": "absent"},
    "attention-bias": {"attention_bias": True},
    "mlp-bias": {"mlp_bias": True},
    "both-biases": {"attention_bias": True, "mlp_bias": True},
    "not-causal": {"is_causal": False},
    "causal": {"is_causal": True},
    "window-long": {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0},
    "window-context": {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 0},
    "window-short": {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0},
    "window-later": {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2},
    "window-off": {"sliding_window": 8, "use_sliding_window": False},
    "layer-types": {"layer_types": ["full_attention", "full_attention"]},
    "layer-types-window": {
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 8,
        "use_sliding_window": True,
    },
    "softcap": {"final_logit_softcapping": 5.0},
    "multiplier": {"embedding_multiplier": 2.0},
    "unknown-key": {"use_cosine_attention": True},
    "generation-keys": {"temperature": 0.5, "top_p": 0.9, "max_length": 20, "pretraining_tp": 2},
    "experts": {"num_local_experts": 4},
    "encoder-decoder": {"is_encoder_decoder": True},
}


def variants() -> Iterator[Variant]:
    """All of them, in a fixed order."""
    for kind in OWN:
        for name, keys in KEYS.items():
            yield Variant(name=f"{kind}-{name}", kind=kind, keys=keys)
    for kind, pairs in (("llama", 4), ("qwen2", 4), ("phi3", 4)):
        for name, keys in ropes(pairs).items():
            if kind == "phi3" and "longrope" in name:
                keys = keys | {"original_max_position_embeddings": 32 if "short" in name else 16}
            yield Variant(name=f"{kind}-{name}", kind=kind, keys=keys)
    partial = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}}
    yield Variant(name="phi3-partial-three-quarters", kind="phi3", keys=partial)
    yield Variant(name="phi3-partial-beside", kind="phi3", keys={"partial_rotary_factor": 0.5})
    half = {**long_rope(2, 16), "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    beside = {"original_max_position_embeddings": 16}
    yield Variant(name="phi3-partial-longrope", kind="phi3", keys={"rope_parameters": half} | beside)
    yield Variant(name="phi3-original-inside", kind="phi3", keys={"rope_parameters": half})
    su = {**long_rope(4, 16), "type": "su"}
    del su["rope_type"]
    yield Variant(
        name="phi3-su", kind="phi3", keys={"rope_scaling": su, "original_max_position_embeddings": 16}
    )
    yield from stored()


def stored() -> Iterator[Variant]:
    """Folders that differ in what their files hold."""

    def one(name: str, change: Callable[[Tensors], Tensors], kind: str = "llama", **more: Any) -> Variant:
        return Variant(name=f"{kind}-{name}", kind=kind, tensors=change, **more)

    tie = {"tie_word_embeddings": True}
    for dtype in ("float16", "bfloat16", "float64"):
        for kind in ("llama", "qwen2"):
            yield one(
                f"stored-{dtype}", lambda held, d=dtype: {k: v.to(_dtype(d)) for k, v in held.items()}, kind
            )
    yield one("stored-int8", lambda held: held | {_Q: (held[_Q] * 10).to(_dtype("int8"))})
    yield one("stored-e5m2", lambda held: held | {_Q: held[_Q].to(_dtype("float8_e5m2"))})
    yield one("stored-e4m3-bare", lambda held: held | {_Q: held[_Q].to(_dtype("float8_e4m3fn"))})
    yield Variant(name="llama-sharded", kind="llama", shard="40KB")
    yield one("tied-other-head", lambda held: held | {_HEAD: held[_EMBED] * 0.5}, keys=tie)
    yield one("tied-equal-head", lambda held: held | {_HEAD: held[_EMBED].clone()}, keys=tie)
    yield one("tied-only-head", lambda held: _without(held, _EMBED) | {_HEAD: held[_EMBED]}, keys=tie)
    yield one("untied-no-head", lambda held: _without(held, _HEAD))
    yield one("no-norm", lambda held: _without(held, "model.norm.weight"))
    yield one(
        "extra-tensor", lambda held: held | {"model.layers.0.extra.weight": held["model.norm.weight"].clone()}
    )
    yield one("extra-bias", lambda held: held | {_Q.replace("weight", "bias"): held[_Q][:, 0].clone()})
    yield one("inv-freq", lambda held: held | {_SPEEDS: _speeds(1e4)})
    yield one("inv-freq-other", lambda held: held | {_SPEEDS: _speeds(5e5)})
    yield one(
        "smooth-scale", lambda held: held | {_Q.replace("weight", "pre_quant_scale"): held[_Q][0].clone()}
    )
    yield one("scale-of-floats", lambda held: held | {_Q + "_scale": held[_Q][:, :1].clone()})
    for scale in ("tensor", "channel", "channel-flat"):
        for method in ("fp8", "compressed-tensors", "modelopt"):
            yield Variant(
                name=f"llama-fp8-{scale}-{method}",
                kind="llama",
                keys={"quantization_config": {"quant_method": method}},
                tensors=lambda held, s=scale: _fp8(held, s)[0],
                truth=lambda held, s=scale: _fp8(held, s)[1],
            )
    nvfp4 = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
    yield Variant(name="llama-nvfp4", kind="llama", keys=nvfp4, truth=lambda held: held)
    gptq = {"quantization_config": {"quant_method": "gptq"}}
    yield Variant(name="llama-gptq", kind="llama", keys=gptq, truth=lambda held: held)
    yield Variant(name="llama-nested", kind="llama", nested=True, truth=lambda held: held)
    yield Variant(name="qwen2-nested", kind="qwen2", nested=True, truth=lambda held: held)


_Q, _HEAD, _EMBED = "model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "model.embed_tokens.weight"
_SPEEDS = "model.layers.0.self_attn.rotary_emb.inv_freq"


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _speeds(theta: float) -> Any:
    import torch

    return 1.0 / theta ** (torch.arange(0, 8, 2, dtype=torch.float32) / 8)


def _without(held: Tensors, name: str) -> Tensors:
    return {key: value for key, value in held.items() if key != name}


def _fp8(held: Tensors, scale: str) -> tuple[Tensors, Tensors]:
    """(e4m3 codes with their scales, the values that they stand for)."""
    stored, values = dict(held), dict(held)
    for name, tensor in held.items():
        if "_proj" not in name:
            continue
        size = tensor.abs().amax() if scale == "tensor" else tensor.abs().amax(dim=1, keepdim=True)
        step = size / 448
        codes = (tensor / step).to(_dtype("float8_e4m3fn"))
        stored[name], values[name] = codes, codes.float() * step
        stored[name + "_scale"] = step.reshape(-1) if scale == "channel-flat" else step
        stored[name.replace("weight", "input_scale")] = size * 0 + 1
    return stored, values


def make(folder: Path, names: list[str]) -> None:
    """Write every folder, or those named, with `expected.npz`, or `refused.txt` where transformers raises."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    for number, one in enumerate(variants()):
        if names and one.name not in names:
            continue
        at = folder / one.name
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        changed = BASE | OWN[one.kind] | {"model_type": one.kind} | one.keys
        keys = {key: value for key, value in changed.items() if value != "absent"}
        try:
            plain = {key: value for key, value in keys.items() if key != "quantization_config"}
            (at / "config.json").write_text(json.dumps(plain))
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(at)).float()
            generator = torch.Generator().manual_seed(number)
            for name, tensor in model.named_parameters():
                noise = torch.randn(tensor.shape, generator=generator)
                small = 0.2 * noise if name.endswith("bias") else tensor.shape[-1] ** -0.5 * noise
                tensor.data.copy_(1 + 0.1 * noise if name.endswith("norm.weight") else small)
            held = {name: value.detach().clone() for name, value in model.state_dict().items()}
            if model.config.tie_word_embeddings:
                held.pop(_HEAD, None)
            kept = one.tensors(held)
            save_file(
                kept if one.truth is None else one.truth(held), at / "model.safetensors", {"format": "pt"}
            )
            loaded = AutoModelForCausalLM.from_pretrained(
                at, dtype=torch.float32, attn_implementation="eager"
            )
            tokens = torch.randint(0, BASE["vocab_size"], (1, TOKENS), generator=generator)
            with torch.no_grad():
                logits = loaded.eval()(tokens).logits[0].numpy()
            np.savez(at / "expected.npz", tokens=tokens[0].numpy().astype(np.int32), logits=logits)
            if one.shard != "5GB":
                (at / "model.safetensors").unlink()
                loaded.save_pretrained(at, max_shard_size=one.shard)
            elif one.nested:
                inside = {
                    f"model.language_model.{k.removeprefix('model.')}": v
                    for k, v in kept.items()
                    if k != _HEAD
                }
                vision = {"model.vision_tower.patch.weight": torch.ones(4, 4)}
                save_file({_HEAD: kept[_HEAD]} | inside | vision, at / "model.safetensors", {"format": "pt"})
            else:
                save_file(kept, at / "model.safetensors", {"format": "pt"})
        except Exception as error:
            (at / "refused.txt").write_text(f"{type(error).__name__}: {error}")
        if one.nested:
            keys = {"model_type": "llava", "text_config": keys, "vision_config": {"hidden_size": 4}}
        (at / "config.json").write_text(json.dumps(keys, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of the folders; all of them without")
    given = parser.parse_args()
    make(given.folder, given.names)
