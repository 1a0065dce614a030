"""The machines of the cases, from the catalog: GroqChip1, its nodes and racks; and the LPX."""

from dataclasses import dataclass, replace
from fractions import Fraction

from fabric.catalog import chip_spec, rack_spec
from fabric.chip import WORD_BYTES, ChipSpec, stated
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import Level, RackSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedMachine:
    """What the cases run on. chip: of `spec`, a rack whose levels are the node and the ring of nodes."""

    chip: ChipSpec
    spec: RackSpec
    later: Rack

    def rack(self, nodes: int) -> Rack:
        """A ring of `nodes` nodes, wired by the rule of `spec`."""
        node, ring = self.spec.levels
        return self._built(node, replace(ring, size=nodes))

    def node(self, further_ns: int = 0) -> Rack:
        """One node of eight chips; every hop takes `further_ns` longer."""
        node, _ = self.spec.levels
        return self._built(replace(node, hop_ns=node.hop_ns + further_ns))

    def bytes_per_second(self, lanes: int) -> Fraction:
        """Bytes per second of `lanes` lanes in one direction."""
        return Fraction(lanes * WORD_BYTES * self.chip.clock_hz, self.chip.slot_cycles)

    def _built(self, *levels: Level) -> Rack:
        """A rack of these levels; sizes and hops differ from the catalog's, so no source is carried over."""
        spec = replace(self.spec, levels=levels, sources=())
        return build_rack(replace(spec, sources=stated(spec.numbers(), (), "the case")), self.chip)


def catalog_machine() -> PublishedMachine:
    """The catalog's groqchip1, groqrack-72 and lpx."""
    return PublishedMachine(
        chip=chip_spec("groqchip1"), spec=rack_spec("groqrack-72"), later=load_rack("lpx")
    )
