"""The verb that keeps converted weights: convert."""

from typing import Annotated

from compiler.options import Option
from lpu.cli.options import Model, ModelOptions
from lpu.cli.terminal import TERMINAL
from lpu.cli.verb import Only


def convert(
    model: Model,
    output: Annotated[str, Option("-o --output", "Orbax folder to write; must not exist.", metavar="DIR")],
    changes: Annotated[ModelOptions, Only(("weights", "trust"))],
) -> None:
    """Save a model's weights as the rack holds them (e4m3), with Orbax: open them again with orbax:DIR.

    Examples:
      lpu convert ./my-hf-folder -o weights
      lpu compile ./my-hf-folder --weights orbax:weights
    """
    from lpu import api
    from models.sources.packed.convert import changed_of

    terminal = TERMINAL.get()
    opened = api.open_model(model, **changes.given())
    terminal.notes(opened.notes)
    saved = api.save_weights(opened, output)
    errors, changed = opened.weights.relative_errors, changed_of(opened.weights)
    body = {
        "schema": "lpu-convert/1",
        "model": opened.name,
        "folder": output,
        "tensors": len(saved.shapes),
        "weights_sha256": saved.digest(),
        "largest_relative_error": max(errors.values(), default=None),
        "changed_weights": changed and changed.weights,
        "quantised_weights": changed and changed.of,
    }
    terminal.say(f"model       {opened.name}, weights {opened.weights.identity}")
    terminal.say(f"saved       {output}: {len(saved.shapes)} tensors, sha256 {saved.digest()}")
    if errors:
        terminal.say(
            f"quantised   {len(errors)} matrices, largest relative error {max(errors.values()):.2e} (rms)"
        )
    if changed:
        terminal.say(f"converted   {changed}")
    terminal.say(f"open with   --weights orbax:{output}")
    terminal.result(body)


VERBS = (convert,)
