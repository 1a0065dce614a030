"""The record of hybrid decoders."""

from models.configs.hybrid import FAMILY, HybridConfig
from models.families.family import Family
from models.families.hybrid.checkpoint import tensors
from models.families.hybrid.module import Hybrid
from models.families.hybrid.readers import READERS

HYBRID = Family(
    name=FAMILY, module=Hybrid, layer=None, model_types=READERS, tensors=tensors, config=HybridConfig
)
