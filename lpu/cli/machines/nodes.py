"""The verb `nodes`: single nodes that hold a whole model, listed, compared with a rack, swept."""

from typing import TYPE_CHECKING, Annotated

from compiler.errors import OptionError
from compiler.options import Option
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Given
from lpu.nodes.options import Cold, NodeLoad, Session

if TYPE_CHECKING:
    from lpu.nodes.compare import Compared, OnNode

OF = {
    "compare": ("context", "batch", "weights", "kv", "nodes", "rack", "duty", "places", "miss", "page"),
    "matrix": ("nodes", "duty", "places", "miss", "page"),
    "persistence": ("system", "session", "block"),
}
"""The options that each question takes; a list of nodes takes none."""


def nodes(
    load: NodeLoad,
    cold: Cold,
    session: Session,
    given: Given,
    what: Annotated[
        str | None,
        Option(
            "WHAT",
            "compare, matrix or persistence; or a node by name or file: every number with its source.",
            shown="a list of all",
        ),
    ] = None,
    model: Annotated[str | None, Option("MODEL", "compare: the model, as lpu compile takes it.")] = None,
) -> None:
    """Single nodes that hold a whole model: what there is, a model on them beside a rack; see docs/nodes.md.

    Examples:
      lpu nodes
      lpu nodes vera-rubin
      lpu nodes compare llama-3.1-8b --context 8192 --batch 1
      lpu nodes matrix --nodes vera-rubin,ddr5-soc
      lpu nodes persistence
    """
    taken = OF.get(what or "", ())
    own = {name for names in OF.values() for name in names} - set(taken)
    given.refuse(sorted(own), f"means nothing in lpu nodes {what or ''}".rstrip())
    if (model is None) == (what == "compare"):
        why, remedy = ("needs a model", "Name one.") if model is None else ("takes no model", "Leave it out.")
        raise OptionError("nodes", what or "the list", why, remedy)
    if what == "compare" and model is not None:
        _compare(model, load, cold)
    elif what == "matrix":
        _matrix(load, cold)
    elif what == "persistence":
        _persistence(session)
    elif what is not None:
        from lpu.cli.catalogs import one_entry
        from lpu.inputs.files import read_node
        from lpu.report.numbers import of_spec

        node = read_node(what)
        one_entry("node", node.name, of_spec(node))
    else:
        _list()


def _list() -> None:
    from fabric.catalog import node_names, node_spec
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
    found = [node_spec(name) for name in node_names()]
    terminal.table(
        ("node", "what", "memory", "at", "fp16 / fp8 / fp4", "under load", "idle", "assumed numbers"),
        [
            [
                node.name + (" *" if node.speculative else ""),
                node.title,
                " + ".join(f"{tier.memory_bytes / 1e9:,.0f} GB {tier.name}" for tier in node.tiers),
                " + ".join(f"{tier.bytes_per_second / 1e12:,.4g} TB/s" for tier in node.tiers),
                " / ".join(f"{node.peak(kind) / 1e12:,.0f}" for kind in ("fp16", "fp8", "fp4")) + " TF",
                f"{node.watts[0]:,.0f} - {node.watts[1]:,.0f} W",
                f"{node.idle_watts[0]:,.0f} - {node.idle_watts[1]:,.0f} W",
                str(len(by_confidence(node.sources)["assumed"])),
            ]
            for node in found
        ],
    )
    terminal.say("* speculative: nobody has built it. Each number with its source: lpu nodes NAME")
    terminal.result(
        {
            "schema": "lpu-nodes/1",
            "nodes": [
                {
                    "name": node.name,
                    "title": node.title,
                    "speculative": node.speculative,
                    **node.numbers(),
                    "numbers": by_confidence(node.sources),
                }
                for node in found
            ],
        }
    )


def _compare(model: str, load: NodeLoad, cold: Cold) -> None:
    from lpu import api
    from lpu.nodes.compare import HEADERS

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.nodes_compare(model, load, cold, bar)
    terminal.say(_asked(found))
    terminal.table(HEADERS, found.rows())
    for one in found.nodes:
        if not one.error:
            terminal.say(_tiers(one))
    for line in found.notes():
        terminal.say(line)
    terminal.facts(
        [
            (
                "kind",
                "nodes are modelled (rooflines; * speculative), the rack's cycles exact for its machine",
            )
        ]
    )
    terminal.result(found.to_json())


def _asked(found: "Compared") -> str:
    model, load = found.model, found.load
    return (
        f"{model.name}: {model.parameters / 1e9:,.1f} G parameters, {model.active / 1e9:,.1f} G a token; "
        f"batch {load.batch}, context {load.context:,}, weights {load.weights}, kv {load.kv}"
    )


def _tiers(one: "OnNode") -> str:
    """Each tier's own time of a step, serial and overlapped; where attention is of a prompt."""
    from lpu.nodes.compare import seconds_text

    serial, overlapped = one.steps
    parts = [f"{name} {seconds_text(seconds)}" for name, seconds in serial.tiers]
    parts += [f"compute {seconds_text(serial.compute)}"]
    parts += [f"links {seconds_text(serial.links)}"] if serial.links else []
    both = "" if len(serial.tiers) < 2 else f"; tiers at once: {seconds_text(overlapped.seconds)} a token"
    return f"{one.node.name:<16}{', '.join(parts)}{both}"


def _matrix(load: NodeLoad, cold: Cold) -> None:
    from lpu.nodes.ask import nodes_matrix
    from lpu.nodes.matrix import HEADERS

    terminal = TERMINAL.get()
    found = nodes_matrix(load.nodes, cold, load.duty)
    terminal.table(HEADERS, found.rows())
    nodes = len({one.node.name for _, one in found.points})
    each = len(found.points) // max(nodes, 1)
    terminal.say(
        f"{each} points (3 models x 2 formats x 4 batches x 4 contexts) on each of {nodes} nodes; modelled, "
        "tiers one after another, kv fp8"
    )
    terminal.result(found.to_json())


def _persistence(session: Session) -> None:
    from lpu.nodes.persistence import CHANGES, after

    terminal = TERMINAL.get()
    found = {change: after(change, session.system, session.session, session.block) for change in CHANGES}
    total = session.system + session.session
    terminal.table(
        ("what changed", "tokens still valid", "why", "moved"),
        [
            [change, f"{one.tokens:,} of {total:,}", one.reason, "yes" if one.resharded else "-"]
            for change, one in found.items()
        ],
    )
    terminal.result(
        {
            "schema": "lpu-nodes-persistence/1",
            "kind": "exact",
            "tokens": total,
            "changes": [
                {"change": change, "valid": one.tokens, "reason": one.reason, "resharded": one.resharded}
                for change, one in found.items()
            ],
        }
    )


VERBS = (nodes,)
