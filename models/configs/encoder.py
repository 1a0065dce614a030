"""The numbers of an encoder: all tokens of a sequence are taken at once, and each sees all of them.

Source of the meanings: transformers, modeling_bert.py.
"""

from dataclasses import dataclass

from models.config import TransformerConfig

FAMILY = "bert"
BIASED = ("q", "k", "v", "o", "up", "down")  # every matrix of a layer; there is no gate


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig(TransformerConfig):
    """A BERT with a head for each token. labels: that the head tells apart; max_context: positions learnt.

    spans: whether the labels are the begin and the end of an answer, as checkpoints name the head. types:
    rows of the table of token types, of which the first is added to every token. There is no RoPE: rope_theta
    says nothing.
    """

    labels: int
    types: int = 2
    spans: bool = False

    def __post_init__(self) -> None:
        # TransformerConfig by name: dataclasses with slots are made anew, which super() does not see.
        TransformerConfig.__post_init__(self)
        for name in ("labels", "types"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.name}: {name} is {getattr(self, name)}, the least is 1.")
        if self.heads != self.kv_heads:
            raise ValueError(f"{self.name}: heads {self.heads} and kv_heads {self.kv_heads} must be equal.")
        if self.biased != BIASED:
            raise ValueError(f"{self.name}: biased is {self.biased}, an encoder of this kind has {BIASED}.")
        if self.activation != "gelu_erf":
            raise ValueError(f"{self.name}: activation is {self.activation!r}, only gelu_erf is computed.")

    @property
    def encodes(self) -> bool:
        """Whether a step takes all tokens of a sequence."""
        return True

    @property
    def outputs(self) -> int:
        """Numbers that a step leaves for each row."""
        return self.labels

    def parameters(self) -> int:
        """Exact number of parameters, all token types among them; norms have a gain and a bias."""
        norm = 2 * self.hidden
        tables = (self.vocab + self.max_context + self.types) * self.hidden + norm
        attention = 4 * (self.hidden + 1) * self.hidden + norm
        ffn = (self.hidden + 1) * self.ffn + (self.ffn + 1) * self.hidden + norm
        return tables + self.layers * (attention + ffn) + (self.hidden + 1) * self.labels
