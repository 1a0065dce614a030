"""The bridge between GPUs and LPUs: lanes from every LPU to an FPGA, Ethernet beyond it; pods of both."""

from dataclasses import dataclass, fields

from fabric.chip import WORD_BYTES, Sourced


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSpec:
    """Rates in bytes per second and direction, and the latency of one way.

    lpu_bytes_per_second: rate of the host lane of one LPU. rack_bytes_per_second: rate of all bridges of one
    rack of `rack_lpus`. latency_ns: one way, GPU memory to SRAM or back. sources: one per number.
    """

    name: str
    lpu_bytes_per_second: int
    rack_bytes_per_second: int
    rack_lpus: int
    latency_ns: int
    sources: tuple[Sourced, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.numbers().items():
            least = 0 if name == "latency_ns" else 1
            if value < least:
                raise ValueError(f"{name}: bridge {self.name} has {value}, needs at least {least}")
        if self.rack_bytes_per_second < self.rack_lpus:
            raise ValueError(
                f"rack_bytes_per_second: bridge {self.name} has {self.rack_bytes_per_second} for "
                f"{self.rack_lpus} LPUs, needs at least {self.rack_lpus}"
            )

    def numbers(self) -> dict[str, int]:
        """Every number by name, in field order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "sources")}

    def slot_cycles(self, clock_hz: int) -> int:
        """Cycles that the host lane of one LPU needs for one word of 320 bytes, rounded up.

        All lanes of a rack at once are no faster than its bridges.
        """
        rate = min(self.lpu_bytes_per_second, self.rack_bytes_per_second // self.rack_lpus)
        return -(-WORD_BYTES * clock_hz // rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """GPUs of one kind beside one or several racks of LPUs.

    gpus: how many of them; the others are names of the catalog. sources: of `gpus` and of `rack`.
    """

    name: str
    gpu: str
    gpus: int
    rack: str
    bridge: str
    sources: tuple[Sourced, ...] = ()

    def numbers(self) -> dict[str, int | str]:
        """What needs a source, by name."""
        return {"gpus": self.gpus, "rack": self.rack}
