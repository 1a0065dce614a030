"""KV carried over: the cache of a program's machine, as another program of the same model keeps it."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from compiler.program.program import Program
from fabric.rack import Rack
from lpu.remap.pieces import HeldWords, KVRegion, kv_of
from lpu.run.kv import KV
from lpu.run.machine import Machine

Store = Shaped[np.ndarray, "regions sequences capacity head_dim"]
Cache = Shaped[np.ndarray, "layers heads sequences tokens head_dim"]


def carry(parent: Program, old: Machine, state: KV, child: Program, new: Machine, rack: Rack) -> KV | None:
    """The KV of a conversation for the machine of a remapped program; None if a part of it is broken.

    A token's K and V are those of all layers and heads: with one region every token would have to be taken
    again, so nothing is carried then; nor are the states of recurrent layers. rack: of the child, with the
    faults.
    """
    assert rack.damage is not None
    bad, lost = rack.damage.bad, set(rack.damage.lost)
    had = kv_of(parent)
    if state.states or any(one.chip in lost or one.lies_in(bad) for one in had.values()):
        return None
    places, target = _places(old, had), _places(new, kv_of(child))
    start = new.start()
    caches: list[tuple[np.ndarray, ...]] = []
    for before, after in ((state.keys, start.keys), (state.values, start.values)):
        whole = _gathered(np.asarray(before[0]), places)
        caches.append((_dealt(whole, np.asarray(after[0]), target),))
    keys, values = (tuple(jnp.asarray(one) for one in some) for some in caches)
    return KV(keys, values)


def _places(machine: Machine, regions: dict[KVRegion, HeldWords]) -> list[KVRegion]:
    """What each region of a machine's only KV array is."""
    at = {(held.chip, held.first): region for region, held in regions.items()}
    return [at[chip, word] for chip, word in machine.stores.places[0][:, :2].tolist()]


def _tokens(region: KVRegion, count: int) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
    """Tokens below `count` that a region holds, and where in it they are."""
    token = np.arange(count)
    turn, stripe = token // region.run, region.line % region.stripes
    mine = np.flatnonzero(turn % region.stripes == stripe)
    return mine, turn[mine] // region.stripes * region.run + mine % region.run


def _gathered(store: Store, places: list[KVRegion]) -> Cache:
    """All tokens by layer and head."""
    layers = 1 + max(region.layer for region in places)
    heads = 1 + max(region.line // region.stripes for region in places)
    count = store.shape[2] * max(region.stripes for region in places)
    out = np.zeros((layers, heads, store.shape[1], count, store.shape[3]), store.dtype)
    for i, region in enumerate(places):
        tokens, at = _tokens(region, count)
        inside = at < store.shape[2]
        out[region.layer, region.line // region.stripes][:, tokens[inside]] = store[i][:, at[inside]]
    return out


def _dealt(whole: Cache, store: Store, places: list[KVRegion]) -> Store:
    """The tokens as another program's regions hold them."""
    out = store.copy()
    for i, region in enumerate(places):
        tokens, at = _tokens(region, whole.shape[3])
        inside = at < store.shape[2]
        out[i][:, at[inside]] = whole[region.layer, region.line // region.stripes][:, tokens[inside]]
    return out
