"""The op vocabulary: the public function of every op, and the registry of their records.

A model is written with the functions here. An op from outside (an extension) is a record made by
`models.contract.op.define`, given to `register`, and bound by its own function: `SCALE.bind(x)`.
"""

from jax.extend.core import Primitive

from models.contract.op import PREFIX, OpRecord
from models.contract.vocabulary.add import ADD
from models.contract.vocabulary.add import add as add
from models.contract.vocabulary.argmax import ARGMAX
from models.contract.vocabulary.argmax import argmax as argmax
from models.contract.vocabulary.attention import ATTENTION
from models.contract.vocabulary.attention import attention as attention
from models.contract.vocabulary.bias import BIAS
from models.contract.vocabulary.bias import bias as bias
from models.contract.vocabulary.embed import EMBED
from models.contract.vocabulary.embed import embed as embed
from models.contract.vocabulary.experts import EXPERTS
from models.contract.vocabulary.experts import experts as experts
from models.contract.vocabulary.gate16 import GATE16
from models.contract.vocabulary.gate16 import gate16 as gate16
from models.contract.vocabulary.glu import GLU
from models.contract.vocabulary.glu import glu as glu
from models.contract.vocabulary.latent import HEAD_MATMUL, LATENT_ATTENTION
from models.contract.vocabulary.latent import head_matmul as head_matmul
from models.contract.vocabulary.latent import latent_attention as latent_attention
from models.contract.vocabulary.layer_norm32 import LAYER_NORM32
from models.contract.vocabulary.layer_norm32 import layer_norm32 as layer_norm32
from models.contract.vocabulary.matmul import MATMUL, MATMUL_SCALED
from models.contract.vocabulary.matmul import matmul as matmul
from models.contract.vocabulary.matmul import matmul_scaled as matmul_scaled
from models.contract.vocabulary.matmul16 import MATMUL16
from models.contract.vocabulary.matmul16 import matmul16 as matmul16
from models.contract.vocabulary.multiply import MULTIPLY, MULTIPLY_ADD, MULTIPLY_LANES
from models.contract.vocabulary.multiply import multiply as multiply
from models.contract.vocabulary.multiply import multiply_add as multiply_add
from models.contract.vocabulary.multiply import multiply_lanes as multiply_lanes
from models.contract.vocabulary.prescale import PRESCALE, RMS_STAT
from models.contract.vocabulary.prescale import prescale as prescale
from models.contract.vocabulary.prescale import rms_stat as rms_stat
from models.contract.vocabulary.recurrent.conv import CONV
from models.contract.vocabulary.recurrent.conv import conv as conv
from models.contract.vocabulary.recurrent.delta import DELTA
from models.contract.vocabulary.recurrent.delta import delta as delta
from models.contract.vocabulary.recurrent.gate import GATE
from models.contract.vocabulary.recurrent.gate import gate as gate
from models.contract.vocabulary.recurrent.l2_norm import L2_NORM
from models.contract.vocabulary.recurrent.l2_norm import l2_norm as l2_norm
from models.contract.vocabulary.recurrent.ssm import SSM
from models.contract.vocabulary.recurrent.ssm import ssm as ssm
from models.contract.vocabulary.rms_norm import RMS_NORM
from models.contract.vocabulary.rms_norm import rms_norm as rms_norm
from models.contract.vocabulary.rms_norm32 import RMS_NORM32
from models.contract.vocabulary.rms_norm32 import rms_norm32 as rms_norm32
from models.contract.vocabulary.rope import ROPE
from models.contract.vocabulary.rope import rope as rope
from models.contract.vocabulary.rounding import ROUND8, ROUND16
from models.contract.vocabulary.rounding import round8 as round8
from models.contract.vocabulary.rounding import round16 as round16
from models.contract.vocabulary.route import ROUTE
from models.contract.vocabulary.route import route as route
from models.contract.vocabulary.softcap import SOFTCAP
from models.contract.vocabulary.softcap import softcap as softcap

OPS: dict[str, OpRecord] = {}
"""Every op by name; `register` adds to it."""


def register(record: OpRecord) -> OpRecord:
    """Add an op to the vocabulary. Raises ValueError if another one has its name."""
    held = OPS.get(record.name)
    if held is not None:
        raise ValueError(
            f"ops: two ops are named {record.name!r}, one of {held.home} and one of {record.home}. "
            "Rename one."
        )
    OPS[record.name] = record
    return record


def op_of(primitive: Primitive) -> OpRecord | None:
    """The record of a jaxpr equation's primitive, or None if it is not of the vocabulary."""
    record = OPS.get(primitive.name.removeprefix(PREFIX))
    return record if record is not None and record.primitive is primitive else None


for _record in (
    EMBED,
    MATMUL,
    MATMUL_SCALED,
    RMS_NORM,
    RMS_NORM32,
    LAYER_NORM32,
    PRESCALE,
    RMS_STAT,
    ROPE,
    ROUND8,
    ROUND16,
    ATTENTION,
    HEAD_MATMUL,
    LATENT_ATTENTION,
    GLU,
    ADD,
    BIAS,
    MULTIPLY,
    MULTIPLY_ADD,
    MULTIPLY_LANES,
    SOFTCAP,
    ARGMAX,
    MATMUL16,
    ROUTE,
    EXPERTS,
    CONV,
    SSM,
    GATE,
    L2_NORM,
    DELTA,
    GATE16,
):
    register(_record)
