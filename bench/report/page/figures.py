"""The figures of the page: curves, an axis of the grid, size and accuracy, the paper's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from bench.analysis import paper_numbers
from bench.analysis.cells import Cell
from bench.config import columns as vocabulary
from bench.report import captions, figures
from bench.report.lines import lines_of
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts


@dataclass(frozen=True)
class Curves:
    """One metric against images and against time."""

    charts: dict[str, Markup]  # images, time
    legend: list[tuple[str, Markup, str, int]]  # name, key, value at the end, runs
    values: list[list[list[float]]]  # of each line: images, mean, low, high


@dataclass(frozen=True)
class Figure:
    """One figure; `legend` is names and keys where the figure holds no names."""

    title: str
    against: str
    chart: Markup
    legend: Sequence[tuple[str, Markup]] = ()


def anchors_of(facts: Facts) -> dict[str, str]:
    """Cell name -> where the page shows the cell's runs."""
    return {cell.name: f"row-{i}" for i, cell in enumerate(facts.cells)}


def over_training(facts: Facts) -> Curves | None:
    """The curves of the ranking metric, best at the end first; None = no row has two snapshots."""
    if facts.ranking is None:
        return None
    cells, metric, sign = facts.cells, facts.ranking.metric, facts.ranking.sign
    found = [one for one in lines_of(cells, metric) if len(one.images) > 1]
    if not found:
        return None
    found.sort(key=lambda x: sign * x.mean[-1])
    column = vocabulary.column(metric)
    charts = {
        "images": figures.page_curves(found, column, False, facts.targets),
        "time": figures.page_curves(found, column, True, facts.targets),
    }
    legend = [
        (x.name, figures.page_key(figures.look(*x.look)), brief(x.mean[-1]), x.n) for x in found
    ]
    values = [
        [list(point) for point in zip(x.images, x.mean, x.low, x.high, strict=True)] for x in found
    ]
    return Curves(charts, legend, values)


def across(facts: Facts) -> Figure | None:
    """The last values of each row over the axis of its cells; None = not one, or of no numbers."""
    if facts.ranking is None or len(axes := facts.cells[0].axes) != 1:
        return None
    (axis,), metric = axes, facts.ranking.metric
    rows = figures.by_axis(facts.cells, metric, axis)
    if not rows:
        return None
    column = vocabulary.column(metric)
    against = "training images" if axis == "data.subset" else axis.split(".")[-1]
    legend = [(row, figures.page_key(figures.look(i, None))) for i, row in enumerate(rows)]
    chart = figures.page_axis(rows, column, axis)
    return Figure(f"{column.header} against {against}", against, chart, legend)


def scatters(facts: Facts) -> list[Figure]:
    """Quality against size and against accuracy, ours and the paper's beside it."""
    found: list[Figure] = []
    order, paper, anchors = facts.ranking, facts.paper, anchors_of(facts)
    if order is None:
        return found
    how, name = figures.looks(facts.cells), facts.grid.report.paper
    main = paper_numbers.main_column(name) if name else ""
    usual = captions.usual_accuracy(facts.cells)
    for key, theirs, against in (
        ("params_m", "paper_params_m", "parameters of the feature network (M)"),
        ("accuracy", "paper_top1", "accuracy of the feature network (%)"),
    ):
        ours, published = [], []
        for cell in order.cells:
            point = (_short(cell), how[cell.name])
            at, stat = cell.stat(key), cell.stat(order.metric)
            if at and stat and (key != "accuracy" or captions.accuracy_kind(cell) == usual):
                ours.append((*point, at.mean, stat.mean, stat, anchors[cell.name]))
            x, y = (paper.get(cell.name, {}).get(k) for k in (theirs, main))
            if x and y and x.value is not None and y.value is not None:
                published.append((*point, x.value, y.value, None, anchors[cell.name]))
        header = vocabulary.PAPER[main].header.removeprefix("paper ") if main else ""
        for points, where, y_title in (
            (ours, "Here", order.header),
            (published, "In the paper", header),
        ):
            if len({point[2] for point in points}) > 2:
                chart = figures.page_scatter(points, against, y_title)
                found.append(Figure(f"{where}: {y_title}", against, chart))
    return found


def slopes(facts: Facts) -> Markup | None:
    """The paper's order beside ours; None = fewer than three rows have both."""
    if facts.ranking is None or len(facts.beside_paper) < 3:
        return None
    how, anchors = figures.looks(facts.cells), anchors_of(facts)
    rows = [
        (name, how[name], paper, ours, anchors[name])
        for name, paper, ours in facts.beside_paper[["paper", "ours"]].itertuples()
    ]
    return figures.page_slope(rows, facts.ranking.sign)


def _short(cell: Cell) -> str:
    """A row's name with the values of its axes alone."""
    values = cell.name.removeprefix(cell.row).split(" · ")[1:]
    return " · ".join([cell.row, *(value.partition("=")[2] for value in values)])
