"""Pictures of a comparison, by matplotlib (an extra): what is on each is in docs/placement.md."""

from pathlib import Path
from typing import Any

from lpu.compare.compare import Comparison, RackComparison
from lpu.compare.point import Point
from lpu.inputs.document import FileError
from lpu.outputs.write import atomic_folder
from lpu.report.words import EXACT

COLUMNS = 16  # chips in a row of a rack map
STILL = {"metadata": {"Software": None}}  # the same bytes for the same comparison


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
            for what, picture in (("pareto", _pareto), ("rack", _rack), ("search", _search)):
                figure = make(figsize=(9, 6), layout="constrained")
                picture(figure, one, found.model)
                paths.append(folder / f"{name}-{what}.png")
                figure.savefig(part / paths[-1].name, dpi=120, **STILL)
    return paths


def _pareto(figure: Any, one: RackComparison, model: str) -> None:
    """Latency against period, a colour per strategy, the front as a line."""
    axes = figure.add_subplot()
    for name, points in one.strategies().items():
        good = [point for point in points if not point.error]
        if good:
            axes.scatter(
                [_us(p, p.latency_cycles) for p in good], [_us(p, p.period_cycles) for p in good], label=name
            )
    front = one.front
    axes.step(
        [_us(p, p.latency_cycles) for p in front],
        [_us(p, p.period_cycles) for p in front],
        where="post",
        color="grey",
        linewidth=0.8,
    )
    axes.set(xlabel="latency of a token, us", ylabel="period: busiest chip per token, us")
    axes.set_title(f"{model} on {one.rack} ({EXACT})")
    axes.legend(fontsize="small")


def _rack(figure: Any, one: RackComparison, model: str) -> None:
    """The chips of the best and of the default point in number order, by load and by stage."""
    shown = [("default", one.default), (f"best: {one.best.strategy}", one.best)]
    shown = [(name, point) for name, point in shown if not point.error]
    for row, (name, point) in enumerate(shown):
        busy = [_us(point, cycles) for cycles in point.busy_cycles]
        stage = [value if value >= 0 else float("nan") for value in point.stage]
        for column, (what, values) in enumerate((("busy us per token", busy), ("stage", stage))):
            axes = figure.add_subplot(len(shown), 2, 2 * row + column + 1)
            wide = min(COLUMNS, len(values))
            padded = values + [float("nan")] * (-len(values) % wide)
            grid = [padded[i : i + wide] for i in range(0, len(padded), wide)]
            image = axes.imshow(grid, cmap="viridis" if column == 0 else "turbo", interpolation="nearest")
            axes.set_title(f"{name}: {what}", fontsize="small")
            axes.set(xlabel=f"chip mod {wide}", ylabel=f"chip div {wide}")
            figure.colorbar(image, ax=axes)
    figure.suptitle(f"{model} on {one.rack} ({EXACT})")


def _search(figure: Any, one: RackComparison, model: str) -> None:
    """The best value so far against evaluations, a line per seed, a colour per strategy."""
    axes = figure.add_subplot()
    searched = {name: [p for p in points if p.best] for name, points in one.strategies().items()}
    for i, (name, points) in enumerate((name, points) for name, points in searched.items() if points):
        for j, point in enumerate(points):
            steps = [*point.best, [max(point.evaluations, 1), point.best[-1][1]]]
            axes.step(
                [evaluations for evaluations, _ in steps],
                [_us(point, value) for _, value in steps],
                where="post",
                color=f"C{i % 10}",
                marker="." if len(steps) <= 2 else None,
                label=None if j else name,
            )
    axes.set_xscale("log")
    axes.set(xlabel="valid evaluations", ylabel="best value so far (cost model), us")
    axes.set_title(f"{model} on {one.rack}")
    axes.legend(fontsize="small")


def _us(point: Point, cycles: int) -> float:
    return cycles * 1e6 / point.clock_hz
