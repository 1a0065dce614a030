"""The distance of the contract from plain f32: relative error, top-1 agreement, ulps; no bit comparison.

Two separate reports: *numerical equivalence* compares the contract with plain f32 on the same weights;
*quantisation* compares e4m3 weights in plain f32 with the checkpoint's own weights in plain f32.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from lpu.decode.generate import Generation
from models.sources.packed.convert import Changed

ULP_BINS = (1, 2, 4, 16, 256, 4096, 65_536, 1 << 20)
"""Upper ends (exclusive) of the histogram's bins; one more bin holds larger distances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """The comparison of the logits of `left` and `right`, over `steps` steps of all sequences together.

    relative_error: 2-norm of the difference over that of `right`, the largest and the mean of all steps.
    top1_agreement: share of steps where both have the same largest logit. ulps: logits per bin of `ULP_BINS`.
    clipped: fp16 values of `left` at +-65504, if it has fp16: what f32 holds and the contract does not.
    """

    left: str
    right: str
    steps: int
    relative_error_max: float
    relative_error_mean: float
    top1_agreement: float
    ulps: tuple[int, ...]
    clipped: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"ulp_bins_below": list(ULP_BINS)}

    def __str__(self) -> str:
        total = max(sum(self.ulps), 1)
        names = [f"<{end}" for end in ULP_BINS] + [f">={ULP_BINS[-1]}"]
        bins = ", ".join(
            f"{name} {100 * n / total:.1f} %" for name, n in zip(names, self.ulps, strict=True) if n
        )
        clips = f"; {self.clipped:,} values clipped at +-65504" if self.clipped else ""
        return (
            f"{self.left} against {self.right}: relative error {self.relative_error_mean:.2e} mean, "
            f"{self.relative_error_max:.2e} max; top-1 agreement {100 * self.top1_agreement:.1f} % of "
            f"{self.steps} steps; f32 ulps: {bins}{clips}"
        )


def equivalence(left: Generation, right: Generation, names: tuple[str, str]) -> Equivalence:
    """The comparison of the logits of two decodes of the same tokens; errors are relative to `right`."""
    a, b = (np.concatenate(one.logits) for one in (left, right))
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norm = np.linalg.norm(wide_b, axis=1)
    errors = np.linalg.norm(wide_a - wide_b, axis=1) / np.where(norm == 0, 1, norm)
    counts = np.bincount(
        np.searchsorted(ULP_BINS, ulp_distance(a, b).ravel(), side="right"), minlength=len(ULP_BINS) + 1
    )
    return Equivalence(
        left=names[0],
        right=names[1],
        steps=len(a),
        relative_error_max=float(errors.max()),
        relative_error_mean=float(errors.mean()),
        top1_agreement=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
        ulps=tuple(counts.tolist()),
    )


def ulp_distance(
    a: Float32[np.ndarray, "*shape"], b: Float32[np.ndarray, "*shape"]
) -> Int64[np.ndarray, "*shape"]:
    """Distance of a and b in f32 values; 0 if they are equal, also for -0 and +0."""
    return np.abs(_ordered(a) - _ordered(b))


def _ordered(values: Float32[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """Integers in the order of the floats: the bits, with the negative half reversed."""
    bits = np.ascontiguousarray(values).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """The cost of e4m3 weights alone: error of the tensors, and of the logits in plain f32."""

    tensors: int
    relative_error_max: float
    worst_tensor: str
    relative_error_mean: float
    logits: Equivalence
    changed: Changed | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        counts: dict[str, int | None] = {"changed_weights": None, "quantised_weights": None}
        if self.changed is not None:
            counts = {"changed_weights": self.changed.weights, "quantised_weights": self.changed.of}
        held = {name: value for name, value in asdict(self).items() if name != "changed"}
        return held | counts | {"logits": self.logits.to_json()}

    def __str__(self) -> str:
        counted = "" if self.changed is None else f"{self.changed}; "
        return (
            f"{counted}{self.tensors} matrices to e4m3: "
            f"relative rms error {self.relative_error_mean:.2e} mean, "
            f"{self.relative_error_max:.2e} max ({self.worst_tensor}); {self.logits}"
        )


def quantisation(
    errors: Mapping[str, float], logits: Equivalence, changed: Changed | None = None
) -> Quantisation | None:
    """The report of the tensors' errors beside that of the logits; None if nothing was quantised."""
    if not errors:
        return None
    worst = max(errors, key=lambda name: (errors[name], name))
    return Quantisation(
        tensors=len(errors),
        relative_error_max=errors[worst],
        worst_tensor=worst,
        relative_error_mean=float(np.mean(list(errors.values()))),
        logits=logits,
        changed=changed,
    )


def difference(base: Generation, other: Generation) -> str:
    """The first place where the logits' bits or the tokens differ, or "" if nothing does."""
    for sequence, (a, b) in enumerate(zip(base.logits, other.logits, strict=True)):
        wrong = np.argwhere(a.view(np.uint32) != b.view(np.uint32))
        if len(wrong):
            step, logit = (int(i) for i in wrong[0])
            return (
                f"{len(wrong)} of {a.size} logits of sequence {sequence} differ, the first at step {step}, "
                f"logit {logit}: {a[step, logit]!s} and {b[step, logit]!s}"
            )
    return "" if base.tokens == other.tokens else f"tokens {base.tokens} and {other.tokens} differ"
