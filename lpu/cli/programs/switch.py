"""The verb `switch`. Nothing heavy is imported before it runs."""

from contextlib import nullcontext
from typing import Annotated

from compiler.options import CompileOptions, Option
from lpu.cli.options import ModelOptions, RackOptions, model_names
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Only
from lpu.switch.options import SwitchOptions

_SIDE = "a folder of `lpu compile -o`, or a model as `compile` takes it, compiled with the options below."


def switch(
    before: Annotated[str, Option("A", f"What runs: {_SIDE}", names=model_names)],
    after: Annotated[str, Option("B", "What is to run, likewise.", names=model_names)],
    how: SwitchOptions,
    options: Annotated[CompileOptions, Only(("tp", "pp", "cp", "layout", "objective", "users"))],
    changes: ModelOptions,
    on: RackOptions,
    output: Annotated[
        str | None,
        Option("-o --output", "Folder to write B into, with the program that brings it in.", metavar="DIR"),
    ] = None,
) -> None:
    """From model A on a rack to model B: weights from DDR5 beside A or after it, and how long none serves.

    Examples:
      lpu switch llama-tiny smollm2-135m --rack lpx-tray --tp 2
      lpu switch llama-3.1-8b llama-3.1-70b --rack lpx --tp 8 -o after
      lpu switch before after --stopped
      lpu switch before llama-tiny --weights seed:1 --keep-kv
    """
    from lpu import api
    from lpu.folder import save_into
    from lpu.outputs.write import atomic_folder

    terminal = TERMINAL.get()
    with nullcontext() if output is None else atomic_folder(output) as folder, progress() as bar:
        found = api.switch(
            before, after, rack=on.named(), options=options, how=how, progress=bar, **changes.given()
        )
        if folder is not None:
            save_into(folder, found.after, switch=found.program)
    terminal.facts(found.facts)
    if output:
        terminal.say(f"saved       {output}: B, and in {output}/switch what brings it in")
    terminal.result(found.to_json() | {"folder": output})


VERBS = (switch,)
