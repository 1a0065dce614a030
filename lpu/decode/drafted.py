"""What speculative decode on racks gave, and what its rounds take."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from compiler.program.program import Program
from lpu.decode.generate import Ids
from lpu.decode.speculate import Speculation
from lpu.report.words import EXACT, kind, label_of
from lpu.screen import OnScreen, fact_lines

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCycles:
    """One round: k + 1 steps of the drafter, then the chunks of all sequences through the verifier."""

    drafting: int
    verifying: int

    @property
    def total(self) -> int:
        """One side after the other."""
        return self.drafting + self.verifying


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Drafted(OnScreen):
    """A speculative decode on racks. program, verifier: of the big model; drafter: of the small one.

    draft_prompt_cycles, verify_prompt_cycles: what the sides take for the prompts, each on its own chips.
    ends: tokens after which a sequence is over, whatever the rounds gave it behind them.
    """

    program: Program
    verifier: Program
    drafter: Program
    speculation: Speculation
    rounds: tuple[RoundCycles, ...]
    draft_prompt_cycles: int
    verify_prompt_cycles: int
    ends: frozenset[int] = frozenset()

    @property
    def tokens(self) -> Ids:
        """New tokens by sequence: those of the big model's greedy decode."""
        every = self.speculation.tokens
        over = [[token in self.ends for token in one] for one in every]
        return tuple(one[: [*found, True].index(True) + 1] for one, found in zip(every, over, strict=True))

    @property
    def cycles_per_token(self) -> float:
        """Cycles of all rounds by the tokens that a sequence got in them, on average; 0 without rounds."""
        emitted = sum(sum(one.emitted) for one in self.speculation.rounds) / max(
            1, len(self.speculation.tokens)
        )
        return sum(one.total for one in self.rounds) / emitted if emitted else 0.0

    @property
    def facts(self) -> Facts:
        """In names and values."""
        found, clock = self.speculation, self.program.manifest.clock_hz
        step, chip = self.program.manifest.cycles, self.program.manifest.chip.name
        rounds = [
            (
                "round" if len([*same]) == 1 else "rounds",
                f"{found.k} drafts and a step to catch up {one.drafting:,} + verify {found.k + 1} rows "
                f"{one.verifying:,} = {one.total:,} cycles = {one.total * 1e6 / clock:.2f} us ({kind(chip)})",
            )
            for one, same in groupby(self.rounds)
        ]
        return [
            ("drafter", f"{self.drafter.manifest.model.name} on {self.drafter.manifest.rack}, {self._where}"),
            *rounds,
            (
                "drafts",
                f"{len(self.rounds)} rounds, {found.accepted} of {found.drafted} drafts became tokens, "
                f"{found.tokens_per_verify:.2f} tokens a round and sequence",
            ),
            (
                "latency",
                f"{self.cycles_per_token:,.0f} cycles = {self.cycles_per_token * 1e6 / clock:.2f} us per "
                f"token of the rounds; a decode step alone takes {max(step.values()):,} ({kind(chip)}; ids "
                "that cross are not counted)",
            ),
        ]

    @property
    def _where(self) -> str:
        ours, theirs = self.verifier.manifest, self.drafter.manifest
        used = [{chip for group in one.groups for chip in group} for one in (ours, theirs)]
        apart = ours.rack == theirs.rack and not used[0] & used[1]
        return "on chips of the same rack that the verifier leaves free" if apart else "a rack of its own"

    def __str__(self) -> str:
        lines = [(f"ids {i}", str(one)) for i, one in enumerate(self.tokens)]
        return fact_lines([*lines, *self.facts])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found, manifest = self.speculation, self.program.manifest
        return {
            "schema": "lpu-drafted/1",
            "kind": EXACT,
            "label": label_of(manifest.chip.name),
            "sequences": [
                {"prompt_ids": list(prompt), "token_ids": list(tokens)}
                for prompt, tokens in zip(found.prompts, self.tokens, strict=True)
            ],
            "drafts": found.k,
            "rounds": [{"drafting": one.drafting, "verifying": one.verifying} for one in self.rounds],
            "accepted": found.accepted,
            "drafted": found.drafted,
            "tokens_per_round": found.tokens_per_verify,
            "cycles_per_token": self.cycles_per_token,
            "prompt_cycles": {"draft": self.draft_prompt_cycles, "verify": self.verify_prompt_cycles},
            "clock_hz": manifest.clock_hz,
            "program_sha256": manifest.digest,
            "verifier_sha256": self.verifier.manifest.digest,
            "drafter_sha256": self.drafter.manifest.digest,
        }
