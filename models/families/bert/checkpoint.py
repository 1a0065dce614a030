"""What a Hugging Face folder of a BERT means: the keys of its config.json, and its tensors.

Source of defaults and names: transformers, configuration_bert.py and modeling_bert.py.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from models.configs.encoder import BIASED, FAMILY, EncoderConfig
from models.families.family import HEAD, TABLE, CheckpointTensor
from models.sources.huggingface.keys import activation_of
from models.sources.json_keys import Keys

HEADS = {"BertForQuestionAnswering": "qa_outputs", "BertForTokenClassification": "classifier"}
"""Architectures with a head for each token, and what they call it."""
_SPANS = 2  # begin and end of an answer, of each token


def read(keys: Keys, name: str) -> EncoderConfig:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    made = keys.get("architectures")
    head = made[0] if isinstance(made, list) and len(made) == 1 else made
    if head not in HEADS:
        raise keys.error("architectures", made, f"a head of each token is computed: {', '.join(HEADS)}")
    kind = keys.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise keys.error("position_embedding_type", kind, "only absolute positions are computed")
    for key in ("tie_word_embeddings", "architectures", "num_labels"):
        keys.get(key)  # no head of ours is the table
    heads, hidden = keys.stated("num_attention_heads", 12), keys.stated("hidden_size", 768)
    if hidden % heads:
        raise keys.error("num_attention_heads", heads, f"it must divide hidden_size, {hidden}")
    return EncoderConfig(
        name=name,
        layers=keys.stated("num_hidden_layers", 12),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=keys.stated("intermediate_size", 3072),
        vocab=keys.stated("vocab_size", 30_522),
        tied=False,
        rope_theta=10_000.0,
        eps=keys.number("layer_norm_eps", 1e-12),
        max_context=keys.stated("max_position_embeddings", 512),
        source=f"config.json of the Hugging Face folder {name}",
        activation=activation_of(keys, default="gelu"),
        family=FAMILY,
        biased=BIASED,
        labels=_labels(keys, head),
        types=keys.stated("type_vocab_size", 2),
        spans=head == "BertForQuestionAnswering",
    )


def _labels(keys: Keys, head: str) -> int:
    """As many as are named; two where nobody says."""
    named = keys.get("id2label")
    labels = len(named) if isinstance(named, dict) and named else keys.integer("num_labels", _SPANS)
    if head == "BertForQuestionAnswering" and labels != _SPANS:
        raise keys.error("id2label", named, f"begin and end of an answer are {_SPANS} numbers of each token")
    return labels


def _first(values: Shaped[np.ndarray, "types hidden"]) -> Shaped[np.ndarray, " hidden"]:
    return values[0]


def tensors(config: EncoderConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    hidden, ffn = config.hidden, config.ffn

    def vectors(ours: str, theirs: str) -> Iterator[CheckpointTensor]:
        for path, name in (("gain", "weight"), ("bias", "bias")):
            yield CheckpointTensor(path=f"{ours}.{path}", name=f"{theirs}.{name}", shape=(hidden,))

    def linear(ours: str, theirs: str, out: int, width: int) -> Iterator[CheckpointTensor]:
        yield CheckpointTensor(path=ours, name=f"{theirs}.weight", shape=(out, width))
        yield CheckpointTensor(path=f"{ours}.bias", name=f"{theirs}.bias", shape=(out,))

    table = "bert.embeddings"
    for path, name, rows in (
        (TABLE, "word", config.vocab),
        ("positions.table", "position", config.max_context),
    ):
        name = f"{table}.{name}_embeddings.weight"
        yield CheckpointTensor(path=path, name=name, shape=(rows, hidden), table=True)
    yield CheckpointTensor(
        path="types",
        name=f"{table}.token_type_embeddings.weight",
        shape=(config.types, hidden),
        made=(_first, (hidden,)),
    )
    yield from vectors("norm", f"{table}.LayerNorm")
    for i in range(config.layers):
        ours, theirs = f"layers.{i}.attention", f"bert.encoder.layer.{i}.attention"
        for name, long in (("q", "query"), ("k", "key"), ("v", "value")):
            yield from linear(f"{ours}.{name}", f"{theirs}.self.{long}", hidden, hidden)
        yield from linear(f"{ours}.o", f"{theirs}.output.dense", hidden, hidden)
        yield from vectors(f"{ours}.norm", f"{theirs}.output.LayerNorm")
        ours, theirs = f"layers.{i}.ffn", f"bert.encoder.layer.{i}"
        yield from linear(f"{ours}.up", f"{theirs}.intermediate.dense", ffn, hidden)
        yield from linear(f"{ours}.down", f"{theirs}.output.dense", hidden, ffn)
        yield from vectors(f"{ours}.norm", f"{theirs}.output.LayerNorm")
    head = "qa_outputs" if config.spans else "classifier"
    yield from linear(HEAD, head, config.labels, hidden)
