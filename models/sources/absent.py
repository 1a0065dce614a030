"""No weights at all: what a folder has that holds none in a format that we read.

Such a model can be compiled, as a program depends on shapes alone; nothing is ever drawn in their place.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from models.sources.error import WeightError
from models.sources.weights import Shapes

IDENTITY = "none"
REMEDY = "Give --weights safetensors:PATH or orbax:PATH, or --weights seed:0 for drawn ones."


class NoWeights:
    """`Weights` of which only the shapes are known."""

    def __init__(self, shapes: Shapes, why: str = "") -> None:
        self.shapes = shapes
        self.identity = IDENTITY
        self.why = why or "it holds none"
        self.notes = (f"weights: none ({self.why}): the model can be compiled, not run. {REMEDY}",)
        self.relative_errors: Mapping[str, float] = {}

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """Raises WeightError."""
        raise WeightError(f"{name}: the model has no weights: {self.why}. {REMEDY}")

    def plain(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """Raises WeightError."""
        return self[name]

    def digest(self) -> str:
        """Sha256 of the shapes."""
        held = [[name, list(shape.shape), str(shape.dtype)] for name, shape in sorted(self.shapes.items())]
        return hashlib.sha256(json.dumps([IDENTITY, held]).encode()).hexdigest()
