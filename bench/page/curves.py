"""A metric over training, against images and against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import columns
from bench.aggregate import Cell
from bench.lines import line
from bench.page import charts
from bench.spec import Grid


@dataclass(frozen=True)
class Curves:
    """One metric against images and against time, for wide and narrow screens."""

    title: str
    plots: dict[tuple[str, str], charts.Chart]  # (images or time, wide or narrow)
    legend: list[tuple[str, charts.Look, str, int]]  # name, look, value at the end, runs
    values: list[list[list[float]]]  # of each line: images, mean, low, high


def curves(grid: Grid, cells: Sequence[Cell], metric: str, marks: Sequence[float]) -> Curves | None:
    """The curves of a metric, best at the end first; None = no row has two snapshots."""
    how = charts.looks(cells)
    found = [x for i, c in enumerate(cells) if (x := line(c, metric, i)) and len(x.images) > 1]
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
    legend = [(x.name, how[x.name], f"{x.mean[-1]:.3g}", x.n) for x in found]
    values = [
        [list(point) for point in zip(x.images, x.mean, x.low, x.high, strict=True)] for x in found
    ]
    return Curves(title, drawn, legend, values)
