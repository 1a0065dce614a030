"""The rules of waves: what one step must keep so that another may follow it every interval of cycles.

A wave repeats the first one `interval` cycles later, in the next copy of the transients and on the KV of its
own user. So all that a wave holds must be free modulo the interval, and what it leaves in memory must be done
with before a later wave comes to the same words. Where waves are chunks of a prompt, whose tokens are known,
the same user may be in flight several times: then each KV region is left before the next chunk comes to it.
Nothing here knows how the rows were scheduled.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.isa import PRODUCTS, TAG_SHIFT, TAGS, Columns, Op, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.ranges import ramp
from lpu.check.cycles import Busy, cycles
from lpu.check.findings import Findings, Report
from lpu.check.operands import Accesses, Operands, operands
from lpu.check.rows import alike, split
from lpu.check.stated import Stated

_RATE = 1024  # ports are counted in 1/1024 words per cycle


class _Repeat(NamedTuple):
    """What the manifest says of the waves of one context bucket; the last three by chip.

    known: whether a step's tokens are, before the user's last step has ended: a chunk's, not a token's.
    """

    interval: int
    turn: int
    users: int
    tags: int
    cycles: int
    known: bool
    arenas: Int[np.ndarray, " chips"]
    arena_words: Int[np.ndarray, " chips"]
    user_words: Int[np.ndarray, " chips"]


def check_waves(manifest: Manifest, columns: Columns, context: int) -> Report:
    """Check that waves may follow one another; the rows of one wave are taken to be legal by themselves."""
    findings = Findings(columns)
    try:
        stated, waves = Stated.of(manifest), _repeat(manifest, context)
    except ValueError as error:
        findings.tell(0, f"waves: {error}")
        return findings.report()
    findings.note(0, np.flatnonzero(_off(waves, stated)), lambda i: f"waves: {_OFF[i]}")
    if findings.counts[0]:
        return findings.report()
    found = alike(columns, stated.kernels)
    busy = cycles(findings, stated, found)
    used = operands(findings, stated, found)
    _units(findings, stated, busy, waves.interval)
    _ports(findings, stated, busy, waves.interval)
    _accumulators(findings, stated, waves.interval)
    _in_turn(findings, used, waves)
    _lines(findings, stated, used, waves)
    _copies(findings, stated, used, waves)
    return findings.report()


def _repeat(manifest: Manifest, context: int) -> _Repeat:
    waves = manifest.waves
    if waves is None or context not in waves.contexts or context not in manifest.cycles:
        raise ValueError(f"the program is of kind {manifest.kind!r} and has none in context {context}")
    entry = waves.contexts[context]
    counts = (entry.interval, entry.turn, waves.users, waves.tags, manifest.cycles[context])
    if min(counts) < 1:
        raise ValueError(f"interval, turn, users, tags and cycles are {list(counts)}, must be counts")
    columns = [np.array(part, np.int64) for part in (waves.arenas, waves.arena_words, waves.user_words)]
    if max(*counts, *(int(np.abs(part).max(initial=0)) for part in columns)) >= 1 << 40:
        raise ValueError("interval, turn, users, tags, arenas or their words are more than there can be")
    chips = len(manifest.regions)
    if any(column.shape != (chips,) for column in columns):
        raise ValueError(f"arenas, arena_words and user_words must be of {chips} chips")
    return _Repeat(*counts, manifest.chunk > 1, *columns)


_OFF = (
    "a user steps again before its last step has ended: turn x interval is less than cycles",
    "there are more users than waves in a turn",
    "the copies of the transients take more words than a chip's transient region, or lines are cut",
    "the KV of all users takes more words than a chip's KV region",
)


def _off(waves: _Repeat, stated: Stated) -> list[bool]:
    """Which of `_OFF` is the case."""
    room = stated.regions[..., 1]
    short = (waves.arenas < 1) | (waves.arenas * waves.arena_words > room[:, 0])
    skew = waves.arena_words % stated.rows != 0
    return [
        waves.turn * waves.interval < waves.cycles and not waves.known,
        waves.users > waves.turn,
        bool((short | skew).any()),
        bool((waves.users * waves.user_words > room[:, 1]).any()),
    ]


def _units(findings: Findings, stated: Stated, busy: Busy, interval: int) -> None:
    """Rule 1: no unit and no lane is held twice at cycles that are equal modulo the interval."""
    c = findings.columns
    last = 2 * stated.planes + stated.chains
    compute = np.flatnonzero((c.unit >= 0) & (busy.hold > 0))
    moves = np.flatnonzero((busy.link >= 0) & (busy.hold > 0))
    begins = np.cumsum(stated.lanes) - stated.lanes
    first = begins[busy.link[moves]] + c.lane[moves]
    rows = np.concatenate([compute, np.repeat(moves, c.aux[moves])])
    lane = np.repeat(first, c.aux[moves]) + ramp(c.aux[moves])
    place = np.concatenate([c.chip[compute] * last + c.unit[compute], stated.chips * last + lane])
    clash, before = _overlaps(place, c.t0[rows], busy.hold[rows], interval)

    def text(i: int) -> str:
        return (
            f"holds its unit or lane for {busy.hold[rows[clash[i]]]} cycles, "
            f"{c.t0[rows[clash[i]]] % interval} modulo the interval of {interval}, so "
            f"does {findings.place(rows[before[i]])} in another wave"
        )

    findings.add(1, rows[clash], text)


def _overlaps(
    place: Int[np.ndarray, " spans"],
    start: Int[np.ndarray, " spans"],
    length: Int[np.ndarray, " spans"],
    interval: int,
) -> tuple[Int[np.ndarray, " met"], Int[np.ndarray, " met"]]:
    """(entry, entry it meets) where spans of one place meet modulo the interval."""
    if not len(place):
        return place, place
    phase = start % interval
    order = np.lexsort((phase, place))
    place, phase, length = place[order], phase[order], length[order]
    ends = np.append(np.flatnonzero(place[1:] != place[:-1]), len(place) - 1)
    begins = np.append(0, ends[:-1] + 1)
    follower = np.arange(1, len(place) + 1)
    follower[ends] = begins
    until = phase[np.minimum(follower, len(place) - 1)]
    until[ends] += interval  # the first of the next round follows the last
    bad = np.flatnonzero(phase + length > until)
    return order[follower[bad]], order[bad]


def _ports(findings: Findings, stated: Stated, busy: Busy, interval: int) -> None:
    """Rule 3: the words that all waves together move through the ports of a chip in a cycle."""
    c = findings.columns
    rows = np.flatnonzero(busy.hold > 0)
    rate = -(-_RATE * busy.words[rows] // busy.hold[rows])
    sends = np.flatnonzero(is_transfer(c.op[rows]))
    row = np.concatenate([rows, rows[sends]])
    rate = np.concatenate([rate, rate[sends]])
    chip = np.concatenate([c.chip[rows], c.peer[rows[sends]]])
    begin = np.concatenate([c.t0[rows], c.t1[rows[sends]] - busy.hold[rows[sends]]]) % interval
    end = begin + busy.hold[row]
    wraps = end > interval  # a hold is no longer than the interval, or its unit is held twice
    none = np.zeros(int(wraps.sum()), np.int64)
    who = np.concatenate([row, row[wraps]])
    rate = np.concatenate([rate, rate[wraps]])
    chip = np.concatenate([chip, chip[wraps]])
    begin = np.concatenate([begin, none])
    end = np.concatenate([np.minimum(end, interval), end[wraps] - interval])
    key = np.concatenate([(chip * (interval + 1) + begin) << 1 | 1, chip * (interval + 1) + end << 1])
    order = np.argsort(key, kind="stable")
    key, load = key[order], np.cumsum(np.concatenate([rate, -rate])[order])
    last = np.append(key[1:] >> 1 != key[:-1] >> 1, True)
    over = np.flatnonzero(last & (load > _RATE * stated.ports) & (key & 1).astype(bool))
    findings.add(
        3,
        who[order[over] % len(who)],
        lambda i: (
            f"{(key[over[i]] >> 1) % (interval + 1)} cycles into the interval chip "
            f"{(key[over[i]] >> 1) // (interval + 1)} moves {load[over[i]] / _RATE:.1f} words for all waves, "
            f"it has {stated.ports} ports"
        ),
    )


def _accumulators(findings: Findings, stated: Stated, interval: int) -> None:
    """Rule 2: an accumulator has one tile's sums from its first product to its write-back, in all waves."""
    c, planes = findings.columns, stated.planes
    mm, wb = np.flatnonzero(np.isin(c.op, PRODUCTS)), np.flatnonzero(c.op == Op.WB)
    if not len(wb):
        return
    spot = np.concatenate([c.unit[mm], c.unit[wb] - planes]) + planes * c.chip[np.concatenate([mm, wb])]
    spot = spot * stated.accumulators + np.concatenate([c.dst[mm], c.src3[wb]])
    closes = np.concatenate([np.zeros(len(mm), bool), np.ones(len(wb), bool)])
    when = np.concatenate([c.t1[mm], c.t0[wb]])
    order = np.lexsort((closes, when, spot))
    tile = np.cumsum(closes[order]) - closes[order]  # of every event, the write-back that comes next
    first = np.full(len(wb), 1 << 62)
    inside = tile < len(wb)
    np.minimum.at(first, tile[inside], when[order][inside])
    ends = order[closes[order]]
    clash, before = _overlaps(spot[ends], first, when[ends] - first + 1, interval)
    rows = np.concatenate([mm, wb])[ends]
    findings.add(
        2,
        rows[clash],
        lambda i: (
            f"its accumulator has products from cycle {first[clash[i]]} to {c.t0[rows[clash[i]]]}, and, "
            f"modulo the interval of {interval}, those of {findings.place(rows[before[i]])} in another wave"
        ),
    )


def _lines(findings: Findings, stated: Stated, used: Operands, waves: _Repeat) -> None:
    """Rule 2: a wave is done with a line before the wave with the same copy of it comes."""
    parts = [used.writes, used.reads]
    reach = np.zeros(stated.chips, np.int64)
    np.maximum.at(reach, stated.logits[:, 0], stated.logits[:, 1] + stated.rows)
    for a in parts:
        np.maximum.at(reach, a.chip, a.stop)
    offset = np.cumsum(reach) - reach
    size = int(reach.sum())
    a = Accesses(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    kept = stated.logits[:, :2]
    start = np.concatenate([a.start + offset[a.chip], kept[:, 1] + offset[kept[:, 0]]])
    stop = np.concatenate([a.stop + offset[a.chip], kept[:, 1] + offset[kept[:, 0]] + stated.rows])
    time = np.concatenate([a.time, np.full(len(kept), waves.cycles)])  # the host reads logits at the end
    row = np.concatenate([a.row, np.full(len(kept), -1)])
    chip = np.concatenate([a.chip, kept[:, 0]])
    cuts = split(start, stop, size)
    segments = int(cuts.segment.max(initial=-1)) + 1
    first, last = np.full(segments, 1 << 62), np.full(segments, -1)
    np.minimum.at(first, cuts.segment, time[cuts.interval])
    np.maximum.at(last, cuts.segment, time[cuts.interval])
    room = (waves.arenas * waves.interval)[chip[cuts.interval]]
    span = (last - first + 1)[cuts.segment]
    late = np.flatnonzero((span > room) & (time[cuts.interval] == last[cuts.segment]))
    who = cuts.interval[late]
    by_row = row[who] >= 0

    which = np.flatnonzero(by_row)

    def text(i: int) -> str:
        at = which[i]
        return (
            f"a wave needs a line at word {a.start[who[at]]} or after it for {span[late[at]]} cycles; "
            f"the wave with the same copy comes after {room[late[at]]}"
        )

    findings.add(2, row[who[by_row]], text)
    outputs = np.unique(chip[who[~by_row]])
    findings.note(2, outputs, lambda at: f"logits on chip {at} are overwritten before their wave ends")


def _in_turn(findings: Findings, used: Operands, waves: _Repeat) -> None:
    """Rule 2: a step is done with each KV region before the same user's next step comes to it."""
    left = used.renewed._replace(time=findings.columns.t1[used.renewed.row])
    parts = zip(used.kv_writes, used.kv_reads, used.renewed, left, strict=True)
    a = Accesses(*(np.concatenate(columns) for columns in parts))
    if not len(a.row):
        return
    _, region = np.unique(np.stack([a.chip, a.start]), axis=1, return_inverse=True)
    region = region.reshape(-1)
    first, last = np.full(region.max() + 1, 1 << 62), np.full(region.max() + 1, -1)
    np.minimum.at(first, region, a.time)
    np.maximum.at(last, region, a.time)
    span, room = (last - first + 1)[region], waves.turn * waves.interval
    late = np.flatnonzero((span > room) & (a.time == last[region]))
    findings.add(
        2,
        a.row[late],
        lambda i: (
            f"a step needs the KV region at word {a.start[late[i]]} for {span[late[i]]} cycles; "
            f"the next step of its user comes after {room}"
        ),
    )


def _copies(findings: Findings, stated: Stated, used: Operands, waves: _Repeat) -> None:
    """Rule 5 and 7: the first wave stays in its copy of the transients, its user's KV, and its own tags."""
    for space, words, parts in (
        (0, waves.arena_words, (used.reads, used.writes)),
        (1, waves.user_words, (used.kv_reads, used.kv_writes, used.renewed)),
    ):
        for a in parts:
            _own(findings, a, stated.regions[:, space, 0] + words)
    c = findings.columns
    highest = np.max([getattr(c, name) for name in TAGS], axis=0) >> TAG_SHIFT
    foreign = np.flatnonzero(highest >= waves.tags)
    findings.add(
        7, foreign, lambda i: f"names value {highest[foreign[i]]}, a wave has values 0 .. {waves.tags - 1}"
    )


def _own(findings: Findings, a: Accesses, end: Int[np.ndarray, " chips"]) -> None:
    out = a.take(a.stop > end[a.chip])
    findings.add(
        5,
        out.row,
        lambda i: (
            f"operand words {out.start[i]} .. {out.stop[i] - 1} of chip {out.chip[i]}: what the "
            f"wave or its user has there ends at word {end[out.chip[i]] - 1}"
        ),
    )
