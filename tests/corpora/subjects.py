"""The programs that are mutated and reworded: folders of every kind, each compiled when asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from beside import made_up
from executed import SEEDS, Weights, played
from hopped import hopped
from models_named import of_model
from pairs import compiled_pair, source
from shapes import HEADS, SMALL

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.moves.switch import compile_switch
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from fabric.catalog import bridge_spec
from fabric.rack import load_rack
from lpu.check.check import check
from lpu.check.follow.image import check_switch
from lpu.check.memory_image import check_handover, pair
from lpu.prove.programs import prove_programs
from models.catalog import catalog
from models.config import TransformerConfig
from models.configs.hybrid import HybridConfig
from models.kv import KVFormat
from models.step import Step, family_step

CHUNK = 8
DECODE, PREFILL, INGEST, EGRESS = "decode", "prefill", "ingest", "egress"
BEFORE, SWITCH = "before", "switch"
EXPERTS = replace(catalog("moe-tiny"), vocab=120, max_context=80, experts=6)
LATENT = replace(catalog("mla-tiny"), vocab=120, max_context=80, ffn=176, head_dim=48, rope=16)
LATENT_EXPERTS = replace(
    catalog("deepseek-tiny"), vocab=120, max_context=80, layers=2, ffn=176, experts=8, chosen=2
)
WINDOWS = replace(SMALL, name="windows", window=12, attention_block=16)
GEMMA = replace(
    WINDOWS, name="gemma", kinds=("window", "full"), norms="both", attention_cap=5.0, logit_cap=3.0,
    attention_scale=0.2, embedding_scale=12.5, activation="gelu", qk_norm=True, window_theta=100.0,
)  # fmt: skip
SINKS = replace(
    SMALL, name="sinks", span=16, kinds=("span", "nope"), attention_block=16, sinks=True, residual_scale=0.5,
    logits_scale=0.125,
)  # fmt: skip
STATES = HybridConfig(
    name="states", family="hybrid", layers=2, hidden=96, heads=1, kv_heads=1, head_dim=2, ffn=1, vocab=120,
    tied=False, rope_theta=1e4, eps=1e-5, max_context=80, source="made up for tests", pattern=("M", "M"),
    channels=176, states=5, ssm_heads=176, rank=12, mixer_norm="none",
)  # fmt: skip
BESIDE = replace(
    STATES, name="beside", heads=4, kv_heads=2, head_dim=24, ffn=160, pattern=("PF", "MA"), channels=240,
    states=12, ssm_heads=10, groups=2, rank=0, mixer_norm="gated", step_low=0.01, step_high=0.2,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A program that is changed, as one of those of a folder: decode, prefill, ingest, egress, switch.

    A switch brings the weights of the decode program in, after those of `before`; it is checked, not proved.
    """

    name: str
    role: str
    folder: dict[str, Program]
    weights: Weights

    @property
    def program(self) -> Program:
        return self.folder[self.role]

    def proved(self, program: Program) -> bool:
        """With those that share its memory image."""
        if self.role == SWITCH:
            return True
        held = {**self.folder, self.role: program}
        prefill, ingest, egress = (held.get(name) for name in (PREFILL, INGEST, EGRESS))
        return prove_programs(held[DECODE], prefill, ingest, egress).ok

    def legal(self, program: Program) -> bool:
        """By the rules of each program, and of those with one memory image."""
        contexts = program.manifest.contexts
        if not contexts or not all(check(program, context).ok for context in contexts):
            return False
        held = {**self.folder, self.role: program}
        decode = held[DECODE]
        if self.role == SWITCH:
            return check_switch(held[BEFORE], decode, program).ok
        if PREFILL in held and not pair(decode, held[PREFILL]).ok:
            return False
        return INGEST not in held or check_handover(decode, held[INGEST], held.get(EGRESS)).ok

    def computed(self, program: Program) -> str:
        """The digest of all that it computes."""
        return played(program, self.weights, self.folder[DECODE] if self.role == PREFILL else None)


Folder = tuple[dict[str, Program], Weights]


def _pair(config: TransformerConfig, kv: KVFormat = "fp16", **options: Any) -> Callable[[], Folder]:
    def make() -> Folder:
        step, decode, prefill = compiled_pair(config, CHUNK, kv=kv, **options)
        of = replace(config, max_context=max(decode.manifest.contexts))
        folder = {DECODE: of_model(decode, of, kv), PREFILL: of_model(prefill, of, kv)}
        return folder, _weights(step)

    return make


def _moves() -> Folder:
    held, weights = folder_of("one group")
    decode, bridge = held[DECODE], bridge_spec("spectrum-x")
    moves = {INGEST: compile_ingest(decode, 20, bridge), EGRESS: compile_egress(decode, 20, bridge)}
    return {DECODE: decode, **moves}, weights


def _waves() -> Folder:
    step = family_step(SMALL, batch=1, context=40)
    options = CompileOptions(tp=2, objective="throughput", users=2)
    program = compile_program(source(step, (40,)), load_rack("quad"), options)
    return {DECODE: of_model(program, SMALL)}, _weights(step)


def _hops() -> Folder:
    step, hops, _ = hopped(SMALL, "quad", tp=4, layout="2d")
    return {DECODE: of_model(hops, SMALL)}, _weights(step)


def _switch() -> Folder:
    held, weights = folder_of("one group")
    _, before, _ = compiled_pair(SMALL, CHUNK, tp=1, pp=1, contexts=(30,))
    return {DECODE: held[DECODE], BEFORE: before, SWITCH: compile_switch(before, held[DECODE])}, weights


def _weights(step: Step) -> Weights:
    return tuple(made_up(step, seed) for seed in SEEDS)


BOTH, MOVES = (DECODE, PREFILL), (INGEST, EGRESS)
FOLDERS: dict[str, tuple[tuple[str, ...], Callable[[], Folder]]] = {
    "2d": (BOTH, _pair(SMALL, tp=4, pp=1, layout="2d", contexts=(40, 80))),
    "stripes": (BOTH, _pair(SMALL, "fp8", tp=4, pp=1, cp=2, batch=2)),
    "pipeline": (BOTH, _pair(HEADS, tp=2, pp=2)),
    "one group": (BOTH, _pair(SMALL, tp=2, pp=1, contexts=(30, 60))),
    "moves": (MOVES, _moves),
    "waves": ((DECODE,), _waves),
    "hops": ((DECODE,), _hops),
    "experts": (BOTH, _pair(EXPERTS, tp=2, pp=1, batch=2, contexts=(20, 40))),
    "latent": (BOTH, _pair(LATENT, tp=2, pp=1, batch=2, contexts=(20, 40))),
    "latent experts": (BOTH, _pair(LATENT_EXPERTS, "fp8", tp=2, pp=2, contexts=(30,))),
    "windows": (BOTH, _pair(WINDOWS, tp=2, pp=1, batch=2, contexts=(24, 64))),
    "gemma": (BOTH, _pair(GEMMA, tp=4, pp=1, layout="row", contexts=(30, 60))),
    "sinks": (BOTH, _pair(SINKS, "fp8", tp=2, pp=1, contexts=(40,))),
    "states": (BOTH, _pair(STATES, tp=2, pp=1, batch=2, contexts=(24,))),
    "beside": (BOTH, _pair(BESIDE, tp=2, pp=1, batch=2, contexts=(12, 24))),
    "switch": ((SWITCH,), _switch),
}
NAMES = tuple((name, role) for name, (roles, _) in FOLDERS.items() for role in roles)
"""Every subject: its folder and which program of it."""


@cache
def folder_of(name: str) -> Folder:
    """The programs of a folder and two sets of weights of their model."""
    return FOLDERS[name][1]()


def subject(which: int) -> Subject:
    """Programs of steps, chunks, waves, hops and moves; several buckets, stripes, layouts, formats."""
    name, role = NAMES[which]
    folder, weights = folder_of(name)
    return Subject(name=name, role=role, folder=folder, weights=weights)


@cache
def before(which: int) -> str:
    """What a program computes that nobody has changed."""
    one = subject(which)
    return one.computed(one.program)
