"""Quality against size and accuracy, and the paper's order beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import columns, targets
from bench.aggregate import Cell
from bench.page import charts
from bench.page.answer import Ranked
from bench.spec import Grid


@dataclass(frozen=True)
class Scatter:
    """One chart, for wide and narrow screens."""

    title: str
    wide: charts.Chart
    narrow: charts.Chart


def scatters(
    grid: Grid, cells: Sequence[Cell], order: Ranked | None, paper: Mapping[str, targets.PaperRow]
) -> list[Scatter]:
    """Quality against size and against accuracy, ours and the paper's beside it."""
    found: list[Scatter] = []
    if order is None:
        return found
    how = charts.looks(cells)
    main = targets.main_column(grid.report.paper) if grid.report.paper else ""
    for key, theirs, title in (
        ("params_m", "paper_params_m", "parameters of the feature network (M)"),
        ("accuracy", "paper_top1", "accuracy of the feature network (%)"),
    ):
        kind = columns.usual_accuracy(cells)
        ours = [
            (short(c), how[c.name], x.mean, s.mean, s)
            for c in order.cells
            if (x := c.stat(key))
            and (s := c.stat(order.metric))
            and (key != "accuracy" or columns.accuracy_kind(c) == kind)
        ]
        if len({p[2] for p in ours}) > 2:
            found.append(_scatter(f"Here: {order.header}", ours, title, order.header))
        published = []
        for cell in order.cells:
            at, fid = (paper.get(cell.name, {}).get(k) for k in (theirs, main))
            if at and fid and at.value is not None and fid.value is not None:
                published.append((short(cell), how[cell.name], at.value, fid.value, None))
        if len({p[2] for p in published}) > 2:
            what = columns.PAPER[main].header
            found.append(_scatter(f"In the paper: {what.removeprefix('paper ')}", published,
                                  title, what.removeprefix("paper ")))  # fmt: skip
    return found


def short(cell: Cell) -> str:
    """A row's name with the values of its axes alone."""
    values = (part.partition("=")[2] for part in cell.name.split(" · ")[1:])
    return " · ".join([cell.row, *values]) if cell.axes else cell.row


def _scatter(title: str, points: Sequence[Any], x: str, y: str) -> Scatter:
    wide, narrow = (charts.scatter(points, *box, x, y) for box in ((520, 360), (350, 330)))
    return Scatter(title, wide, narrow)


def slopes(
    grid: Grid, cells: Sequence[Cell], order: Ranked | None, paper: Mapping[str, targets.PaperRow]
) -> dict[str, charts.Slope]:
    """The paper's order beside ours, wide and narrow; empty = fewer than three rows have both."""
    if order is None or not grid.report.paper:
        return {}
    key, how = targets.main_column(grid.report.paper), charts.looks(cells)
    rows = []
    for cell in order.cells:
        number = paper.get(cell.name, {}).get(key)
        if number and number.value is not None:
            rows.append((cell.name, how[cell.name], number.value, order.stat(cell).mean))
    if len(rows) < 3:
        return {}
    room = 14 + charts.LETTER * max(len(f"{r[0]}  {r[2]:g}") for r in rows)
    return {
        "wide": charts.slope(rows, 640, room, order.sign),
        "narrow": charts.slope(rows, 350, min(room, 150), order.sign),
    }
