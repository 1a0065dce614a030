"""The verb `study`: one question asked of many models."""

from dataclasses import dataclass
from typing import Annotated

from compiler.errors import OptionError
from compiler.options import Option
from lpu.cli.terminal import TERMINAL, progress

WHATS = ("context",)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudiedAt:
    """At which contexts, on which rack, with programs or without."""

    contexts: Annotated[
        str,
        Option("--contexts", "Tokens of a sequence: a list, or a range that doubles.", metavar="8k..1M"),
    ] = "8k..1M"
    rack: Annotated[str, Option("--rack", "A catalog name (lpu racks) or a rack file.", metavar="RACK")] = (
        "lpx"
    )
    programs: Annotated[
        bool, Option("--programs/--no-programs", "Compile the models that can be, at every context.")
    ] = True


def study(
    asked: StudiedAt,
    what: Annotated[str, Option("WHAT", "The question: context.")],
    models: Annotated[str, Option("MODELS", "Names of models (lpu models), with commas between.")],
) -> None:
    """How far a rack's SRAM goes as contexts grow: KV and states of a user, users, cycles, tokens.

    Examples:
      lpu study context llama-3.1-8b,falcon-h1-7b,mamba2-2.7b --contexts 8k..1M
      lpu study context deepseek-v3 --contexts 8k,1M --no-programs --json
    """
    if what not in WHATS:
        raise OptionError("study", what, "is no question", f"Ask for one of {', '.join(WHATS)}.")
    from lpu import api
    from lpu.study.context import HEADERS, KINDS

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.study_context(
            models, rack=asked.rack, contexts=asked.contexts, programs=asked.programs, progress=bar
        )
    terminal.table(HEADERS, found.table())
    for one in found.refused():
        terminal.say(one)
    terminal.facts(
        [
            ("rack", f"{found.rack}; projection; weights one byte a parameter, KV fp16, states f32"),
            *[(kind, words) for kind, words in KINDS.items()],
        ]
    )
    terminal.result(found.to_json())


VERBS = (study,)
