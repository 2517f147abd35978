"""The curve of a cell before anything draws it, and the looks that tell curves apart."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.cells import Cell

# Okabe and Ito's palette for all kinds of colour vision, less its pale yellow. A row has a colour
# and a marker; its dashes tell the values of an axis apart, or else rows of one colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LOG_FROM = 6.0  # an axis whose ends differ by this factor is logarithmic


@dataclass(frozen=True)
class Line:
    """A cell's curve over its finished runs, at the numbers of images that all of them have."""

    name: str
    stands: tuple[int, int | None]  # number of its row and of its axis values: decides its look
    n: int
    images: tuple[float, ...]
    seconds: tuple[float, ...]  # mean over the runs
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def standing(cells: Sequence[Cell]) -> list[tuple[int, int | None]]:
    """The number of each cell's row, and of its axis values. None = they do not differ."""
    values = [repr(sorted(cell.axes.items())) for cell in cells]
    rows = {row: i for i, row in enumerate(dict.fromkeys(cell.row for cell in cells))}
    variants = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return [
        (rows[cell.row], variants[value] if len(variants) > 1 else None)
        for cell, value in zip(cells, values, strict=True)
    ]


def line(cell: Cell, metric: str, stands: tuple[int, int | None]) -> Line | None:
    """The curve of a cell; None = nothing to draw."""
    curves = [{p[0]: p for p in run.curve(metric)} for run in cell.finished]
    curves = [curve for curve in curves if curve]
    if not curves:
        return None
    at = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not at:
        return None
    values = [[curve[n][2] for curve in curves] for n in at]
    return Line(
        name=cell.name,
        stands=stands,
        n=len(curves),
        images=tuple(map(float, at)),
        seconds=tuple(statistics.fmean(curve[n][1] for curve in curves) for n in at),
        mean=tuple(map(statistics.fmean, values)),
        low=tuple(map(min, values)),
        high=tuple(map(max, values)),
    )


def data_csv(cells: Sequence[Cell], metric: str) -> str:
    """Every point behind a figure: one line per run and snapshot."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "run_id", "seed", "images", "train_seconds", metric])
    for cell in cells:
        for run in cell.finished:
            for nimg, seconds, value in run.curve(metric):
                seed = run.spec.config.train.seed
                writer.writerow([cell.name, run.spec.run_id, seed, nimg, seconds, value])
    return out.getvalue()


def axis_csv(cells: Sequence[Cell], metric: str, axis: str) -> str:
    """Every point of a figure against an axis of the grid: one line per run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", axis.split(".")[-1], "run_id", "seed", metric])
    for cell in cells:
        for run in cell.finished:
            if (value := run.value(metric)) is not None:
                seed, where = run.spec.config.train.seed, f"{place(cell, axis):g}"
                writer.writerow([cell.row, where, run.spec.run_id, seed, value])
    return out.getvalue()


def place(cell: Cell, axis: str) -> float | None:
    """Where a cell stands on a numeric axis; None = it has no place there."""
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
