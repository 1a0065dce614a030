"""The record of hybrid decoders: Mamba-2."""

from models.families.family import Family
from models.families.hybrid.checkpoint import READERS, tensors
from models.families.hybrid.module import Hybrid
from models.hybrid_config import FAMILY, HybridConfig

HYBRID = Family(
    name=FAMILY, module=Hybrid, layer=None, model_types=READERS, tensors=tensors, config=HybridConfig
)
