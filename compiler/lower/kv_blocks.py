"""How a context is cut: into the contract's blocks, and into runs of blocks that stripes are dealt."""

from collections.abc import Sequence

from compiler.errors import CompileError
from compiler.graph.graph import Graph, Node
from compiler.lower.context import Lowering
from compiler.lower.layout import WHOLE, Deal
from compiler.program.instructions.attention import ring_blocks
from compiler.program.isa import F32_LANES, ceil_div
from models.contract.vocabulary.attention import reach

SLACK = 16  # a stripe may hold a 16th more than its share


def chunk_of(context: int, block: int) -> int:
    """Tokens of a block that rows take: all, or in a shorter context its lines of 80 scores."""
    return min(block, F32_LANES * int(ceil_div(context, F32_LANES)))


def run_of(contexts: Sequence[int], block: int, stripes: int) -> int:
    """Blocks that stripes are dealt at a time: a power of two, as many as keep every bucket's even.

    One node per run crosses chips, so a run is as long as a 16th of a stripe's share allows.
    """
    run = 1
    while stripes > 1 and all(_even(int(ceil_div(c, block)), 2 * run, stripes) for c in contexts):
        run *= 2
    return run


def _even(blocks: int, run: int, stripes: int) -> bool:
    share = int(ceil_div(blocks, stripes))
    return run * int(ceil_div(ceil_div(blocks, run), stripes)) <= share + share // SLACK


def in_sram(contexts: Sequence[int], resident: int) -> Sequence[int]:
    """The contexts of which SRAM keeps all. resident: tokens that it keeps of longer ones, 0: any number."""
    return (resident,) if resident else contexts


def early_section(low: Lowering, block: int) -> dict[str, int]:
    """What a kernel says of the part of a context that lies in DDR5; nothing where there is none."""
    if not low.resident:
        return {}
    return {
        "early": max(low.context - low.resident, 0) // block,
        "reservoir": (low.longest - low.resident) // low.deal.stripes,
        "host_slot": low.host_slot,
    }


def kv_capacity(contexts: Sequence[int], block: int, deal: Deal = WHOLE) -> int:
    """Tokens of KV per region that every bucket's blocks fit in."""
    if deal.stripes == 1:
        return max(chunk_of(c, block) * int(ceil_div(c, block)) for c in contexts)
    run = deal.run * block
    return run * max(int(ceil_div(ceil_div(c, run), deal.stripes)) for c in contexts)


def ring_tokens(reach: int, block: int, rows: int, longest: int) -> int:
    """Tokens of KV per region that is read no further back than `reach`: of a ring, if it is shorter.

    rows: the most consecutive tokens that a step of any of the programs that share the region appends.
    """
    return min(block * ring_blocks(reach, block, rows), kv_capacity((longest,), block))


def block_of(graph: Graph) -> int:
    """Tokens of a block of the attentions that see all tokens, or of all. Raises CompileError for several."""
    every = [node for node in graph.nodes if "block" in node.attributes]
    whole = [node for node in every if not reach(node.attributes)]
    found = {int(node.attributes["block"]): node for node in whole or every}
    if len(found) > 1:
        node, several = next(iter(found.values())), " and ".join(map(str, sorted(found)))
        where = f"{node.path or 'model'}: {node.op}"
        raise CompileError("lower", where, f"blocks of {several} tokens in one model", "Use one block.")
    return next(iter(found), F32_LANES)


def attention_shape(graph: Graph, node: Node) -> tuple[int, int]:
    """(kv heads, head dim) of an attention node, from its cache."""
    shape = graph.values[node.inputs[3].value].shape
    return shape[2], shape[3]
