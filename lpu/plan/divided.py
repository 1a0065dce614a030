"""Configurations whose steps the GPUs have a part in: modes afd and draft, each batch and number of GPUs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from compiler.errors import CompileError
from compiler.options import CompileOptions
from lpu.afd.machines import lpus_of, machines
from lpu.afd.mode import Mode
from lpu.afd.modes.draft import Draft
from lpu.afd.registry import MODES
from lpu.folder import Progress
from lpu.inputs.open import Model, open_model
from lpu.plan.options import PlanOptions
from lpu.plan.verdict import Configuration, Judged
from lpu.traffic.beside import lengths_of, served_beside
from lpu.traffic.build import question_of
from lpu.traffic.served import Served
from lpu.traffic.trace import Trace


def mode_of(name: str, asked: PlanOptions) -> Mode:
    """A mode with its usual options."""
    return Draft(drafter=asked.drafter) if name == "draft" else MODES[name]()


def divided(
    model: Model,
    asked: PlanOptions,
    about: dict[str, Any],
    context: int,
    requests: Trace,
    refused: list[Judged],
    progress: Progress,
) -> Iterator[tuple[Configuration, Served]]:
    """Each rack, batch and number of GPUs in each of these modes; what cannot be made is refused."""
    lengths = int(requests.inputs.mean()), int(requests.outputs.mean())
    for name in (one for one in asked.modes if one != "pd"):
        mode = mode_of(name, asked)
        for rack in asked.racks:
            for batch in asked.batches:
                given: dict[str, Any] = {**about, "batch": batch, "context": context, **mode.changes()}
                opened = open_model(model, **given)
                for count in (one for one in asked.gpus if one):
                    there = machines(rack, asked, count)
                    chosen = Configuration(
                        rack=rack,
                        objective="latency",
                        batch=batch,
                        context=context,
                        gpus=count,
                        gpu=there.gpu.name,
                        replicas=1,
                        mode=name,
                        users=batch,
                    )
                    try:
                        asks = question_of(
                            "plan", mode, opened, there, lengths, CompileOptions(), progress=progress
                        )
                        found = mode.beside(asks)
                    except CompileError as error:
                        refused.append(Judged(configuration=chosen, reason=" ".join(str(error).split())))
                        continue
                    assert found is not None
                    made = replace(
                        chosen,
                        replicas=found.gpus.replicas,
                        chips=lpus_of(found.program),
                        tp=found.program.manifest.tp,
                    )
                    yield made, served_beside(found, batch, lengths_of(context))
