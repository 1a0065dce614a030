"""What two reports were asked for and is not the same, by name."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from lpu.afd.registry import MODES
from lpu.diff import causes
from lpu.traffic.asked import COMPILED, DRAWN

Pair = tuple[Any, Any]
SIZES = {
    "prompt_tokens": ("a longer prompt", "a shorter prompt"),
    "later_tokens": ("longer later prompts", "shorter later prompts"),
    "new_tokens": ("more new tokens", "fewer new tokens"),
    "turns": ("more turns", "fewer turns"),
    "gpus": ("more GPUs", "fewer GPUs"),
    "micro_batches": ("more micro-batches", "fewer micro-batches"),
    "drafts": ("more drafts", "fewer drafts"),
    "acceptance": ("a higher acceptance", "a lower acceptance"),
    "gpu_jitter": ("more jitter of GPUs", "less jitter of GPUs"),
    "queue_seconds": ("a longer queue", "a shorter queue"),
    "cached_tokens": ("more cached tokens", "fewer cached tokens"),
    "batch": ("a larger batch", "a smaller batch"),
    "context": ("a longer context", "a shorter context"),
    "drawn.requests": ("more requests", "fewer requests"),
    "seeds": ("more seeds", "fewer seeds"),
}
NAMES = {
    "gpu": "another GPU",
    "bridge": "another bridge",
    "gemm": "another format of the GPUs' products",
    "gpu_tp": "other replicas of GPUs",
    "mode": "another mode",
    "trace": "another trace",
    "program": "another program",
    "ffn_down": "another format of FFN inputs",
    "ffn_up": "another format of FFN results",
    "drawn.input": "other prompts",
    "drawn.output": "other answers",
    "drawn.seed": "another seed of the requests",
}
ORDER = ("trace", "drawn.", "model", "prompt", "later", "new", "batch", "turns", "kv", "context", "mode")
CHIP = "chip."
MOST = 3  # values that a text names


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, dict[str, Pair]]:
    """The values that are not the same, by fact: (of a, of b) by key."""
    found: dict[str, dict[str, Pair]] = {}
    for key in {**a, **b}:
        if a.get(key) != b.get(key):
            found.setdefault(fact_of(key, a, b), {})[key] = a.get(key), b.get(key)
    ranks = {fact: next((i for i, one in enumerate(ORDER) if fact.startswith(one)), 99) for fact in found}
    return dict(sorted(found.items(), key=lambda one: (ranks[one[0]], one[0])))


def fact_of(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The fact that a value belongs to: what can be asked for alone."""
    if key.startswith(DRAWN):
        return ".".join(key.split(".")[:2])
    if key.startswith(COMPILED):
        fact = key.split(".")[1]
        return "program" if "program" in a or "program" in b else "rack" if fact == "chip" else fact
    if a.get("mode") != b.get("mode") and key in _of_modes():
        return "mode"
    return key.split(".")[0]


def _of_modes() -> set[str]:
    return {name for mode in MODES.values() for name in signature(mode).parameters}


def named(fact: str, values: Mapping[str, Pair]) -> tuple[str, str]:
    """The name of a cause, and what differs."""
    if fact in ("rack", "program", "tp", "layout", "placement", "kv", "objective", "chip", "pp", "cp"):
        inner = _compiled(fact, values)
        if inner:
            names = [causes.named(one, some) for one, some in inner.items()]
            return " and ".join(name for name, _ in names), "; ".join(what for _, what in names)
    if fact == "drawn.arrivals" and (rates := values.get(f"{DRAWN}arrivals.rate")) and None not in rates:
        name = "a higher arrival rate" if rates[1] > rates[0] else "a lower arrival rate"
        return name, _said(values)
    least = values.get(f"{COMPILED}{fact}.{fact}") or values.get(fact)
    if fact in SIZES and least is not None and all(isinstance(one, int | float) for one in least):
        return SIZES[fact][least[1] < least[0]], _said(values)
    word = fact.removeprefix(DRAWN).replace("_", " ")
    return NAMES.get(fact, f"another {word}"), _said(values)


def _compiled(fact: str, values: Mapping[str, Pair]) -> dict[str, dict[str, Pair]]:
    """The values as facts of a program, which `lpu/diff` has names for."""
    out: dict[str, dict[str, Pair]] = {}
    for key, pair in values.items():
        if key.startswith(COMPILED):
            _, one, rest = key.split(".", 2)
            out.setdefault(one, {})[rest] = pair
        elif key.startswith(f"{fact}."):
            rest = key.removeprefix(f"{fact}.")
            if fact == "rack" and rest.startswith(CHIP):
                out.setdefault("chip", {})[rest.removeprefix(CHIP)] = pair
            else:
                out.setdefault(fact, {})[rest] = pair
        elif key == fact and fact != "program":
            out.setdefault(fact, {})[key] = pair
    named_only = [one for one, some in out.items() if set(some) <= {"rack", "name", "chip"}]
    for one in named_only if len(out) > len(named_only) else ():
        del out[one]
    return out


def _said(values: Mapping[str, Pair]) -> str:
    """The values in words."""
    parts = [f"{key.removeprefix(DRAWN)} {a} -> {b}" for key, (a, b) in values.items() if "sha256" not in key]
    more = f"; and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return ("; ".join(parts[:MOST]) or "of other contents") + more
