"""How the router of a layer with experts chooses among them, in numbers alone."""

from typing import Literal, NamedTuple

MOST_EXPERTS = 1024  # of one layer


class Routing(NamedTuple):
    """How a router chooses among its experts, and what the chosen ones count.

    renormalise: the weights are of the chosen alone. shared: experts after those of the router that every row
    takes with weight 1; gated: the one shared expert counts the sigmoid of a logit of its own instead, which
    the router has behind those of its experts. score: softmax of the logits, or the sigmoid of each; what
    follows is of sigmoids: of `groups` equal groups of experts the `keep` best are chosen from; weights are
    times `scale`.
    """

    chosen: int
    renormalise: bool
    shared: int = 0
    score: Literal["softmax", "sigmoid"] = "softmax"
    groups: int = 1
    keep: int = 1
    scale: float = 1.0
    gated: bool = False

    def columns(self, experts: int) -> int:
        """Logits of a router among this many experts."""
        return experts + self.gated

    def refusal(self, experts: int) -> str:
        """Why there is no such choice among this many experts, or nothing."""
        if not 1 <= self.chosen <= experts or experts > MOST_EXPERTS:
            return f"{self.chosen} of {experts} experts: at least 1 is chosen, of {MOST_EXPERTS} at most."
        if not 0 <= self.shared <= MOST_EXPERTS - experts:
            return f"{self.shared} shared experts besides {experts}: there are {MOST_EXPERTS} at most."
        if self.score not in ("softmax", "sigmoid"):
            return f"score {self.score!r}: it takes softmax or sigmoid."
        if self.score == "softmax" and (self.groups, self.keep, self.scale) != (1, 1, 1.0):
            return "groups and a scale are of sigmoid scores."
        if self.gated and (self.shared, self.score) != (1, "softmax"):
            return (
                f"a gate is of one shared expert beside softmax scores, not of {self.shared} by {self.score}."
            )
        if not (0 < self.scale < float("inf")):
            return f"scale {self.scale}: it is above 0."
        size, rest = divmod(experts, max(self.groups, 1))
        fits = not rest and size >= 2 and 1 <= self.keep <= self.groups and self.keep * size >= self.chosen
        if self.groups != 1 and not fits:
            return (
                f"{self.chosen} of {experts} experts in {self.groups} groups, of which {self.keep} are kept: "
                "groups must be equal, of 2 experts at least, and those kept must hold as many as are chosen."
            )
        return ""
