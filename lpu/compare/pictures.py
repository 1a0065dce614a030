"""Pictures of a comparison, by matplotlib (an extra): what is on each is in docs/placement.md."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpu.compare.compare import Comparison, RackComparison
from lpu.compare.point import Point
from lpu.figures.places import Point as Place
from lpu.figures.places import places
from lpu.inputs.document import FileError
from lpu.inputs.files import read_rack
from lpu.outputs.write import atomic_folder
from lpu.report.words import kind
from lpu.screen import plain

STILL = {"metadata": {"Software": None}}  # the same bytes for the same comparison
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#661100", "#777777")
MARKERS = ("o", "s", "D", "^", "v", "<", ">", "p", "h", "8", "P", "X", "*")
FEW = 64  # chips of which each has its number beside it, and trays of which each has that of its first chip
WIDE = 13  # inches of the picture of a rack
TEXT_WIDE, TEXT_HIGH = 10, 30  # texts in the width and in the height of a picture
RING = 45  # by how much the mark of a further point at one place is larger, in square points


def need_matplotlib() -> Any:
    """Matplotlib's Figure; FileError if it is not installed."""
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise FileError(
            "compare: --pictures needs matplotlib. pip install 'lpu-emulator[matplotlib]'."
        ) from None
    return Figure


def draw(found: Comparison, folder: Path) -> list[Path]:
    """Write the pictures of every rack into the folder; returns their paths. Raises FileError."""
    make = need_matplotlib()
    paths: list[Path] = []
    with atomic_folder(folder, "--pictures") as part:
        for one in found.racks:
            name = Path(one.rack).stem
            for what, picture in (("pareto", pareto), ("rack", _rack), ("search", _search)):
                figure = make(figsize=(9, 6), layout="constrained")
                picture(figure, one, _text(found.model))
                paths.append(folder / f"{name}-{what}.png")
                figure.savefig(part / paths[-1].name, dpi=120, **STILL)
    return paths


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the n-th strategy: more than a hundred differ in one of the two."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
    }


def rings(points: Sequence[Point], seen: dict[tuple[int, int], int]) -> list[int]:
    """How many points lie at the place of each so far, itself too; `seen` counts on for the next strategy."""
    out: list[int] = []
    for point in points:
        place = point.latency_cycles, point.period_cycles
        seen[place] = seen.get(place, 0) + 1
        out.append(seen[place])
    return out


def pareto(figure: Any, one: RackComparison, model: str) -> None:
    """Latency against period, a colour and a marker per strategy, the front as a line.

    Of points at one place each further one is a larger ring, so that all are seen; their number stands there.
    """
    axes = figure.add_subplot()
    seen: dict[tuple[int, int], int] = {}
    for index, (name, points) in enumerate(one.strategies().items()):
        good = [point for point in points if not point.error]
        if good:
            style = look(index)
            axes.scatter(
                [_us(p, p.latency_cycles) for p in good],
                [_us(p, p.period_cycles) for p in good],
                s=[20 + RING * (count - 1) for count in rings(good, seen)],
                facecolors="none",
                edgecolors=style["color"],
                marker=style["marker"],
                linewidths=1.6,
                label=f"{_text(name)} ({len(good)})",
            )
    _counts(axes, one, seen)
    axes.step(
        [_us(p, p.latency_cycles) for p in one.front],
        [_us(p, p.period_cycles) for p in one.front],
        where="post",
        color="grey",
        linewidth=0.8,
        label="front",
    )
    axes.set(xlabel="latency of a token, us", ylabel="period: busiest chip per token, us")
    axes.set_title(f"{model} on {_text(one.rack)} ({kind(one.chip)})")
    axes.legend(fontsize="small", markerscale=0.8)


def _counts(axes: Any, one: RackComparison, seen: dict[tuple[int, int], int]) -> None:
    """How many points lie at each place of several; what would lie on another such text goes below it."""
    at = {(p.latency_cycles, p.period_cycles): p for p in one.good}
    told: list[Place] = []
    for place in sorted((place for place, count in seen.items() if count > 1), key=lambda p: (-p[1], p[0])):
        x, y = _us(at[place], place[0]), _us(at[place], place[1])
        wide, high = (max(limits) - min(limits) for limits in (axes.get_xlim(), axes.get_ylim()))
        below = sum(abs(x - a) < wide / TEXT_WIDE and abs(y - b) < high / TEXT_HIGH for a, b in told)
        text = f"{seen[place]} points"
        axes.annotate(
            text,
            (x, y),
            (16, -4 - 12 * below),
            textcoords="offset points",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        told.append((x, y))


def _rack(figure: Any, one: RackComparison, model: str) -> None:
    """The chips of the best and of the default point, tray by tray, by load and by stage: one scale each."""
    shown = [("default", one.default), (f"best: {_text(one.best.strategy)}", one.best)]
    if one.best is one.default:
        shown = [("default, the best", one.default)]
    shown = [(name, point) for name, point in shown if not point.error]
    at, trays, lost = _places(one.rack, len(shown[0][1].busy_cycles)) if shown else ([(0.0, 0.0)], [], [])
    wide, high = (max(axis) - min(axis) + 2 for axis in zip(*at, strict=True))
    figure.set_size_inches(WIDE, min(max(len(shown) * WIDE / 2 * high / wide, 3), WIDE) + 1)
    loads = [[_us(point, cycles) for cycles in point.busy_cycles] for _, point in shown]
    stages = [[float(value) for value in point.stage] for _, point in shown]
    measures = (("busy us per token", loads, "viridis"), ("stage", stages, "cividis"))
    for row, (name, _) in enumerate(shown):
        for column, (what, values, colours) in enumerate(measures):
            axes = figure.add_subplot(len(shown), 2, 2 * row + column + 1)
            scale = 0.0, max(max(some) for some in values) or 1.0
            _trays(axes, at, trays)
            used = [chip for chip, value in enumerate(stages[row]) if value >= 0]
            idle = [chip for chip, value in enumerate(stages[row]) if value < 0 and chip not in lost]
            side = 60 if len(at) <= 64 else 30 if len(at) <= 300 else 4
            marks = axes.scatter(
                [at[chip][0] for chip in used],
                [at[chip][1] for chip in used],
                c=[values[row][chip] for chip in used],
                cmap=colours,
                vmin=scale[0],
                vmax=scale[1],
                marker="s",
                s=side,
            )
            axes.scatter(
                [at[chip][0] for chip in idle],
                [at[chip][1] for chip in idle],
                marker="s",
                s=side,
                facecolors="none",
                edgecolors="#aaaaaa",
                linewidths=0.5,
            )
            crossed = [at[chip][0] for chip in lost], [at[chip][1] for chip in lost]
            axes.scatter(*crossed, marker="x", s=side, c="#cc0000", linewidths=0.8)
            if len(at) <= FEW:
                for chip, (x, y) in enumerate(at):
                    axes.annotate(
                        str(chip), (x, y), (0, 8), textcoords="offset points", fontsize=6, ha="center"
                    )
            axes.set_title(f"{name}: {what}", fontsize="small")
            axes.set_axis_off()
            axes.set_aspect("equal")
            bar = figure.colorbar(marks, ax=axes)
            if what == "stage":
                bar.locator = _whole()
                bar.update_ticks()
    figure.suptitle(f"{model} on {_text(one.rack)} ({kind(one.chip)}); frames are trays, numbers chips")


def _whole() -> Any:
    from matplotlib.ticker import MaxNLocator  # pyright: ignore[reportMissingImports]

    return MaxNLocator(integer=True)


def _places(rack: str, chips: int) -> tuple[list[Place], list[tuple[int, ...]], list[int]]:
    """Where each chip is, the chips of each tray, lost chips; a plain grid if the rack's file is gone."""
    try:
        made = read_rack(rack)
    except FileError:
        return places((), chips), [], []
    lost = list(made.damage.lost) if made.damage else []
    return places(made.levels, made.chips), list(made.levels[0].groups), lost


def _trays(axes: Any, at: Sequence[Place], trays: Sequence[tuple[int, ...]]) -> None:
    """A frame around each tray, with the number of its first chip."""
    from matplotlib.patches import Rectangle  # pyright: ignore[reportMissingImports]

    for tray in trays:
        xs, ys = [at[chip][0] for chip in tray], [at[chip][1] for chip in tray]
        corner = min(xs) - 0.5, min(ys) - 0.5
        wide, high = max(xs) - min(xs) + 1, max(ys) - min(ys) + 1
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="#888888", linewidth=0.6))
        if len(at) > FEW >= len(trays):
            axes.text(corner[0], corner[1] + high, str(tray[0]), fontsize=4, va="bottom")


def _search(figure: Any, one: RackComparison, model: str) -> None:
    """The best value so far against evaluations, a line per seed, a colour and a marker per strategy.

    Of lines that end at one place each further one ends in a larger ring.
    """
    axes = figure.add_subplot()
    ends: Counter[tuple[int, int]] = Counter()
    for index, (name, points) in enumerate(one.strategies().items()):
        for j, point in enumerate(point for point in points if point.best):
            steps = [*point.best, [max(point.evaluations, 1), point.best[-1][1]]]
            end = steps[-1][0], steps[-1][1]
            axes.step(
                [evaluations for evaluations, _ in steps],
                [_us(point, value) for _, value in steps],
                where="post",
                markevery=[len(steps) - 1],
                markersize=5 + 3 * ends[end],
                markerfacecolor="none",
                linewidth=1.2,
                label=None if j else _text(name),
                **look(index),
            )
            ends[end] += 1
    axes.set_xscale("log")
    axes.set(xlabel="valid evaluations", ylabel="best value so far (cost model), us")
    axes.set_title(f"{model} on {_text(one.rack)}")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small")


def _us(point: Point, cycles: int) -> float:
    return cycles * 1e6 / point.clock_hz


def _text(name: str) -> str:
    """A name as matplotlib is to print it: no formula, no second line."""
    return plain(name, 60).replace("$", r"\$")
