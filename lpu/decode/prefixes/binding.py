"""What the KV bytes of a model are bound to: hashes of everything that decides them."""

import hashlib
import json
from math import prod
from typing import Any

import jax

from lpu.decode.prefixes.cache import Binding, Layout
from lpu.inputs.model import OpenModel
from lpu.inputs.text import BYTE_VOCAB
from models.rope_scaling import LongRopeScaling

POSITIONS = ("head_dim", "rope_theta", "rope_scaling")
IDLE = ("name", "source", "max_context", "published_parameters", "vocab", "tied")  # decide no bit of K and V


def binding_of(model: OpenModel, *, tp: int = 1, pp: int = 1, adapter: str = "") -> Binding:
    """The binding of an open model. tp, pp: chips that its KV is sharded over; adapter: its name or hash.

    weights: the digest in the program's manifest. tokenizer: sha256 of tokenizer.json, "bytes" or "none".
    positions: hash of RoPE's base, scaling and width. arithmetic: hash of the other numbers of the
    configuration. For a user's module the last two are hashes of its constants and of its traced step.
    """
    step = model.chunks(1, batch=1)
    layers, kept = step.cache.k, step.cache.state
    heads, lanes = layers[0].shape[2:] if layers else (1, 1)
    if model.config is None:
        positions = model.about.parameters
        arithmetic = hashlib.sha256(str(jax.make_jaxpr(step.fn)(*step.inputs())).encode()).hexdigest()
    else:
        numbers = model.config.to_fields()
        positions = _hash({name: numbers[name] for name in POSITIONS})
        others = {name: value for name, value in numbers.items() if name not in (*POSITIONS, *IDLE)}
        scaling = model.config.rope_scaling
        if isinstance(scaling, LongRopeScaling):
            others["long_factors"] = step.context > scaling.original_max_position
        arithmetic = _hash(others)
    return Binding(
        weights=model.about.weights_digest,
        tokenizer=_tokenizer(model),
        positions=positions,
        arithmetic=arithmetic,
        kv=step.kv,
        layout=Layout(
            layers=len(layers),
            kv_heads=heads,
            head_dim=lanes,
            tp=tp,
            pp=pp,
            states=sum(prod(leaf.shape[1:]) for leaf in kept),
        ),
        adapter=adapter,
    )


def _tokenizer(model: OpenModel) -> str:
    path = model.folder / "tokenizer.json" if model.folder else None
    if path is not None and path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "bytes" if model.vocab == BYTE_VOCAB else "none"


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
