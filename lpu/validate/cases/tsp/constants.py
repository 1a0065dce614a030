"""Every constant that was fitted to a published figure, and to which. Nothing else may be fitted.

Two of them exist only for the validation: no program of this project uses them.
"""

from fabric.link import ns_to_cycles
from lpu.validate.cases.fitted import Fitted
from lpu.validate.cases.tsp.machine import PublishedMachine

ALL_REDUCE_SOFTWARE_NS = 368
"""What a phase of a small all-reduce takes beyond hop, slot and addition. Fitted to 722 ns (case 4)."""

INFERENCE_OVERHEAD_CYCLES = 8_310
"""What ResNet-50 takes beyond its products and their drain, once. Fitted: 44.1 k cycles (case 1)."""


def fitted(machine: PublishedMachine) -> tuple[Fitted, ...]:
    """All fitted constants, with the values that they have in this machine."""
    chip, (node, ring) = machine.chip, machine.spec.levels
    hop = ns_to_cycles(node.hop_ns, chip.clock_hz)
    return (
        Fitted(
            name="INFERENCE_OVERHEAD_CYCLES",
            value=f"{INFERENCE_OVERHEAD_CYCLES:,} cycles",
            case=1,
            figure="44.1 k cycles of ResNet-50",
            where="case 1 alone",
        ),
        Fitted(
            name="ALL_REDUCE_SOFTWARE_NS",
            value=f"{ALL_REDUCE_SOFTWARE_NS} ns",
            case=4,
            figure="722 ns per phase of an all-reduce",
            where="case 4 alone",
        ),
        Fitted(
            name=f"{machine.spec.name} hop_ns",
            value=f"{node.hop_ns} ns = {hop} cycles",
            case=5,
            figure="300 ns from SRAM to SRAM",
            where=f"every program for {machine.spec.name}",
        ),
        Fitted(
            name=f"{machine.later.name} hop_ns",
            value=f"{machine.later.spec.levels[0].hop_ns} ns",
            case=5,
            figure="350 ns from SRAM to SRAM",
            where=f"every program for {machine.later.name}",
        ),
        Fitted(
            name=f"{chip.name} slot_cycles",
            value=f"{chip.slot_cycles} cycles = {float(machine.bytes_per_second(1)) / 1e9:.3f} GB/s per link",
            case=6,
            figure="427 GB/s past no dead node",
            where=f"every program for {machine.spec.name}",
        ),
        Fitted(
            name=f"{machine.spec.name} ports",
            value=ring.ports,
            case=6,
            figure="diameter 5 of 136 chips",
            where=f"every program for {machine.spec.name}",
        ),
    )
