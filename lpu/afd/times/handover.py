"""The hand-over of a turn's KV in time, layer by layer behind the prefill.

Source: facts/afd.md section 3.3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lpu.afd.trace import Event
from lpu.report.words import EXACT


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverTimes:
    """When the layers of a turn's KV are there: picoseconds after the prefill began.

    computed: on the GPUs. sent: when the NICs are done with it. arrived: at the FPGAs, all bytes. begins,
    ends: of the slot in which the chips of the layer take it; a slot is as many cycles as its rows, whatever
    arrives. chips: of each layer, those that take it.
    """

    computed: tuple[int, ...]
    sent: tuple[int, ...]
    arrived: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    chips: tuple[tuple[int, ...], ...]

    @property
    def exposed(self) -> int:
        """Picoseconds from the end of the prefill to the last word in SRAM."""
        return max(self.ends) - self.computed[-1]

    @property
    def hidden(self) -> float:
        """The share of the hand-over, from the first layer's bytes to the last word, behind the prefill."""
        return 1 - self.exposed / (max(self.ends) - self.computed[0])


def stream(
    computed: Sequence[int],
    wire: int | Sequence[int],
    latency: int,
    slots: Sequence[int],
    chips: Sequence[tuple[int, ...]],
) -> HandoverTimes:
    """Layers in a row over the NICs (`wire`, of each or of every one), the latency, slots on their chips."""
    wires = [wire] * len(computed) if isinstance(wire, int) else wire
    sent: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    taken: dict[int, int] = {}
    for ready, takes, where, own in zip(computed, slots, chips, wires, strict=True):
        sent.append(max(sent[-1] if sent else 0, ready) + own)
        begins.append(max(sent[-1] + latency, *(taken.get(chip, 0) for chip in where)))
        ends.append(begins[-1] + takes)
        taken.update(dict.fromkeys(where, ends[-1]))
    return HandoverTimes(
        computed=tuple(computed),
        sent=tuple(sent),
        arrived=tuple(moment + latency for moment in sent),
        begins=tuple(begins),
        ends=tuple(ends),
        chips=tuple(chips),
    )


def events(
    handover: HandoverTimes, first_token: int, kept: Sequence[tuple[int, int, int]] | None = None
) -> Iterator[Event]:
    """A prefill layer by layer, the way of what it leaves, and the step of the last token of the prompt.

    KV down, state down: as long as the NICs send; then comes the latency, and what the slot waits for.
    kept: of each hand-over its layer, and bytes of a token and of states; None: KV of every layer.
    """
    computed, sent = handover.computed, 0
    kept = kept or [(layer, 1, 0) for layer in range(len(computed))]
    groups = list(dict.fromkeys(handover.chips))
    begin = max(0, 2 * computed[0] - computed[1]) if len(computed) > 1 else 0
    for i, (end, (layer, token, state)) in enumerate(zip(computed, kept, strict=True)):
        yield Event("GPUs", "prefill", f"layer {layer}", begin, end, "modelled")
        what = " and ".join(name for name, size in (("KV", token), ("state", state)) if size)
        yield Event("bridge", f"{what} down", f"layer {layer}", max(sent, end), handover.sent[i], "modelled")
        sent = handover.sent[i]
        slot = handover.begins[i], handover.ends[i]
        thread = f"ingest, group {groups.index(handover.chips[i])}"
        yield Event("LPUs", thread, f"layer {layer}", *slot, EXACT)
        begin = end
    last = max(handover.ends)
    yield Event("LPUs", "decode", "first token", last, last + first_token, EXACT)
