"""A model ready to compile and to run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from compiler.errors import OptionError
from compiler.program.manifest import Manifest, ModelIdentity
from compiler.source import Source
from lpu.inputs.document import FileError
from lpu.inputs.ends import end_tokens
from lpu.inputs.files import ModelFile
from lpu.inputs.text import Tokenizer, tokenizer_for
from lpu.screen import OnScreen
from models.config import TransformerConfig
from models.families.registry import config_of
from models.sources.absent import REMEDY, NoWeights
from models.sources.weights import Weights
from models.step import Step


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpenModel(OnScreen):
    """A model ready to compile and to run. about: its entry in the program's manifest.

    config: None for a user's module. folder: that of a Hugging Face model. file: how another process opens
    the same model; None for a Python callable, which has no name. chunks: `chunks(chunk, batch=)` gives the
    step that takes `chunk` tokens of one sequence, or of each of `batch` sequences. notes: a line for each
    choice that the user may not have meant, such as one of two files.
    """

    step: Step
    chunks: Callable[..., Step]
    weights: Weights
    contexts: tuple[int, ...]
    about: ModelIdentity
    config: TransformerConfig | None = None
    folder: Path | None = None
    file: ModelFile | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        contexts = ", ".join(map(str, self.contexts))
        return f"model {self.name}, weights {self.about.weights}, batch {self.step.batch}, context {contexts}"

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(self.about.name)

    @property
    def encodes(self) -> bool:
        """Whether a step takes all tokens of a sequence, and none follow."""
        return self.config is not None and self.config.encodes

    @property
    def outputs(self) -> int:
        """Numbers that a step leaves for each row: logits of all tokens, or of all labels."""
        return self.vocab if self.config is None else self.config.outputs

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        if self.config is not None:
            return self.config.vocab
        return int(jax.eval_shape(self.step.fn, *self.step.inputs())[0].shape[-1])

    def ends(self) -> frozenset[int]:
        """The tokens that end a sequence: those of its folder and of its tokenizer."""
        tokenizer = self.tokenizer()
        return end_tokens(self.folder) | (tokenizer.ends if tokenizer else frozenset())

    def need_decoder(self, verb: str) -> None:
        """Raise OptionError for an encoder: it makes no tokens."""
        refuse_encoder(verb, self.name, self.config)

    def need_weights(self, verb: str) -> None:
        """Raise FileError for a model that was opened without weights, by the name of what asks for them."""
        if isinstance(self.weights, NoWeights):
            where = self.folder or self.name
            raise FileError(f"{verb}: {where}: no weights to compute with: {self.weights.why}. {REMEDY}")

    def source(self, chunk: int = 1) -> Source:
        """What the compiler takes: the decode step, or the step of a chunk of one sequence."""
        step = self.chunks(chunk) if chunk > 1 else self.step
        chunk = step.chunk
        params, tokens, position, cache = step.inputs()
        return Source(
            step=step.fn,
            params=params,
            tokens=tokens,
            position=position,
            cache=cache,
            contexts=self.contexts,
            model=self.about,
            chunk=chunk,
        )

    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None if it has none."""
        return tokenizer_for(self.vocab, self.folder)


def refuse_encoder(verb: str, name: str, config: TransformerConfig | None) -> None:
    """Raise OptionError if the model is an encoder."""
    if config is not None and config.encodes:
        reason = f"is an encoder: a step takes up to {config.longest} tokens at once and makes 0 new ones"
        raise OptionError(verb, name, reason, "Give a model that decodes; lpu run has an encoder's labels.")


def numbers_of(manifest: Manifest) -> TransformerConfig | None:
    """The numbers of a program's model; None for a user's module. Raises FileError if they make none."""
    fields = manifest.model.config
    try:
        return None if fields is None else config_of(fields)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise FileError(f"model: the numbers in the manifest make no model: {error}") from error


def of_micro_batch(model: OpenModel, rows: int) -> OpenModel:
    """The same model for `rows` sequences."""
    return replace(model, step=model.chunks(1, batch=rows))
