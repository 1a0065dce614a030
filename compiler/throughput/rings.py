"""Rings of the whole rack: what the stages scheduled so far have left of every unit, lane and accumulator."""

from compiler.program.isa import LINK
from compiler.throughput.modulo import PlacedRows, Ring
from compiler.throughput.problem import StageRows

Masks = tuple[tuple[int, ...], ...]


class Rings:
    """The rings of the whole rack, in the cycles of a wave; a stage sees them from its base."""

    def __init__(self, interval: int) -> None:
        self.ring = Ring(interval)
        self.free: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self.held: dict[tuple[int, int], tuple[int, ...]] = {}

    def seen(self, stage: StageRows, chips: tuple[int, ...], base: int) -> tuple[Masks, Masks]:
        """(free, held) of a stage's resources and planes."""
        turned, problem = self.ring.turned, stage.problem
        free: list[tuple[int, ...]] = []
        for name, one in zip(_names(stage, chips), stage.resources, strict=True):
            known = self.free.get(name)
            whole = (self.ring.empty,) * one.instances
            free.append(whole if known is None else tuple(turned(mask, base) for mask in known))
        held: list[tuple[int, ...]] = []
        for plane in range(problem.places):
            known = self.held.get((chips[plane // stage.planes], plane % stage.planes))
            none = (0,) * problem.accumulators
            held.append(none if known is None else tuple(turned(mask, base) for mask in known))
        return tuple(free), tuple(held)

    def take(self, stage: StageRows, chips: tuple[int, ...], base: int, placed: PlacedRows) -> None:
        """Keep what a placed stage left of its rings."""
        turned = self.ring.turned
        for name, rings in zip(_names(stage, chips), placed.free, strict=True):
            self.free[name] = tuple(turned(mask, -base) for mask in rings)
        for plane, rings in enumerate(placed.held):
            name = (chips[plane // stage.planes], plane % stage.planes)
            self.held[name] = tuple(turned(mask, -base) for mask in rings)


def _names(stage: StageRows, chips: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """The resources of a stage by class, chip, and peer or plane."""
    return [
        (one.kind, chips[one.rank], chips[one.peer] if one.kind == LINK else one.pin)
        for one in stage.resources
    ]
