"""Experts behind a projection: they take and give latents; beside them an FFN of the whole width.

The statistic of the norm waits behind the projection too: it multiplies what experts' first matrices give.
So the projection reads a scaled vector of its own: products of one vector share their statistic.
"""

from jax import Array
from jaxtyping import Float32

from models.configs.hybrid import HybridConfig
from models.contract import ops
from models.contract.parts import down_starts
from models.families.experts import Mixture
from models.parts import Linear, Normed


class LatentMixture(Mixture):
    """A router, the way into latents, experts, the way back, and squared up and down of a shared expert."""

    def __init__(self, config: HybridConfig) -> None:
        hidden, scaled, beside = config.hidden, config.column_scales == "f32", config.shared_ffn
        routing, activation = config.routing, config.expert_activation
        super().__init__(config, config.experts, config.expert_ffn, routing, activation, config.latent)
        self.into = Linear(hidden, config.latent, scaled=scaled)
        self.out = Linear(config.latent, hidden, scaled=scaled)
        self.shared_up = Linear(hidden, beside, scaled=scaled)
        self.shared_down = Linear(beside, hidden, scaled=scaled, starts=down_starts(beside))

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per row."""
        a = self.norm.deferred(x)
        latent = Normed(ops.round16(self.into(self.norm.deferred(x).scaled)), a.statistic)
        chosen = self.out(ops.round16(self.summed(latent, self.router(a))))
        up = self.shared_up(a)
        beside = self.shared_down(ops.glu(up, up, activation="relu"))
        return ops.add(x, ops.add(beside, chosen))
