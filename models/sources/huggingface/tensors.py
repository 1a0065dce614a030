"""Which tensors of a checkpoint are a model's: names settled, formats and shapes checked, none left unseen.

A tensor that is not used is compared with what is used or computed in its place, or refused by its name.
Source of the names and of what transformers does with them: transformers 5.24, modeling_utils.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from models.config import TransformerConfig
from models.families.family import EMBEDDING, HEAD, LM_HEAD, TABLE, CheckpointTensor
from models.families.registry import family_of
from models.rope import frequencies
from models.sources.error import WeightError
from models.sources.packed.join import joined
from models.sources.packed.tensor import PACKED
from models.sources.quantise import check_finite
from models.sources.safetensor_files import READABLE, StoredTensor

FP8 = "F8_E4M3"
SCALES = ("_scale_inv", "_scale")  # behind `...weight`: of blocks; of the tensor or of rows (or of blocks)
_ACTIVATIONS = (
    *(".input_scale", ".output_scale", ".activation_scale", ".input_activation_scale"),
    *(".k_scale", ".v_scale", ".q_scale", ".prob_scale", ".kv_scale", ".input_zero_point"),
)
_SPEEDS = ".rotary_emb.inv_freq"
_PREFIXES = (
    ("model.language_model.", "model."),  # of models of text and pictures: transformers 5, then 4
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.text_model.", "model."),
)
_OTHER_PARTS = (
    *(
        "model.vision",
        "vision",
        "model.visual",
        "visual",
        "model.multi_modal_projector",
        "multi_modal_projector",
    ),
    *("model.image", "image", "model.audio", "audio", "model.embed_vision", "model.embed_audio"),
    *("mm_projector", "model.mm_projector", "connector", "model.connector"),
)
_LAYER, _DRAFTER = "model.layers.", ".eh_proj.weight"  # of DeepSeek-V3 and those that took its MTP layers
_INDEXER = ".self_attn.indexer."  # of DeepSeek-V3.2 and GLM-5
_PREDICTORS = "mtp."  # the like, of Qwen3-Next and Qwen3.5
_CLOSE = {"F64": 1e-5, "F32": 1e-5, "F16": 2e-3, "BF16": 1e-2}  # of stored speeds, relative

Entries = Mapping[str, StoredTensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A model's tensors by our path, the stored ones by the names that our model has for them, and notes."""

    config: TransformerConfig
    sources: dict[str, CheckpointTensor]
    entries: dict[str, StoredTensor]
    notes: tuple[str, ...]


def settle(folder: Path, config: TransformerConfig, found: Entries, *, nested: bool = False) -> Settled:
    """The tensors of a model among those of its folder. nested: it is the text part of a larger model.

    Raises WeightError for what is missing, has another shape or a format that is not read, or has no place.
    """
    entries, notes = _renamed(joined(found), nested=nested)
    entries, further = _without_drafters(entries, config.layers)
    entries, of_indexers = _without_indexers(entries, config)
    notes += further + of_indexers
    tied = _is_tied(config, entries)
    if tied != config.tied:
        notes.append(
            f"weights: {folder}: {LM_HEAD} differs from {EMBEDDING}, so it is the head, as in transformers, "
            "although tie_word_embeddings is true."
        )
    config = replace(config, tied=tied, column_scales="pow2")
    sources = {one.path: one for one in family_of(config).tensors(config)}
    if config.tied and EMBEDDING not in entries and LM_HEAD in entries:
        for path in (TABLE, HEAD):
            sources[path] = replace(sources[path], name=LM_HEAD)
    _check_names(folder, config, sources, entries)
    for source in sources.values():
        for name in source.names:
            _check_tensor(entries[name], source.shape_of(name), entries)
    alone = [source for source in sources.values() if not (source.stack or source.every or source.half)]
    if any(_has_other_scales(entries[source.name], entries) for source in alone):
        config = replace(config, column_scales="f32")
    idle = [name for name in entries if name.endswith(_ACTIVATIONS)]
    if idle:
        notes.append(
            f"weights: {folder}: {len(idle)} scales of activations and KV ({idle[0]}, ...) are not used: "
            "activations stay fp16."
        )
    return Settled(config=config, sources=sources, entries=entries, notes=tuple(notes))


def scale_of(entry: StoredTensor, entries: Entries) -> StoredTensor | None:
    """The scale beside an fp8 tensor."""
    found = [entries[entry.name + end] for end in SCALES if entry.name + end in entries]
    if len(found) > 1:
        raise WeightError(
            f"{entry.place} has {SCALES[0]} and {SCALES[1]} beside it. Leave the one that is right."
        )
    return found[0] if found else None


def _has_other_scales(entry: StoredTensor, entries: Entries) -> bool:
    """Whether an fp8 matrix has one scale, or one per output, that is no power of two; all are checked."""
    scale = scale_of(entry, entries) if entry.dtype == FP8 else None
    if scale is None:
        return False
    values = scale.floats()
    check_finite(values, scale.place)
    if ((values < np.finfo(np.float32).tiny) & (values != 0)).any():
        raise WeightError(f"{scale.place}: {values.min()} is no scale: it must be 0 or at least 2^-126.")
    whole = values.size == 1 or values.shape in (entry.shape[:1], (entry.shape[0], 1))
    return whole and bool((np.frexp(values)[0] != 0.5).any())


def _renamed(found: Entries, *, nested: bool) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors by the names of a plain decoder, without those of the other parts of a larger model."""
    bare = not nested and "embed_tokens.weight" in found  # saved without the head, so without `model.`
    out: dict[str, StoredTensor] = {}
    others: list[str] = []
    for name, entry in found.items():
        if nested and name.startswith(_OTHER_PARTS):
            others.append(name)
            continue
        for theirs, ours in _PREFIXES if nested else ():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        name = f"model.{name}" if bare and not name.startswith("lm_head.") else name
        out[name] = replace(entry, name=name) if name != entry.name else entry
    if not others:
        return out, []
    what = f"{len(others)} tensors of pictures or sound ({others[0]}, ...)"
    return out, [f"weights: {what} are not used: text only."]


def _without_drafters(
    entries: dict[str, StoredTensor], layers: int
) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors without those of layers behind the last that predict further tokens (MTP), and a note."""
    heads = [name.removesuffix(_DRAFTER).removeprefix(_LAYER) for name in entries if name.endswith(_DRAFTER)]
    behind = tuple(f"{_LAYER}{one}." for one in heads if one.isdecimal() and int(one) >= layers)
    idle = [name for name in entries if name.startswith((*behind, _PREDICTORS))]
    if not idle:
        return entries, []
    own = {name.split(".")[2] for name in idle if name.startswith(f"{_PREDICTORS}layers.")}
    what = (
        f"{len(idle)} tensors of {len(behind) + len(own)} layers that predict further tokens ({idle[0]}, ...)"
    )
    kept = {name: entry for name, entry in entries.items() if not name.startswith((*behind, _PREDICTORS))}
    return kept, [f"weights: {what} are not used."]


def _without_indexers(
    entries: dict[str, StoredTensor], config: TransformerConfig
) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors without those of indexers, which choose every token of a context that is short enough."""
    idle = [name for name in entries if _INDEXER in name] if config.longest < config.max_context else []
    if not idle:
        return entries, []
    kept = {name: entry for name, entry in entries.items() if _INDEXER not in name}
    why = f"to context {config.longest} attention sees every token"
    return kept, [f"weights: {len(idle)} tensors of indexers ({idle[0]}, ...) are not used: {why}."]


def _is_tied(config: TransformerConfig, entries: Entries) -> bool:
    """Whether head and embedding are one: as the config says, unless the file holds another head.

    transformers compares them and does not tie what differs.
    """
    if not config.tied or EMBEDDING not in entries or LM_HEAD not in entries:
        return config.tied
    table, head = entries[EMBEDDING], entries[LM_HEAD]
    if table.shape != head.shape:
        raise WeightError(
            f"{head.place} has shape {list(head.shape)}, {EMBEDDING} {list(table.shape)}, and "
            "tie_word_embeddings is true. Config and checkpoint must be of one model."
        )
    _check_tensor(table, table.shape, entries)
    _check_tensor(head, head.shape, entries)
    scales = [scale_of(one, entries) for one in (table, head)]
    return _equal(table, head) and (None in scales or _equal(*[one for one in scales if one is not None]))


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored tensors of one shape hold the same values, strip by strip."""
    if not one.shape:
        return bool(np.array_equal(one.floats(), other.floats()))
    step = max((1 << 22) // max(int(np.prod(one.shape[1:])), 1), 1)
    return all(
        np.array_equal(one.floats(slice(i, i + step)), other.floats(slice(i, i + step)))
        for i in range(0, one.shape[0], step)
    )


def _check_names(
    folder: Path, config: TransformerConfig, sources: dict[str, CheckpointTensor], entries: Entries
) -> None:
    """Raise unless all that the model takes is there, and what it does not take is known not to matter."""
    wanted = dict.fromkeys(name for source in sources.values() for name in source.names)
    missing = [name for name in wanted if name not in entries]
    scaled = [
        name + end for name in wanted if name in entries and entries[name].dtype == FP8 for end in SCALES
    ]
    unused = family_of(config).unused
    known = {*wanted, *scaled, *([LM_HEAD, EMBEDDING] if config.tied else [])}
    unknown = [
        name
        for name, entry in entries.items()
        if name not in known
        and not _is_of_activations(name, wanted)
        and not name.startswith(unused)
        and not (name.endswith(_SPEEDS) and _are_speeds(entry, config))
    ]
    if missing or unknown:
        raise WeightError(
            f"{folder}: {len(missing)} tensors that config.json asks for are missing "
            f"({', '.join(missing[:3]) or 'none'}), {len(unknown)} have no place in it "
            f"({', '.join(unknown[:3]) or 'none'}). Config and checkpoint must be of one model."
        )


def _is_of_activations(name: str, wanted: Mapping[str, None]) -> bool:
    """Whether a tensor scales activations or KV of a matrix of the model, for machines that quantise them."""
    module = name.rpartition(".")[0]
    inner = module if f"{module}.weight" in wanted else f"{module}.q_proj"
    fits = f"{inner}.weight" in wanted or f"{module}.qkv_proj.weight" in wanted
    return name.endswith(_ACTIVATIONS) and fits


def _are_speeds(entry: StoredTensor, config: TransformerConfig) -> bool:
    """Whether a stored table of RoPE holds the model's own speeds, or those before their scaling."""
    turned = config.turned_lanes or config.head_dim
    if entry.shape != (turned // 2,) or entry.dtype not in _CLOSE:
        return False
    stored: Float32[np.ndarray, " pairs"] = entry.floats()
    theta, scaling, close = config.rope_theta, config.rope_scaling, _CLOSE[entry.dtype]
    return any(
        np.allclose(stored, frequencies(turned, theta, one), rtol=close, atol=6e-8) for one in (None, scaling)
    )


def _check_tensor(entry: StoredTensor, shape: tuple[int, ...], entries: Entries) -> None:
    """Raise for another shape, a format that is not read, or fp8 without what it needs."""
    if entry.shape != shape:
        raise WeightError(
            f"{entry.place} has shape {list(entry.shape)}, config.json makes it {list(shape)}. "
            "Config and checkpoint must be of one model."
        )
    if entry.dtype in PACKED:
        return
    if entry.dtype not in READABLE:
        raise WeightError(
            f"{entry.place} is {entry.dtype}, not {', '.join(READABLE)}. Take the bf16 checkpoint."
        )
    if entry.dtype != FP8:
        return
    scale = scale_of(entry, entries)
    if len(shape) != 2 or scale is None:
        raise WeightError(
            f"{entry.place} is {FP8} {list(shape)} and has no {' or '.join(SCALES)} beside it. "
            "Fp8 takes a matrix with its scale: fetch the whole checkpoint."
        )
    if scale.dtype not in (*READABLE, "F8_E8M0") or scale.dtype == FP8:
        raise WeightError(
            f"{scale.place} is {scale.dtype}, not BF16, F16, F32, F64 or F8_E8M0. Fetch the whole checkpoint."
        )
