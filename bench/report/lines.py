"""Curves of cells and the points behind them, before anything draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.analysis.cells import Cell

# Okabe and Ito's palette for all kinds of colour vision, less its pale yellow. A row has a colour
# and a marker; its dashes tell the values of an axis apart, or else rows of one colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Look = tuple[int, int | None]  # number of a row, and of its axis values
LOG_FROM = 6.0  # an axis whose ends differ by this factor is logarithmic


@dataclass(frozen=True)
class Line:
    """A cell's curve over its finished runs, at the numbers of images that all of them have."""

    name: str
    look: Look  # decides its colour, dashes and marker
    n: int
    images: tuple[float, ...]
    seconds: tuple[float, ...]  # mean over the runs
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def looks_of(cells: Sequence[Cell]) -> list[Look]:
    """The number of each cell's row, and of its axis values. None = they do not differ."""
    values = [repr(sorted(cell.axes.items())) for cell in cells]
    rows = {row: i for i, row in enumerate(dict.fromkeys(cell.row for cell in cells))}
    variants = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return [
        (rows[cell.row], variants[value] if len(variants) > 1 else None)
        for cell, value in zip(cells, values, strict=True)
    ]


def lines_of(cells: Sequence[Cell], metric: str) -> list[Line]:
    """The curves of the cells that have one."""
    found = zip(cells, looks_of(cells), strict=True)
    return [one for cell, look in found if (one := line(cell, metric, look))]


def line(cell: Cell, metric: str, look: Look) -> Line | None:
    """The curve of a cell; None = its runs have no number of images in common."""
    points = curve_points([cell], metric)
    runs = points["run_id"].nunique()
    by_images = points.groupby("images")
    found = by_images[[metric, "train_seconds"]].agg(["mean", "min", "max"])
    found = found[by_images.size() == runs]
    if found.empty:
        return None
    value = found[metric]
    return Line(
        name=cell.name,
        look=look,
        n=runs,
        images=tuple(found.index.astype(float).tolist()),
        seconds=tuple(found["train_seconds", "mean"].tolist()),
        mean=tuple(value["mean"].tolist()),
        low=tuple(value["min"].tolist()),
        high=tuple(value["max"].tolist()),
    )


def curve_points(cells: Sequence[Cell], metric: str) -> pd.DataFrame:
    """Every point behind a figure over training: one line per finished run and snapshot."""
    lines = [
        (cell.name, run.spec.run_id, run.spec.config.train.seed, *point)
        for cell in cells
        for run in cell.finished
        for point in run.curve(metric)
    ]
    columns = ["row", "run_id", "seed", "images", "train_seconds", metric]
    return pd.DataFrame(lines, columns=columns)


def axis_points(cells: Sequence[Cell], metric: str, axis: str) -> pd.DataFrame:
    """Every point of a figure against an axis of the grid: one line per run.

    Empty = the axis is not one of numbers.
    """
    places = [place(cell, axis) for cell in cells]
    lines = [
        (cell.row, f"{where:g}", run.spec.run_id, run.spec.config.train.seed, run.values[metric])
        for cell, where in zip(cells, places, strict=True)
        for run in cell.finished
        if where is not None and None not in places and metric in run.values
    ]
    columns = ["row", axis.split(".")[-1], "run_id", "seed", metric]
    return pd.DataFrame(lines, columns=columns)


def csv_files(cells: Sequence[Cell]) -> dict[str, str]:
    """The CSV of every metric's curves, and of every metric against an axis of numbers."""
    points = [point for cell in cells for run in cell.runs for point in run.points]
    metrics = list(dict.fromkeys(key for point in points for key in point.metrics))
    files = {f"curves/{metric}.csv": to_csv(curve_points(cells, metric)) for metric in metrics}
    for axis in cells[0].axes:
        for metric in metrics:
            if len(found := axis_points(cells, metric, axis)):
                files[f"curves/{metric}_by_{axis.split('.')[-1]}.csv"] = to_csv(found)
    return files


def to_csv(points: pd.DataFrame) -> str:
    """Text of a CSV file, in full precision."""
    return str(points.to_csv(index=False, lineterminator="\n"))


def place(cell: Cell, axis: str) -> float | None:
    """The place of a cell on a numeric axis; None = it has none there."""
    value = cell.axes.get(axis)
    if axis == "data.subset" and value is None:  # all images
        value = cell.spec.config.data.images
        for run in cell.finished:
            value = ((run.record or {}).get("data") or {}).get("images", value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def wide(values: Sequence[float]) -> bool:
    """Whether an axis over these values is logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM
