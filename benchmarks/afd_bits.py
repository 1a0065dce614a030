"""Bits of GPU and LPU together, in every mode and option, against the model itself on one device.

A small Llama has a conversation of three turns as `lpu afd --run` has it: KV and activations cross as bytes,
the LPUs execute their scheduled programs. Each logit of each turn is compared with the reference, which takes
one token a step from an empty cache; rows of the same model and batch share a reference.
`--quick` is a trial run. The exit code is 1 if a bit differs.
"""

import argparse
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import numpy as np
from flax import nnx
from measure import machine, peak_gb

from compiler.options import CompileOptions
from lpu.afd.bits import users_of
from lpu.afd.machines import machines
from lpu.afd.mode import Mode
from lpu.afd.modes.afd import Afd
from lpu.afd.modes.draft import Draft
from lpu.afd.modes.pd import POLICIES, Pd
from lpu.afd.options import GpuKind
from lpu.afd.question import Question
from lpu.decode.conversation import Conversation, reference
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel
from lpu.inputs.open import open_model
from models.catalog import catalog
from models.families.llama import Llama
from models.kv import KVFormat

SHAPES = ((1, 1), (4, 1), (4, 2), (4, 4), (12, 3))  # batch, micro-batches
WIRES = (("fp16", "f32"), ("fp8", "f32"), ("fp16", "fp16"), ("fp8", "fp16"))  # ffn_down, ffn_up
DRAFTERS = ("the same model", "2 layers, other weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row of the table; the first four fields name the model, whose reference it is held against.

    options: in words. drafter: of mode draft, in words.
    """

    batch: int
    kv: str = "fp16"
    down: str = "fp16"
    up: str = "f32"
    mode: Mode
    micro_batches: int = 1
    options: str
    drafter: str = ""


def cases(quick: bool, drafts: int) -> Iterator[Case]:
    """All rows, or a few of them."""
    formats = ("fp16",) if quick else get_args(KVFormat)
    batches = (4,) if quick else (1, 4)
    for kv in formats:
        for batch in batches:
            for policy in POLICIES:
                yield Case(mode=Pd(kv_policy=policy), options=f"kv {kv}, {policy}", batch=batch, kv=kv)
        for down, up in WIRES[::3] if quick else WIRES:
            mixed = (down, up) in WIRES[1:-1]
            for batch, m in SHAPES[2:3] if quick or mixed else SHAPES:
                yield Case(
                    mode=Afd(micro_batches=m),
                    options=f"kv {kv}, {down} down, {up} up",
                    batch=batch,
                    kv=kv,
                    down=down,
                    up=up,
                    micro_batches=m,
                )
        for batch in batches:
            for drafter in DRAFTERS:
                mode = Draft(drafts=drafts, acceptance=0.7)
                yield Case(mode=mode, options=f"kv {kv}, {drafter}", batch=batch, kv=kv, drafter=drafter)


def main() -> None:
    args = arguments()
    print(machine())
    turns, prompt, tokens, later = (2, 16, 8, 4) if args.quick else (3, 64, 32, 16)
    request = Request(prompt_tokens=prompt, new_tokens=tokens, later_tokens=later, turns=turns)
    print(
        f"{args.model} on {args.rack} with tp {args.tp} beside 8 h200: {turns} turns, a prompt of {prompt} "
        f"tokens and {tokens} new ones, then {later} and {tokens}; {args.drafts} drafts a round\n"
    )

    @cache
    def opened(batch: int, kv: str, down: str, up: str) -> OpenModel:
        chosen: dict[str, Any] = {"batch": batch, "kv": kv, "ffn_down": down, "ffn_up": up}
        return open_model(args.model, context=(request.context,), **chosen)

    @cache
    def wanted(batch: int, kv: str, down: str, up: str) -> Conversation:
        model = opened(batch, kv, down, up)
        return reference(model, users_of(replace(request, batch=batch), model), tokens)

    print(f"{'mode':<6}{'batch':>5}{'m':>3}  {'options':<34}{'digest of the logits':<22}{'s':>6}  bits")
    begun, wrong, count = time.perf_counter(), 0, 0
    for case in cases(args.quick, args.drafts):
        who = (case.batch, case.kv, case.down, case.up)
        right = wanted(*who)
        start = time.perf_counter()
        found = said(case, opened(*who), replace(request, batch=case.batch), args)
        differs = found.differs(right)
        count, wrong = count + 1, wrong + bool(differs)
        print(
            f"{case.mode.name:<6}{case.batch:>5}{case.micro_batches:>3}  {case.options:<34}"
            f"{digest(found)[:16]:<22}{time.perf_counter() - start:>6.1f}  {differs or 'equal'}",
            flush=True,
        )
    share = 100 * (count - wrong) / count
    print(
        f"\nbits      {count - wrong} of {count} conversations equal (exact), "
        f"{share:.0f} % (goal: 100 %, {'missed' if wrong else 'met'})"
    )
    print(f"seconds   {time.perf_counter() - begun:.0f}, references included (measured); {peak_gb():.1f} GB")
    if wrong:
        raise SystemExit(1)


def said(case: Case, model: OpenModel, request: Request, args: argparse.Namespace) -> Conversation:
    """The conversation of a case: its programs compiled and checked, then executed, as the verb does."""
    asked = Question(
        model=model,
        request=request,
        machines=machines(args.rack, GpuKind(), 8),
        options=CompileOptions(tp=args.tp),
        others={"drafter": drafter(case, model)} if case.drafter else {},
    )
    program = case.mode.time(asked).program
    return case.mode.converse(asked, program, case.mode.moves(asked, program))


def drafter(case: Case, model: OpenModel) -> OpenModel:
    """The model itself, or one of the same vocabulary with two layers and weights of another seed."""
    if case.drafter == DRAFTERS[0]:
        return model
    config = replace(catalog(model.name), layers=2)

    def shallow(*, batch: int, context: int, kv: KVFormat) -> nnx.Module:
        return Llama(config, batch=batch, context=context, kv=kv)

    return open_model(shallow, batch=case.batch, context=(model.step.context,), kv=case.kv, weights="seed:1")


def digest(found: Conversation) -> str:
    """Sha256 over the f32 bytes of all logits, turn by turn, sequence by sequence."""
    sha = hashlib.sha256()
    for turn in found.turns:
        for rows in turn.logits:
            sha.update(np.ascontiguousarray(rows, "<f4").tobytes())
    return sha.hexdigest()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llama-tiny")
    parser.add_argument("--rack", default="quad")
    parser.add_argument("--tp", type=int, default=4)
    parser.add_argument("--drafts", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
