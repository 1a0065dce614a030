"""What the manifest states, as the numbers and arrays that the rules need."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from compiler.program.isa import WORD_BYTES, Kernel
from compiler.program.manifest import Manifest, Move, Step, Waves

_COUNTS = ("planes", "sram_bytes", "sram_bytes_per_cycle", "accumulators", "vxm_chains", "activation_ports")
_DELAYS = ("mxm_fill_cycles", "vxm_latency_cycles", "lane_reduce_cycles")
_MOST = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """The machine, the memory map and the outputs of a manifest.

    kind: of the program; moves: the kind of a program that moves KV, else nothing. words: of the SRAM of a
    chip. regions: base and words, in the order of `REGIONS`. link[chip * chips + peer] is an index of
    `lanes`, `hop` and `slot`, or -1. logits: chip, word and line; token: chip and word, none where no token
    is left.
    """

    kind: str
    moves: str
    chips: int
    rows: int
    sequences: int
    chunk: int
    words: int
    planes: int
    chains: int
    accumulators: int
    ports: int
    plane_bytes: int
    mxm_fill: int
    vxm_latency: int
    lane_reduce: int
    forward: int
    kernels: tuple[Kernel, ...]
    regions: Int[np.ndarray, "chips 3 2"]
    link: Int[np.ndarray, " pairs"]
    lanes: Int[np.ndarray, " links"]
    hop: Int[np.ndarray, " links"]
    slot: Int[np.ndarray, " links"]
    logits: Int[np.ndarray, "lines 3"]
    token: Int[np.ndarray, "tokens 2"]

    @staticmethod
    def of(manifest: Manifest) -> "Stated":
        """The numbers of a manifest.

        Raises ValueError where one is out of range, or a link or the token makes no sense.
        """
        _in_range(manifest)
        chip, body, regions, links = (
            manifest.chip,
            manifest.body,
            manifest.region_table(),
            manifest.link_table(),
        )
        token = () if manifest.token is None else manifest.token
        if (manifest.token is not None) != isinstance(body, Step | Waves):
            raise ValueError(f"token: is {manifest.token}, the program is of kind {manifest.kind!r}")
        return Stated(
            kind=manifest.kind,
            moves=body.kind if isinstance(body, Move) else "",
            chips=len(regions),
            rows=manifest.rows,
            sequences=manifest.sequences,
            chunk=manifest.chunk,
            words=chip.sram_bytes // WORD_BYTES,
            planes=chip.planes,
            chains=chip.vxm_chains,
            accumulators=chip.accumulators,
            ports=chip.activation_ports,
            plane_bytes=_plane_bytes(manifest),
            mxm_fill=chip.mxm_fill_cycles,
            vxm_latency=chip.vxm_latency_cycles,
            lane_reduce=chip.lane_reduce_cycles,
            forward=manifest.forward_cycles,
            kernels=manifest.kernels,
            regions=regions,
            link=_between(links, len(regions)),
            lanes=links[:, 2],
            hop=links[:, 3],
            slot=links[:, 4],
            logits=np.array(manifest.logits, np.int64).reshape(-1, 3),
            token=np.array(token, np.int64).reshape(-1, 2),
        )


def _in_range(manifest: Manifest) -> None:
    counts = {name: getattr(manifest.chip, name) for name in _COUNTS}
    counts |= {"rows": manifest.rows, "sequences": manifest.sequences, "chunk": manifest.chunk}
    delays = {name: getattr(manifest.chip, name) for name in _DELAYS}
    delays |= {"forward_cycles": manifest.forward_cycles}
    for least, numbers in ((1, counts), (0, delays)):
        for name, value in numbers.items():
            if not least <= value < _MOST:
                raise ValueError(f"{name} is {value}, must be a whole number of at least {least}")


def _between(links: Int[np.ndarray, "links 5"], chips: int) -> Int[np.ndarray, " pairs"]:
    """Index of the link from one chip to another, -1 for none."""
    if ((links[:, :2] < 0) | (links[:, :2] >= chips)).any() or (links[:, 2:] < [1, 0, 1]).any():
        raise ValueError("links: an end is no chip, or lanes, hop_cycles or slot_cycles are too small")
    pair = links[:, 0] * chips + links[:, 1]
    if len(np.unique(pair)) < len(pair):
        raise ValueError("links: two links join one pair of chips in one direction")
    link = np.full(chips * chips, -1, np.int32)
    link[pair] = np.arange(len(links))
    return link


def _plane_bytes(manifest: Manifest) -> int:
    """Whole bytes that a plane installs per cycle, halves rounded up: docs/timing.md, "Cycles"."""
    chip = manifest.chip
    rate = Fraction(chip.sram_bytes_per_cycle) * Fraction(str(chip.weight_install_frac))
    found = int(rate / chip.planes + Fraction(1, 2))
    if found < 1:
        raise ValueError("weight_install_frac: a plane installs less than one byte per cycle")
    return found
