"""Other weights of the same model: a program that differs from the one before only in where they lie.

KV, transients, rows and cycles stay, so the users of the program before go on at the next token.
"""

from dataclasses import replace

from compiler.program.manifest import Manifest, Region
from compiler.program.program import Program
from compiler.program.store import sealed
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel


def with_weights(before: Program, opened: OpenModel) -> Program:
    """The program for other weights of its model, in words of each chip that it leaves free.

    On a chip that has too few they take the place of the old ones. Raises FileError for another model.
    """
    manifest, about = before.manifest, opened.about
    for name in ("config", "kv", "parameters"):
        if getattr(manifest.model, name) != getattr(about, name):
            raise FileError(
                f"switch: --keep-kv: B is {about.name}, its {name} differs from that of A, "
                f"{manifest.model.name}. Give other weights of the model of A."
            )
    if manifest.prefill:
        raise FileError(
            f"switch: --keep-kv: A goes with a program for chunks of {manifest.prefill} tokens. "
            "Compile it without --prefill."
        )
    moved = [_room(manifest, chip) for chip in range(manifest.chips)]
    calls = tuple(
        replace(
            call,
            weight_base=_shifted(call.weight_base, call.chips, moved),
            shared_base=_shifted(call.shared_base, call.chips, moved),
        )
        for call in before.calls
    )
    regions = tuple(
        one._replace(weights=Region(one.weights.base + by, one.weights.words))
        for one, by in zip(manifest.regions, moved, strict=True)
    )
    return sealed(replace(before, manifest=replace(manifest, model=about, regions=regions), calls=calls))


def _shifted(bases: tuple[int, ...], chips: tuple[int, ...], moved: list[int]) -> tuple[int, ...]:
    return tuple(base + moved[chip] for base, chip in zip(bases, chips, strict=True))


def _room(manifest: Manifest, chip: int) -> int:
    """How many words further the weights of a chip would lie beside the old ones; 0: in their place."""
    transient, kv, weights = manifest.regions[chip]
    first = max(transient.base + transient.words, kv.base + kv.words)
    behind = weights.base + weights.words
    bad = manifest.broken is not None and any(name.startswith("sram") for name in manifest.broken.faults)
    if not weights.words or bad:
        return 0
    if weights.base - first >= weights.words:
        return first - weights.base
    return weights.words if manifest.chip.sram_words - behind >= weights.words else 0
