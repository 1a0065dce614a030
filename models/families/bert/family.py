"""The record of encoders."""

from models.configs.encoder import FAMILY, EncoderConfig
from models.families.bert.checkpoint import read, tensors
from models.families.bert.module import Encoder
from models.families.family import Family

BERT = Family(
    name=FAMILY,
    module=Encoder,
    layer=None,
    model_types={"bert": read},
    tensors=tensors,
    config=EncoderConfig,
    unused=("bert.pooler.", "bert.embeddings.position_ids"),
)
