"""Costs of the runs: speed, time, memory and size as bars, and the shares of a step's time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bench.config import columns as vocabulary
from bench.report import tables

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

COSTS = ("images_per_s", "train_s", "eval_s", "peak_mb", "generator_m", "discriminator_m")
ALIKE = 1.05  # what differs by less between the rows is said in words


@dataclass(frozen=True)
class Bar:
    """A row's cost beside that of the others."""

    name: str
    text: str
    share: float  # of the longest, in per cent
    opens: str  # key of its evidence


def costs(facts: Facts) -> list[tuple[str, list[Bar]]]:
    """Speed, time, memory and size as bars, where the rows differ in them."""
    found = []
    for key, means in _means(facts).items():
        if _alike(means):
            continue
        column, d = vocabulary.MEASURED[key], _decimals(key, means)
        bars = [
            Bar(str(name), f"{mean:.{d}f}", round(100 * mean / means.max(), 1), f"{name}/{key}")
            for name, mean in means.to_dict().items()
        ]
        found.append((f"{column.header} ({column.unit})", bars))
    return found


def alike(facts: Facts) -> str:
    """Return the costs that all rows nearly have in common, in words; empty = none."""
    words = []
    for key, means in _means(facts).items():
        if _alike(means):
            column, d = vocabulary.MEASURED[key], _decimals(key, means)
            ends = dict.fromkeys((f"{means.min():.{d}f}", f"{means.max():.{d}f}"))
            words.append(f"{column.header} {' to '.join(ends)} {column.unit}")
    return f"Nearly alike in all rows: {', '.join(words)}." if words else ""


def _means(facts: Facts) -> dict[str, pd.Series[float]]:
    """The means of each cost that was measured, by cell."""
    return {key: facts.means[key].dropna() for key in COSTS if key in facts.means}


def _decimals(key: str, means: pd.Series[float]) -> int:
    fixed = vocabulary.MEASURED[key].decimals
    return tables.decimals(means) if fixed is None else fixed


def _alike(means: pd.Series[float]) -> bool:
    return bool(means.max() <= 0 or means.max() / max(means.min(), 1e-9) < ALIKE)


@dataclass(frozen=True)
class Ledger:
    """Shares of a training step's time, row by row."""

    parts: list[str]
    rows: list[tuple[str, list[float]]]  # per cent of the step, in the order of `parts`
    shared: list[str]  # rows whose machine had other work


def ledger(facts: Facts) -> Ledger | None:
    """The mean shares of each row's runs; None = no record keeps any."""
    parts = {f"share_{part}": part for part in vocabulary.SHARES}
    shares = facts.means.reindex(columns=list(parts)).rename(columns=parts)
    shares = shares.dropna(how="all").dropna(how="all", axis="columns").fillna(0.0).round(1)
    if shares.empty:
        return None
    slowed = {cell.name for cell in facts.cells if any(run.contended for run in cell.finished)}
    rows = dict(zip(shares.index, shares.to_numpy().tolist(), strict=True))
    return Ledger(
        shares.columns.tolist(), list(rows.items()), [name for name in rows if name in slowed]
    )
