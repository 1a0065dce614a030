"""A pod: GPUs of one kind beside one or several racks of LPUs, by the names that the catalog has for them."""

from dataclasses import dataclass

from fabric.chip import Sourced


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """gpus: how many of them; the others are names of the catalog. sources: of `gpus` and of `rack`."""

    name: str
    gpu: str
    gpus: int
    rack: str
    bridge: str
    sources: tuple[Sourced, ...] = ()

    def numbers(self) -> dict[str, int | str]:
        """What needs a source, by name."""
        return {"gpus": self.gpus, "rack": self.rack}
