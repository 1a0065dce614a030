"""The time to the first token of a served model under a closed load, with its wait behind other prompts.

    first token = host_ms + sequence_ms x batch + prompt x P + queue x (batch - 1) / 2 x P + steps x step

P: a prompt by itself, operators one after another. (batch - 1) / 2 x P is the mean wait where `batch`
requests come at once and prompts are taken one by one; of a load of R rounds it meets the first round, so
`queue` is about 1 / R: tables do not tell R. steps: of the decode, that a prompt waits for. Source: form
chosen on, numbers fitted to, the rows of docs/gpu.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fabric.gpu import GpuSpec
from lpu.gpu.served.engine import Engine, engine
from lpu.gpu.served.shape import StepShape
from lpu.gpu.served.step import Serving, bodies, served_step
from lpu.inputs.document import parse, read_document

LOADS = Path(__file__).parent / "first_tokens.yaml"
LIMITS: dict[str, tuple[float, float]] = {
    "host_ms": (0, 1000),
    "sequence_ms": (0, 20),
    "prompt": (0, 20),
    "queue": (0, 1.2),
    "steps": (0, 50),
}
"""By name, between what a fit may choose."""

NAMES = tuple(LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLoad:
    """How one collection of rows was sent to an engine, and what that one adds, as numbers.

    gpus: kinds that the collection ran on. band, unseen: half-widths that hold 90 % of its rows, each
    predicted without those of its lengths, or without those of its model, format and GPU (None: there is one
    such group).
    """

    name: str
    engine: str
    gpus: tuple[str, ...]
    band: float
    rows: int
    unseen: float | None = None
    numbers: dict[str, float]

    def __post_init__(self) -> None:
        if list(self.numbers) != list(NAMES):
            raise ValueError(f"numbers: {', '.join(self.numbers)} are not {', '.join(NAMES)}")

    @property
    def serves(self) -> Engine:
        """The engine itself, whose steps a prompt waits for."""
        return engine(self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    loads: list[ServedLoad]


@cache
def loads() -> Mapping[str, ServedLoad]:
    """Those of the package, by name."""
    return {one.name: one for one in parse(_File, read_document(LOADS)).loads}


def load_of(engine: str, gpu: str) -> ServedLoad | None:
    """The load of an engine's rows on a kind of GPU, if there are any."""
    return next((one for one in loads().values() if one.engine == engine and gpu in one.gpus), None)


def waits(spec: GpuSpec, shape: StepShape, how: Serving, by: Engine) -> Mapping[str, float]:
    """What each number of a load multiplies, in seconds."""
    prompt = bodies(spec, shape, how)["prefill"] * how.outputs / how.batch
    return {
        "host_ms": 1e-3,
        "sequence_ms": how.batch * 1e-3,
        "prompt": prompt,
        "queue": (how.batch - 1) / 2 * prompt,
        "steps": served_step(spec, shape, how, by).seconds,
    }


def first_token(spec: GpuSpec, shape: StepShape, how: Serving, by: ServedLoad) -> float:
    """Mean seconds to the first token."""
    asked = waits(spec, shape, how, by.serves)
    return sum(by.numbers[name] * asked[name] for name in NAMES)
