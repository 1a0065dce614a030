"""The verb that answers clients of OpenAI: serve."""

import sys
from typing import Annotated, Any

from lpu.cli.afd import ByMode
from lpu.cli.options import Model, ModelOptions, RackOptions
from lpu.cli.serving.replay import Served
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Only
from lpu.serve.options import ServeGpus, ServeOptions


def serve(
    model: Model,
    how: ServeOptions,
    mode: ByMode,
    gpus: ServeGpus,
    options: Served,
    changes: Annotated[ModelOptions, Only(("batch", "context", "kv", "weights", "trust"))],
    on: RackOptions,
) -> None:
    """Serve a model to clients of OpenAI: tokens of the program, times of its schedule (docs/serving.md).

    Examples:
      lpu serve llama-tiny --rack quad --batch 8 --port 8000
      lpu serve llama-3.1-70b --tokens synthetic --objective throughput
      lpu serve llama-tiny --rack quad --mode draft --drafter llama-tiny --gpus 1
    """
    from lpu.serve.start import serve as served

    terminal = TERMINAL.get()
    with progress() as bar:

        def ready(address: str, service: Any) -> None:
            bar.stop()
            about = service.served
            machine = about.machine
            terminal.facts(
                [
                    ("serving", f"{address}/v1 as {about.name}"),
                    ("slots", f"{machine.slots} users, context {machine.longest}"),
                    ("step", _step(about)),
                    ("tokens", f"{about.tokens}, pace {about.pace}"),
                    ("digest", about.digest),
                ]
            )
            terminal.result(
                {"schema": "lpu-serve/1", "address": address, "model": about.name, "slots": machine.slots}
            )
            sys.stdout.flush()

        served(
            model,
            how=how,
            gpus=gpus,
            mode=mode,
            rack=on.named(),
            options=options,
            ready=ready,
            progress=bar,
            **changes.given(),
        )


def _step(about: Any) -> str:
    """What a step takes, at the longest KV."""
    machine = about.machine
    way = "round to round" if about.rounds else "token to token"
    mode = f", mode {about.mode}" if about.mode else ""
    return f"{machine.paces[-1].turn:,} cycles from {way} at {machine.clock_hz:,} Hz{mode}"


VERBS = (serve,)
