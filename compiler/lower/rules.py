"""The lowering rules of all ops by name: the vocabulary's, and those that extensions register."""

from compiler.graph.graph import Graph, Node
from compiler.lower.latent import attention as latent_attention
from compiler.lower.latent import heads
from compiler.lower.layout import Demands
from compiler.lower.ops import (
    add,
    argmax,
    attention,
    bias,
    embed,
    experts,
    gate16,
    glu,
    layer_norm32,
    matmul,
    multiply,
    prescale,
    rms_norm,
    rms_norm32,
    rope,
    rounding,
    router,
    softcap,
)
from compiler.lower.ops.recurrent import conv, delta, gate, l2_norm, ssm
from compiler.lower.rule import LoweringRule

RULES: dict[str, LoweringRule] = {}


def register(rule: LoweringRule) -> LoweringRule:
    """Add a rule; models that use its op then compile. Raises ValueError if the op has another one."""
    if RULES.setdefault(rule.op, rule) is not rule:
        raise ValueError(f"lowering rules: op {rule.op!r} has a rule already. Give the op another name.")
    return rule


for _rule in (
    *(embed.RULE, matmul.RULE, matmul.SCALED, rms_norm.RULE, rope.RULE, rounding.ROUND8, rounding.ROUND16),
    *(attention.RULE, glu.RULE, add.RULE, bias.RULE, argmax.RULE),
    *(rms_norm32.RULE, layer_norm32.RULE, softcap.RULE),
    *(heads.RULE, latent_attention.RULE),
    *(conv.RULE, ssm.RULE, gate.RULE, l2_norm.RULE, delta.RULE, gate16.RULE),
    *(
        multiply.MULTIPLY,
        multiply.MULTIPLY_ADD,
        multiply.MULTIPLY_LANES,
        prescale.PRESCALE,
        prescale.RMS_STAT,
    ),
    *(router.MATMUL16, router.ROUTE, experts.RULE),
):
    register(_rule)


def rule_of(node: Node) -> LoweringRule:
    """The rule of a node; one that allows nothing if its op has none."""
    return RULES.get(node.op) or LoweringRule(op=node.op)


def demands_of(graph: Graph) -> Demands:
    """How the values of a graph are cut and read, by the rules that there are."""
    return Demands(graph, RULES)
