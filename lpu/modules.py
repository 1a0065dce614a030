"""How the proof reads a module of the user's own: the jaxpr of its step, one for each size of a chunk."""

import jax

from lpu.inputs.model import OpenModel
from lpu.prove.models.own import reader_of_module
from lpu.prove.models.record import Reader
from lpu.prove.programs import OwnReaders


def readers_of(model: OpenModel) -> OwnReaders | None:
    """The readers of a model that is a module of the user's own; None if its numbers say what it is."""
    if model.config is not None:
        return None

    def reader(chunk: int) -> Reader:
        step = model.chunks(chunk) if chunk > 1 else model.step
        closed = jax.make_jaxpr(step.fn)(*step.inputs())
        caches = [which for which in (0, 1) for _ in jax.tree.leaves(step.cache[which])]
        return reader_of_module(closed, sorted(step.params), caches)

    return reader
