"""Writes `published_counts.json` beside this file: parameters of the published models by transformers.

Not part of the test suite. With torch 2.13.0+cpu and transformers 5.24.0, from the root of the repository:
    python tests/models/data/count_published.py
Modules are made on the meta device, so that nothing is allocated. `biases`: those that a router chooses with,
which are stored in checkpoints but are no parameters there.
"""

# pyright: basic, reportMissingImports=false

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
ROWS = HERE.parents[2] / "models" / "published" / "rows"
OTHER_NAMES = {"kimi_k2": "deepseek_v3"}  # the class that the checkpoint names
BLOCKS = {"nemotron_h": "layers_block_type", "granitemoehybrid": "layer_types"}


def configs() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(ROWS.glob("*.yaml")):
        file = yaml.safe_load(path.read_text())
        for name, one in file["models"].items():
            found[name] = {**file.get("common", {}), **one.get("config", {})}
    return found


def written_out(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"cycle", "length"}:
        return [value["cycle"][i % len(value["cycle"])] for i in range(value["length"])]
    if isinstance(value, dict):
        return {key: written_out(one) for key, one in value.items()}
    return value


def main() -> None:
    counts: dict[str, dict[str, int]] = {}
    for name, stated in configs().items():
        config = {key: written_out(value) for key, value in stated.items()}
        kind = config.pop("model_type", None)
        if blocks := config.pop("block_counts", None):
            config[BLOCKS[kind]] = [block for block, count in blocks.items() for _ in range(count)]
        if "full_attention_layers" in config:  # our own word
            full = config.pop("full_attention_layers")
            if isinstance(full, list):
                kinds = ("sliding_attention", "full_attention")
                config["layer_types"] = [kinds[i in full] for i in range(config["num_hidden_layers"])]
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    AutoConfig.for_model(OTHER_NAMES.get(kind, kind), **config)
                )
        except Exception as error:  # no class for it, or a config of which we hold a part
            print(f"{name}: not counted: {error}")
            continue
        every = {id(one): one.numel() for one in model.parameters()}
        biases = sum(one.numel() for key, one in model.named_buffers() if "correction_bias" in key)
        counts[name] = {"parameters": sum(every.values()), "biases": biases}
    (HERE / "published_counts.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
