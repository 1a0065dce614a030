"""Mode pd: GPUs prefill, KV goes to the LPUs layer by layer behind the prefill, the LPUs decode."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from compiler.errors import OptionError
from compiler.options import Option
from lpu.afd.mode import Mode

if TYPE_CHECKING:
    from compiler.program.program import Program
    from lpu.afd.conversations.pd import HandedSteps
    from lpu.afd.question import Question, Timed
    from lpu.decode.conversation import Conversation
    from lpu.decode.prefixes.cache import PrefixCache
    from lpu.gpu.request import Request

HANDOVER_TOKENS = 128
BLOCK_TOKENS = 16
LOCK = "lock"  # in the folder of a server's cache
POLICIES = ("recompute", "copy-back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pd(Mode):
    """Prefill on the GPUs, decode on the LPUs."""

    name: ClassVar[str] = "pd"
    layer: ClassVar[str] = "a layer of the last prefill"

    kv_policy: Annotated[
        str,
        Option(
            "--kv-policy",
            "GPUs recompute the KV of decoded tokens, or the LPUs copy-back theirs.",
            choices=POLICIES,
        ),
    ] = "recompute"
    cached_tokens: Annotated[
        int, Option("--cached-tokens", "of the first prompt, tokens whose KV the GPUs have.")
    ] = 0
    kv_cache: Annotated[
        str | None, Option("--kv-cache", "with --run: a folder of KV to begin with and leave.")
    ] = None

    @property
    def copy_back(self) -> bool:
        """Whether the LPUs send the KV of what they decoded."""
        return self.kv_policy == "copy-back"

    def check(self, request: "Request", *, run: bool) -> None:
        """Raise FileError or OptionError for options that are wrong, or do not go with the request."""
        from lpu.outputs.write import check_folder

        if self.kv_policy not in POLICIES:
            known = ", ".join(POLICIES)
            raise OptionError("options", "--kv-policy", f"is {self.kv_policy!r}", f"Choose one of {known}.")
        replace(request, cached_tokens=self.cached_tokens)
        if self.kv_cache is None:
            return
        if not run:
            remedy = "Add --run. (Of a server: --tokens real.)"
            raise OptionError("options", "--kv-cache", "holds real bytes, and nothing is run", remedy)
        if not (Path(self.kv_cache) / LOCK).is_file():  # a server's folder is looked at when it is opened
            check_folder(self.kv_cache, "--kv-cache")

    def time(self, asked: "Question") -> "Timed":
        """Each turn's prefill, the hand-over of its KV layer by layer, and the steps of the LPUs' program."""
        from lpu.afd.times import pd as times

        cached, store = self.cached_tokens, self._store(asked)
        if store is not None:
            cached = _cached(store, asked)
        return times.timed(asked, replace(asked.request, cached_tokens=cached), self.copy_back)

    def beside(self, asked: "Question") -> None:
        """The program's own slots; prefills and hand-overs as a replay has them. Raises OptionError."""
        usual = Pd()
        for name in ("kv_policy", "cached_tokens"):
            if (given := getattr(self, name)) != getattr(usual, name):
                flag = f"--{name.replace('_', '-')}"
                raise OptionError("serve", flag, f"is {given!r}, a server has no turns", "Leave it out.")
        if self.kv_cache is not None and not asked.machines.gpus:
            reason = "is of KV that GPUs compute, there are 0"
            raise OptionError("serve", "--kv-cache", reason, "Give --gpus, or leave it out.")

    def steps(self, asked: "Question", program: "Program") -> "HandedSteps | None":
        """With --kv-cache: GPUs prefill what it lacks, and KV is handed over; new blocks are kept at once."""
        from lpu.afd.conversations.pd import HandedSteps, PdPrograms
        from lpu.decode.prefixes.binding import binding_of
        from lpu.decode.prefixes.folder import KeptCache

        if self.kv_cache is None:
            return None
        programs = PdPrograms(decode=program, ingest=self.moves(asked, program)["ingest"])
        bound = binding_of(asked.model, tp=asked.machines.gpus)
        return HandedSteps(asked.model, programs, KeptCache(self.kv_cache, bound, BLOCK_TOKENS))

    def moves(self, asked: "Question", program: "Program") -> "Mapping[str, Program]":
        """The programs that write and read the KV of the decode program, in messages of 128 tokens.

        ingest; egress only if decoded KV is copied back. Raises CompileError or HazardError.
        """
        from compiler.moves.handover import compile_egress, compile_ingest
        from lpu.check.check import require
        from lpu.check.memory_image import check_handover

        tokens, bridge = min(HANDOVER_TOKENS, max(program.manifest.contexts)), asked.machines.bridge
        ingest = compile_ingest(program, tokens, bridge)
        egress = compile_egress(program, tokens, bridge) if self.copy_back else None
        made = {"ingest": ingest} | ({} if egress is None else {"egress": egress})
        for one in made.values():
            asked.checked(one)
        if asked.check:
            require(check_handover(program, ingest, egress))
        return made

    def converse(
        self, asked: "Question", program: "Program", moves: "Mapping[str, Program]"
    ) -> "Conversation":
        """KV crosses as the bytes that programs write and read; its prefixes go into --kv-cache."""
        from lpu.afd.bits import users_of
        from lpu.afd.conversations.pd import PdPrograms, converse
        from lpu.decode.prefixes.store import write
        from lpu.outputs.write import atomic_folder

        request = asked.request
        programs = PdPrograms(decode=program, ingest=moves["ingest"], egress=moves.get("egress"))
        users = users_of(request, asked.model)
        kept = nullcontext() if self.kv_cache is None else atomic_folder(self.kv_cache, "--kv-cache")
        with kept as folder:  # held from here on, so that nobody else's blocks are lost
            store = self._store(asked)
            found = converse(
                asked.model, programs, users, request.new_tokens, cache=store, progress=asked.progress
            )
            if folder is not None and store is not None:
                write(folder, store)
        return found

    def _store(self, asked: "Question") -> "PrefixCache | None":
        """Bound to the number of GPUs: their share of each head's KV is another layout."""
        from lpu.decode.prefixes.binding import binding_of
        from lpu.decode.prefixes.cache import PrefixCache
        from lpu.decode.prefixes.store import load

        if self.kv_cache is None:
            return None
        binding = binding_of(asked.model, tp=asked.machines.gpus)
        if Path(self.kv_cache).exists():
            return load(self.kv_cache, binding, BLOCK_TOKENS)
        return PrefixCache(binding, BLOCK_TOKENS)


def _cached(store: "PrefixCache", asked: "Question") -> int:
    """Tokens of every first prompt whose KV the cache has; two of a prompt are always taken."""
    from lpu.afd.bits import users_of

    hits = [store.match(prompt).tokens for prompt in users_of(asked.request, asked.model)[0]]
    return min(*hits, asked.request.prompt_tokens - 2) if hits else 0
