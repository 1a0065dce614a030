"""The records and values that several verbs take, beside `CompileOptions`. Nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Annotated, Any

from compiler.options import CompileOptions, Option
from lpu.cli.verb import Only

DEFAULT_RACK = "lpx"
OneStep = Annotated[
    CompileOptions,
    Only(("tp", "pp", "cp", "layout", "placement", "seed", "experts", "spill", "step_limit", "cold")),
]
"""What can be chosen of a program that runs one step at a time."""


def numbers(text: str) -> tuple[int, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is no list of numbers") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What overrides the model's file, as `open_model` takes it."""

    batch: Annotated[
        int | None, Option("--batch", "Sequences at once.", least=1, shown="the model file's, or 1")
    ] = None
    context: Annotated[
        tuple[int, ...] | None,
        Option(
            "--context",
            "Context buckets in tokens, ascending: 1024,8192.",
            metavar="N,N",
            parse=numbers,
            shown="the model file's, or 1024, at most the model's longest",
        ),
    ] = None
    kv: Annotated[
        str | None, Option("--kv", "Format of the KV cache: fp16 or fp8.", shown="the model file's, or fp16")
    ] = None
    weights: Annotated[
        str | None,
        Option(
            "--weights",
            "seed:N, safetensors, safetensors:PATH, orbax:PATH, or none to compile only.",
            shown="the model file's, a folder's own, or seed:0",
        ),
    ] = None

    trust: Annotated[bool, Option("--trust", "Import a module:factory that a file names, too.")] = False

    def given(self, sequences: int | None = None) -> dict[str, Any]:
        """What is not left to the model's file; sequences: the batch if the user named none."""
        batch = self.batch or sequences
        every = {"batch": batch, "context": self.context, "kv": self.kv, "weights": self.weights}
        every["trust"] = self.trust or None
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Prompts as texts and as token ids, one for each sequence of the batch."""

    prompt: Annotated[
        tuple[str, ...],
        Option("--prompt", "A prompt; repeat it for a batch.", shown="made-up token ids, if no ids either"),
    ] = ()
    prompt_ids: Annotated[
        tuple[str, ...],
        Option("--prompt-ids", "Token ids 1,2,3; several prompts as 1,2;3,4.", metavar="IDS"),
    ] = ()
    chat: Annotated[
        bool, Option("--chat", "Each --prompt is a user's message, for the folder's chat template.")
    ] = False
    tokens: Annotated[int, Option("--tokens", "New tokens of each sequence.", least=1)] = 16

    def chosen(self) -> list[Any] | None:
        """The prompts in order, texts first; None if there is none."""
        from lpu.inputs.text import parse_ids

        found: list[Any] = [*self.prompt, *(ids for part in self.prompt_ids for ids in parse_ids(part))]
        return found or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How the next token is chosen, and what ends a sequence."""

    temperature: Annotated[
        float, Option("--temperature", "Draw tokens, at this temperature; 0 takes the most likely.", least=0)
    ] = 0.0
    top_k: Annotated[int, Option("--top-k", "Draw among this many of the likeliest; 0: all.", least=0)] = 0
    top_p: Annotated[float, Option("--top-p", "Draw among the most likely of this share together.")] = 1.0
    min_p: Annotated[float, Option("--min-p", "Draw among those of this share of the most likely.")] = 0.0
    sample_seed: Annotated[
        int, Option("--sample-seed", "Of draws: the same token whatever batch or placement.", least=0)
    ] = 0
    stop: Annotated[tuple[str, ...], Option("--stop", "End before this text; repeatable.")] = ()
    ignore_eos: Annotated[bool, Option("--ignore-eos", "Go on after the model's end tokens.")] = False

    def given(self) -> Any:
        """As `api.run` takes it. Raises FileError."""
        from lpu import api
        from lpu.inputs.document import FileError

        if "" in self.stop:
            raise FileError("options: --stop is empty, which every text holds. Give a text, or leave it out.")
        try:
            sampling = api.Sampling(
                seed=self.sample_seed,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
            )
        except ValueError as error:
            raise FileError(f"options: {error}") from None
        return api.RunOptions(sampling=sampling, stop=self.stop, ignore_eos=self.ignore_eos)


def model_names() -> tuple[str, ...]:
    """The models of the catalog, for a shell to complete."""
    from models.catalog import catalog_names

    return catalog_names()


def _racks() -> tuple[str, ...]:
    from fabric.catalog import rack_names

    return tuple(rack_names())


Model = Annotated[
    str,
    Option(
        "MODEL",
        "A catalog name (lpu models), a model file, a Hugging Face folder, or package.module:factory.",
        names=model_names,
    ),
]
ProgramFolder = Annotated[str, Option("PROGRAM", "A folder that lpu compile -o wrote.")]
RackName = Annotated[
    str, Option("--rack", "A catalog name (lpu racks) or a rack file.", metavar="RACK", names=_racks)
]
FaultNames = Annotated[
    tuple[str, ...],
    Option(
        "--fault",
        "A broken part of the rack: chip:17, link:3-4, lane:3-4/2, tray:5, sram:17/0x1000+4096, or a YAML "
        "file of several; repeatable (docs/faults.md).",
        metavar="FAULT",
    ),
]


def rack_with(rack: str, faults: tuple[str, ...]) -> str:
    """The name of a rack with its faults, as every verb takes one. Raises FileError."""
    if not faults:
        return rack
    from lpu.inputs.faults import named_with

    return named_with(rack, faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class RackOptions:
    """A rack, and what of it is broken."""

    rack: RackName = DEFAULT_RACK
    fault: FaultNames = ()

    def named(self) -> str:
        """Both as one text, as every function of the API takes a rack. Raises FileError."""
        return rack_with(self.rack, self.fault)


Prefill = Annotated[
    int | None, Option("--prefill", "Also a program for this many tokens of one prompt at a time.", least=2)
]
Popularity = Annotated[
    str,
    Option(
        "--popularity",
        "How often rows choose each expert, for what the worst routing costs over the mean: uniform, "
        "log-normal:SIGMA, power:ALPHA, or a file of counts.",
        metavar="FORM|FILE",
    ),
]
Stream = Annotated[
    bool | None,
    Option(
        "--stream/--no-stream",
        "Take the weights call by call at every step.",
        shown="if they exceed the memory here",
    ),
]
