"""The record of hybrid decoders."""

from models.families.family import Family
from models.families.hybrid.checkpoint import tensors
from models.families.hybrid.module import Hybrid
from models.families.hybrid.readers import READERS
from models.hybrid_config import FAMILY, HybridConfig

HYBRID = Family(
    name=FAMILY, module=Hybrid, layer=None, model_types=READERS, tensors=tensors, config=HybridConfig
)
