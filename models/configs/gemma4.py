"""The numbers of Gemma 4 (text): two geometries of heads, and experts beside a dense FFN.

Source of the meanings: transformers 5.24, modeling_gemma4.py.
"""

from dataclasses import dataclass, replace

from models.config import MATRICES_PER_FFN, TransformerConfig
from models.rope_scaling import ProportionalScaling
from models.routing import MOST_EXPERTS, Routing

FAMILY = "gemma4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma4Config(TransformerConfig):
    """A decoder whose layers that see all have `global_kv_heads` heads of `global_head_dim` lanes.

    heads of layers with a window have head_dim and kv_heads. global_turned: lanes of a global head that RoPE
    turns, at the speeds of a head that it turns whole, times 1 / global_stretch. shared_values: values of
    global layers are made of what keys are made of, before their norm. experts: beside each dense FFN, 0:
    none; `chosen` of them, of width `expert_ffn`, take part in a token. published_active: parameters of one.
    """

    global_head_dim: int
    global_kv_heads: int
    global_turned: int
    global_stretch: float = 1.0
    shared_values: bool = False
    experts: int = 0
    chosen: int = 0
    expert_ffn: int = 0
    published_active: int | None = None
    qk_norm: bool = True
    attention_scale: float | None = 1.0
    family: str = FAMILY

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        if len(self.kinds) != self.layers or not set(self.kinds) <= {"full", "window"}:
            raise ValueError(f"{self.name}: kinds says full or window of each of the {self.layers} layers.")
        if self.window_theta is None:
            raise ValueError(f"{self.name}: window_theta is not stated; layers with a window have their own.")
        if self.norms != "both" or not self.qk_norm:
            raise ValueError(f"{self.name}: norms is {self.norms!r}, qk_norm {self.qk_norm}; both are there.")
        if self.global_kv_heads < 1 or self.heads % self.global_kv_heads:
            raise ValueError(
                f"{self.name}: heads {self.heads} is no multiple of global_kv_heads {self.global_kv_heads}."
            )
        turned, lanes = self.global_turned, self.global_head_dim
        if lanes < 2 or lanes % 2 or turned % 2 or not 0 < turned <= lanes:
            raise ValueError(
                f"{self.name}: global_turned {turned} must be even, 2 to global_head_dim, an even {lanes}."
            )
        unfit = {"biased": self.biased, "turned_lanes": self.turned_lanes, "sinks": self.sinks}
        unfit |= {"rope_scaling": self.rope_scaling, "whole_qk_norm": self.whole_qk_norm}
        unfit |= {"fused": self.fused, "residual_scale": self.residual_scale}
        if odd := [name for name, value in unfit.items() if value]:
            raise ValueError(f"{self.name}: {odd[0]} is {unfit[odd[0]]!r}, the layers of Gemma 4 have none.")
        self._check_experts()

    def _check_experts(self) -> None:
        if not self.experts:
            if self.chosen or self.expert_ffn:
                raise ValueError(f"{self.name}: chosen or expert_ffn is stated, experts is 0.")
            return
        if not 1 <= self.chosen <= self.experts <= MOST_EXPERTS:
            raise ValueError(
                f"{self.name}: chosen is {self.chosen}, experts {self.experts}: 1 to experts are chosen, of "
                f"{MOST_EXPERTS} at most."
            )
        if self.expert_ffn < 1:
            raise ValueError(f"{self.name}: expert_ffn is {self.expert_ffn}, the least is 1.")
        if self.ffn_down is not None or self.ffn_up != "f32":
            raise ValueError(
                f"{self.name}: ffn_down {self.ffn_down}, ffn_up {self.ffn_up}: experts beside a dense FFN "
                "take 3 vectors, each normed by itself; 1 crosses to another machine. Put whole "
                "layers on one rack: lpu compile does, without lpu afd."
            )

    def geometry(self, kind: str) -> "Gemma4Config":
        """The same numbers with the heads of layers of a kind."""
        if kind == "window":
            return self
        return replace(self, head_dim=self.global_head_dim, kv_heads=self.global_kv_heads)

    @property
    def routing(self) -> Routing:
        """How the router chooses."""
        return Routing(chosen=self.chosen, renormalise=True)

    @property
    def rope_lanes(self) -> int:
        """Lanes that RoPE's tables are for: of the kind of layer of which it turns more."""
        return max(self.head_dim, self.global_turned)

    @property
    def speeds(self) -> tuple[ProportionalScaling, ProportionalScaling]:
        """How RoPE turns heads of global layers, and of those with a window."""
        own, lanes = self.head_dim, self.global_head_dim
        return (
            ProportionalScaling(head_dim=lanes, turned=self.global_turned, factor=self.global_stretch),
            ProportionalScaling(head_dim=own, turned=own, factor=1.0),
        )

    def cached_at(self, layer: int) -> tuple[int, int, int]:
        """What the KV cache of a layer keeps of a token: heads, lanes of a key and of a value of each."""
        return self.geometry(self.kind_of(layer)).cached

    def parameters(self) -> int:
        """Exact number of parameters."""
        return self._parameters(self.experts)

    def active_parameters(self) -> int:
        """Parameters that one token takes part in: of the experts those that it chooses."""
        return self._parameters(self.chosen)

    def _parameters(self, experts: int) -> int:
        q, k = self.heads, 2 * self.kv_heads
        lanes = {"window": (q, k, self.head_dim)}
        shared = 1 if self.shared_values else 2
        lanes["full"] = (q, shared * self.global_kv_heads, self.global_head_dim)
        each = {
            kind: self.hidden * d * (2 * heads + kv) + 2 * d + 4 * self.hidden
            for kind, (heads, kv, d) in lanes.items()
        }
        ffn = MATRICES_PER_FFN * self.hidden * self.ffn
        if self.experts:
            beside = 4 * self.hidden + self.experts * (self.hidden + 1)
            ffn += MATRICES_PER_FFN * self.hidden * self.expert_ffn * experts + beside
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return tables + self.hidden + sum(each[kind] + ffn for kind in self.kinds)
