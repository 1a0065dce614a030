"""How far a rack's SRAM goes as contexts grow: dense, latent, windowed attention and hybrids side by side.

What a user keeps is derived from the model's config. Where the model compiles, users, cycles and tokens are
those of a program of objective throughput, and exact for the stated machine. Where it does not, bounds stand
there: room over bytes, and the bytes that a token reads over the SRAM bandwidth of all chips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compiler.errors import CompileError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import Rack
from lpu.figures.contexts import UsersHeld, contexts_figure
from lpu.figures.drawing import Drawing
from lpu.figures.shown import Shown
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.open import open_model
from lpu.report import throughput
from lpu.study.beside import GpusBeside, gpus_beside
from lpu.study.kept import KeptOfSequence, UnknownLayersError, kept_of
from models.catalog import catalog, is_named
from models.published.count import Count, parameters
from models.published.entries import published

HEADERS = (
    *("model", "layers", "context", "KV a user", "state a user", "LPUs a user", "racks"),
    *("users a rack", "cycles a token", "tokens/s a rack", "kind"),
    *("GPUs", "their users", "ms a token of one", "tokens/s of all"),
)
EXACT, DERIVED, MODELLED = "exact", "derived", "modelled"
KINDS = {
    EXACT: "of a program of objective throughput, for the stated machine",
    DERIVED: "bounds without a schedule: room over bytes; bytes that a token reads over SRAM bandwidth",
    MODELLED: "the fewest H200 (1 to 8) that hold the model and a user, KV bf16; one user, then all that fit",
}
"""Of users, cycles and tokens; bytes are always derived, GPUs always modelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """One model at one context; `kind` is that of users, cycles and tokens.

    lpus: a user's SRAM over that of a chip. racks: that one copy of the weights and one user take; users, of
    one copy, and tokens_per_second are of one rack. cycles: of a token of one user. why: no program. gpus:
    beside it; None: 8 do not hold it, or nothing says what GPUs launch for it.
    """

    model: str
    layers: str
    context: int
    kv_bytes: int
    state_bytes: int
    weight_bytes: int
    lpus: float
    racks: int
    users: float
    cycles: int
    tokens_per_second: float
    kind: str
    why: str = ""
    gpus: GpusBeside | None = None

    @property
    def limits(self) -> str:
        """What most of a user's SRAM is."""
        return "state" if self.state_bytes > self.kv_bytes else "kv"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, each number with its kind."""

        def number(value: float | int | None, kind: str) -> dict[str, Any]:
            return {"value": value, "kind": kind}

        return {
            "model": self.model,
            "layers": self.layers,
            "context": self.context,
            "kv_bytes_per_user": number(self.kv_bytes, DERIVED),
            "state_bytes_per_user": number(self.state_bytes, DERIVED),
            "sram_bytes_per_user": number(self.kv_bytes + self.state_bytes, DERIVED),
            "lpus_per_user": number(self.lpus, DERIVED),
            "limits": self.limits,
            "weight_bytes": number(self.weight_bytes, DERIVED),
            "racks": number(self.racks, DERIVED),
            "users_per_rack": number(self.users, self.kind),
            "cycles_per_token": number(self.cycles, self.kind),
            "tokens_per_second_per_rack": number(self.tokens_per_second, self.kind),
            "gpus": number(self.gpus and self.gpus.gpus, MODELLED),
            "gpu_users": number(self.gpus and self.gpus.users, MODELLED),
            "gpu_seconds_per_token": number(self.gpus and self.gpus.seconds, MODELLED),
            "gpu_tokens_per_second": number(self.gpus and self.gpus.tokens_per_second, MODELLED),
            "why_no_program": self.why,
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ContextStudy(Shown):
    """The table, and the rack that it is of."""

    rack: str
    rows: tuple[Studied, ...]

    def table(self) -> list[list[str]]:
        """A line for each model and context."""
        return [
            [
                one.model,
                one.layers,
                f"{one.context:,}",
                f"{one.kv_bytes / 1e6:,.1f} MB",
                f"{one.state_bytes / 1e6:,.1f} MB",
                f"{one.lpus:,.2f}",
                f"{one.racks:,}",
                f"{one.users:,.0f}" if one.users >= 1 else f"{one.users:.2g}",
                f"{one.cycles:,}",
                f"{one.tokens_per_second:,.0f}",
                one.kind,
                *_gpus(one.gpus),
            ]
            for one in self.rows
        ]

    def drawing(self) -> Drawing:
        """Users a rack over the context, a line for each model."""
        series = {
            name: [UsersHeld(row.context, row.users, row.kind) for row in self.rows if row.model == name]
            for name in dict.fromkeys(row.model for row in self.rows)
        }
        return contexts_figure(f"Users a rack on {self.rack} (projection)", series, EXACT)

    def records(self) -> list[dict[str, Any]]:
        """A line for each model and context."""
        return [
            {
                key: value["value"] if isinstance(value, dict) else value
                for key, value in row.to_json().items()
            }
            | {"kind": row.kind}
            for row in self.rows
        ]

    def refused(self) -> list[str]:
        """A line for each reason why there is no program."""
        return list(dict.fromkeys(f"{one.model}: no program: {one.why}" for one in self.rows if one.why))

    def __str__(self) -> str:
        return "\n".join("  ".join(row) for row in [list(HEADERS), *self.table()])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-study-context/1",
            "rack": self.rack,
            "label": "projection",
            "kinds": KINDS,
            "kv": "fp16",
            "states": "f32",
            "weights": "one byte a parameter",
            "rows": [row.to_json() for row in self.rows],
        }


def studied(
    models: Sequence[str],
    rack: Rack,
    contexts: Sequence[int],
    *,
    programs: bool = True,
    progress: Progress = quiet,
) -> ContextStudy:
    """Every model at every context. programs: compile those that can be.

    Raises OptionError for a model that is not known by name, UnknownLayersError for one that is not counted.
    """
    rows: list[Studied] = []
    for i, name in enumerate(models):
        kept, count = _model(name)
        for j, context in enumerate(contexts):
            progress(f"{name} at {context:,}", i * len(contexts) + j, len(models) * len(contexts))
            rows.append(_row(name, kept, count, rack, context, programs=programs))
    return ContextStudy(rack=rack.name, rows=tuple(rows))


def _model(name: str) -> tuple[KeptOfSequence, Count]:
    """What a model keeps, and its parameters: all, and those that a token uses."""
    if name in published():
        entry = published()[name]
        count = parameters(entry.config)
        if count is None and entry.total is not None:
            count = Count(entry.total, entry.active or entry.total)
        if count is None:
            raise UnknownLayersError(f"study: {name}: its parameters are not known. Leave it out.")
        return kept_of(name, entry.config), count
    if not is_named(name):
        raise OptionError("study", name, "is no model that is known by name", "See lpu models.")
    config = catalog(name)
    keys = {
        "model_type": "llama",
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
    }
    return kept_of(name, keys), Count(config.parameters(), config.parameters())


def _row(
    name: str, kept: KeptOfSequence, count: Count, rack: Rack, context: int, *, programs: bool
) -> Studied:
    chip = rack.chip
    kv, state = kept.kv_bytes(context), kept.state_bytes
    room = rack.chips * chip.sram_bytes
    racks = -(-(count.total + kv + state) // room)
    found, why = (
        _program(name, rack, context) if programs and racks == 1 else (None, _unasked(racks, programs))
    )
    read = count.active + kv + state
    floor = -(-read // (racks * rack.chips * chip.sram_bytes_per_cycle))
    users = (racks * room - count.total) // (kv + state) / racks
    return Studied(
        model=name,
        layers=kept.kind,
        context=context,
        kv_bytes=kv,
        state_bytes=state,
        weight_bytes=count.total,
        lpus=(kv + state) / chip.sram_bytes,
        racks=racks,
        users=users if found is None else float(found.users),
        cycles=floor if found is None else found.cycles,
        tokens_per_second=chip.clock_hz / floor / racks if found is None else found.tokens_per_second,
        kind=DERIVED if found is None else EXACT,
        why=why,
        gpus=gpus_beside(name, context),
    )


def _gpus(one: GpusBeside | None) -> tuple[str, ...]:
    if one is None:
        return ("-",) * 4
    return (
        f"{one.gpus} x {one.gpu}",
        f"{one.users:,}",
        f"{1e3 * one.seconds:,.2f}",
        f"{one.tokens_per_second:,.0f}",
    )


def _unasked(racks: int, programs: bool) -> str:
    return f"it takes {racks} racks" if programs else ""


def _program(name: str, rack: Rack, context: int) -> tuple[throughput.Throughput | None, str]:
    """The throughput of a program, or why there is none."""
    try:
        model = open_model(name, context=context, weights="none")
        program = compile_program(model.source(), rack, CompileOptions(objective="throughput"))
    except (CompileError, FileError, ValueError) as error:
        return None, str(error).splitlines()[0]
    return throughput.of(program, context), ""
