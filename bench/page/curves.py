"""A metric over training, against images and against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import columns
from bench.aggregate import Cell
from bench.lines import Line, line, place, standing
from bench.page import charts
from bench.spec import Grid
from bench.tables import brief


@dataclass(frozen=True)
class Curves:
    """One metric against images and against time, for wide and narrow screens."""

    title: str
    plots: dict[tuple[str, str], charts.Chart]  # (images or time, wide or narrow)
    legend: list[tuple[str, charts.Look, str, int]]  # name, look, value at the end, runs
    values: list[list[list[float]]]  # of each line: images, mean, low, high


@dataclass(frozen=True)
class Across:
    """One metric at the end against a numeric axis of the grid, such as images to train on."""

    title: str
    plots: dict[str, charts.Chart]  # wide or narrow
    legend: list[tuple[str, charts.Look]]


def curves(grid: Grid, cells: Sequence[Cell], metric: str, marks: Sequence[float]) -> Curves | None:
    """The curves of a metric, best at the end first; None = no row has two snapshots."""
    how = charts.looks(cells)
    drawable = (line(c, metric, at) for c, at in zip(cells, standing(cells), strict=True))
    found = [one for one in drawable if one and len(one.images) > 1]
    if not found:
        return None
    sign = 1 if columns.lower_is_better(metric) else -1
    found.sort(key=lambda x: sign * x.mean[-1])
    column = columns.column(metric)
    title = f"{column.header} ({column.unit})" if column.unit else column.header
    both = [(x, how[x.name]) for x in found]
    drawn = {
        (what, size): charts.curves(both, what == "time", *box, title, marks)
        for what in ("images", "time")
        for size, box in (("wide", (760, 430)), ("narrow", (350, 380)))
    }
    legend = [(x.name, how[x.name], brief(x.mean[-1]), x.n) for x in found]
    values = [
        [list(point) for point in zip(x.images, x.mean, x.low, x.high, strict=True)] for x in found
    ]
    return Curves(title, drawn, legend, values)


def across(grid: Grid, cells: Sequence[Cell], metric: str) -> Across | None:
    """The last values of each row over the grid's axis; None = it has not one numeric axis."""
    if len(grid.axes) != 1:
        return None
    (axis,) = grid.axes
    placed = [(cell, where) for cell in cells if (where := place(cell, axis)) is not None]
    if len(placed) < len(cells):
        return None
    how = {cell.row: charts.look(i) for i, cell in enumerate({c.row: c for c in cells}.values())}
    lines = []
    for row in how:
        points = sorted(
            (where, stat)
            for cell, where in placed
            if cell.row == row and (stat := cell.stat(metric))
        )
        if points:
            at = tuple(where for where, _ in points)
            ends = ([s.mean for _, s in points], [s.min for _, s in points],
                    [s.max for _, s in points])  # fmt: skip
            n = min(stat.n for _, stat in points)
            lines.append((Line(row, (0, None), n, at, at, *map(tuple, ends)), how[row]))
    if not lines or max(len(one.images) for one, _ in lines) < 2:
        return None
    column = columns.column(metric)
    y_title = f"{column.header} ({column.unit})" if column.unit else column.header
    images = axis == "data.subset"
    x_title = "thousand training images" if images else axis.split(".")[-1]
    plots = {
        size: charts.curves(lines, False, *box, y_title, (), x_title, 1000.0 if images else 1.0)
        for size, box in (("wide", (640, 380)), ("narrow", (350, 340)))
    }
    title = f"{column.header} against {x_title.removeprefix('thousand ')}"
    return Across(title, plots, [(one.name, h) for one, h in lines])
