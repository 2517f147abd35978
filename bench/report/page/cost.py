"""What the runs cost: speed, time, memory and size as bars, and where a step's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.cells import Cell
from bench.config import columns as vocabulary
from bench.report import tables


@dataclass(frozen=True)
class Bar:
    """A row's cost beside that of the others."""

    name: str
    text: str
    share: float  # of the longest, in per cent
    opens: str  # key of its evidence


COSTS = ("images_per_s", "train_s", "eval_s", "peak_mb", "generator_m", "discriminator_m")
ALIKE = 1.05  # what differs by less between the rows is told in words


def costs(cells: Sequence[Cell]) -> list[tuple[str, list[Bar]]]:
    """Speed, time, memory and size as bars, where the rows differ in them."""
    found = []
    for key in COSTS:
        column = vocabulary.MEASURED[key]
        stats = [(c.name, s) for c in cells if (s := c.stat(key))]
        if not stats or _alike([s.mean for _, s in stats]):
            continue
        top = max(s.mean for _, s in stats)
        d = tables.decimals(s.mean for _, s in stats) if column.decimals is None else 0
        bars = [
            Bar(name, f"{s.mean:.{d}f}", round(100 * s.mean / top, 1), f"{name}/{key}")
            for name, s in stats
        ]
        found.append((f"{column.header} ({column.unit})", bars))
    return found


def alike(cells: Sequence[Cell]) -> str:
    """What all rows have nearly in common, in words; empty = nothing."""
    said = []
    for key in COSTS:
        column, means = vocabulary.MEASURED[key], [s.mean for c in cells if (s := c.stat(key))]
        if means and _alike(means):
            d = tables.decimals(means) if column.decimals is None else column.decimals
            low, high = f"{min(means):.{d}f}", f"{max(means):.{d}f}"
            both = low if low == high else f"{low} to {high}"
            said.append(f"{column.header} {both} {column.unit}")
    return f"Nearly alike in all rows: {', '.join(said)}." if said else ""


def _alike(means: Sequence[float]) -> bool:
    return max(means) <= 0 or max(means) / max(min(means), 1e-9) < ALIKE


@dataclass(frozen=True)
class Ledger:
    """Where the time of a training step goes, row by row."""

    parts: list[str]
    rows: list[tuple[str, list[float]]]  # per cent of the step, in the order of `parts`
    shared: list[str]  # rows whose machine had other work


def ledger(cells: Sequence[Cell]) -> Ledger | None:
    """The mean shares of each row's runs; None = no record keeps any."""
    rows = []
    for cell in cells:
        means = {
            part: stat.mean for part in vocabulary.SHARES if (stat := cell.stat(f"share_{part}"))
        }
        if means:
            rows.append((cell, means))
    found = [part for part in vocabulary.SHARES if any(part in means for _, means in rows)]
    if not found:
        return None
    return Ledger(
        found,
        [(cell.name, [round(means.get(part, 0.0), 1) for part in found]) for cell, means in rows],
        [cell.name for cell, _ in rows if any(run.contended for run in cell.finished)],
    )
