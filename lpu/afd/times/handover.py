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
    wire: int,
    latency: int,
    slots: Sequence[int],
    chips: Sequence[tuple[int, ...]],
) -> HandoverTimes:
    """Layers in a row over the NICs (`wire` each), the latency, and their slots on their chips."""
    sent: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    taken: dict[int, int] = {}
    for ready, takes, where in zip(computed, slots, chips, strict=True):
        sent.append(max(sent[-1] if sent else 0, ready) + wire)
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


def events(handover: HandoverTimes, first_token: int) -> Iterator[Event]:
    """A prefill layer by layer, the way of its KV, and the step that takes the last token of the prompt.

    KV down: as long as the NICs send; its latency is what lies between that and its slot at least.
    """
    computed, sent = handover.computed, 0
    groups = list(dict.fromkeys(handover.chips))
    begin = max(0, 2 * computed[0] - computed[1]) if len(computed) > 1 else 0
    for layer, end in enumerate(computed):
        yield Event("GPUs", "prefill", f"layer {layer}", begin, end, "modelled")
        yield Event("bridge", "KV down", f"layer {layer}", max(sent, end), handover.sent[layer], "modelled")
        sent = handover.sent[layer]
        slot = handover.begins[layer], handover.ends[layer]
        thread = f"ingest, group {groups.index(handover.chips[layer])}"
        yield Event("LPUs", thread, f"layer {layer}", *slot, EXACT)
        begin = end
    last = max(handover.ends)
    yield Event("LPUs", "decode", "first token", last, last + first_token, EXACT)
