"""Agreement of metrics on the order of a grid's rows: does its conclusion depend on the metric?

Kendall's tau between each two metrics over the rows, and how far it moves when the seeds are
resampled. A row with a single run does not show how far it would move: then nothing is concluded.
Metrics of a row's own features compare nothing across rows and are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.analysis.cells import Cell
from bench.analysis.stats import kendall
from bench.config.metrics import METRICS
from bench.config.spec import Grid

RESAMPLES = 2000
VALUES_AT_ONCE = 2_000_000  # of resamples
FEWEST = 3  # rows that can be ranked in more than two ways

Points = Sequence[Sequence[float]]  # by row: one value per seed, lower = better


@dataclass(frozen=True)
class Tau:
    """Agreement of two metrics on the order of the rows."""

    value: float | None  # None = a metric does not tell the rows apart
    low: float | None = None  # 95 % interval over seeds. None = a row with one run tells none
    high: float | None = None

    @property
    def agrees(self) -> bool:
        """Surely more alike than by chance."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True)
class Panel:
    """All pairs of metrics over the rows that have all of them."""

    metrics: tuple[str, ...]
    rows: tuple[str, ...]
    taus: Mapping[tuple[str, str], Tau]
    first: Mapping[str, str]  # metric -> the row that it ranks first

    def tau(self, one: str, other: str) -> Tau:
        return self.taus[one, other] if (one, other) in self.taus else self.taus[other, one]


def taus(values: Mapping[str, Points]) -> dict[tuple[str, str], Tau]:
    """Return Kendall's tau-b between all pairs of metrics, with its 95 % interval over seeds.

    The runs of every row are resampled, a run with all its metrics. The interval is the percentile
    bootstrap's: BCa's is undefined where no resample changes the order.

    Args:
        values: metric -> by row, one value per seed, lower = better. All metrics have the same
            rows with the same seeds.
    """
    names = list(values)
    pairs = list(itertools.combinations(names, 2))
    rows = [np.array(row) for row in zip(*values.values(), strict=True)]  # each [metrics, seeds]
    means = dict(zip(names, np.array([row.mean(axis=1) for row in rows]).T, strict=True))
    ends: list[tuple[float, float]] | list[tuple[None, None]] = [(None, None)] * len(pairs)
    if all(row.shape[1] > 1 for row in rows):
        batch = max(1, VALUES_AT_ONCE // len(rows) ** 2)
        found = stats.bootstrap(
            rows, _taus, n_resamples=RESAMPLES, batch=batch, axis=-1, method="percentile", rng=0
        ).confidence_interval
        ends = list(zip(map(float, found.low), map(float, found.high), strict=True))
    result = {}
    for (one, other), (low, high) in zip(pairs, ends, strict=True):
        value = kendall(means[one], means[other])
        result[one, other] = Tau(value) if value is None else Tau(value, low, high)
    return result


def _taus(*rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """[metrics, ..., seeds] of each row -> [pairs of metrics, ...]; 0 where tau is undefined."""
    means = np.stack([row.mean(axis=axis) for row in rows], axis=-1)
    a, b = np.triu_indices(len(rows), 1)
    order = np.moveaxis(np.sign(means[..., a] - means[..., b]), 0, -2)  # [..., metrics, row pairs]
    agree = order @ order.swapaxes(-1, -2)
    differ = np.diagonal(agree, axis1=-2, axis2=-1)  # pairs of rows that a metric does not tie
    a, b = np.triu_indices(agree.shape[-1], 1)
    scale = np.sqrt(differ[..., a] * differ[..., b])
    found = np.divide(agree[..., a, b], scale, out=np.zeros_like(scale), where=scale > 0)
    return np.moveaxis(found, -1, 0)


def panel(grid: Grid, cells: Sequence[Cell]) -> Panel | None:
    """Return how the metrics of a grid agree; None = fewer than two metrics, or than three rows."""
    rank_by = grid.report.rank_by
    # What only some of the rows have would cost the others their place.
    ranked = [c for c in cells if rank_by and c.stat(rank_by)]
    ranked = ranked or [c for c in cells if c.finished]
    signs = {
        key: 1 if metric.lower_is_better else -1
        for key, metric in METRICS.items()
        if metric.extractor != "own" and not metric.norms
    }
    runs = [(cell.name, run) for cell in ranked for run in cell.finished]
    frame = pd.DataFrame(
        [[run.value(key) for key in signs] for _, run in runs],
        index=[name for name, _ in runs],
        columns=list(signs),
        dtype=float,
    )
    measured = frame.notna().groupby(level=0).any().all()
    metrics = sorted(measured.index[measured], key=lambda key: key != rank_by)
    # A row counts by the runs that have every metric.
    whole = (frame * pd.Series(signs))[metrics].dropna()
    rows = list(dict.fromkeys(whole.index))
    if len(metrics) < 2 or len(rows) < FEWEST:
        return None
    values = {key: [whole.loc[[row], key].to_list() for row in rows] for key in metrics}
    means = whole.groupby(level=0, sort=False).mean()
    first = {key: str(means[key].idxmin()) for key in metrics}
    return Panel(tuple(metrics), tuple(rows), taus(values), first)


def conclusion(found: Panel, rank_by: str | None) -> str:
    """Return one line: does what the grid shows depend on the metric?"""
    lead = rank_by if rank_by in found.metrics else found.metrics[0]
    others = [m for m in found.metrics if m != lead]
    name = METRICS[lead].header
    apart = [m for m in others if not found.tau(lead, m).agrees]
    elsewhere = [m for m in others if found.first[m] != found.first[lead]]
    n = f"{len(found.rows)} rows"
    lowest = min(others, key=lambda m: found.tau(lead, m).value or 0.0)
    if any(tau.value is not None and tau.low is None for tau in found.taus.values()):
        same = sum(found.first[m] == found.first[lead] for m in others)
        return (
            "Whether the conclusion depends on the metric is not known: a row with a single "
            f"run of all metrics does not show how far seeds move the order of {n}. In these runs "
            f"{same} of {len(others)} other metrics have {name}'s first, {found.first[lead]}; the "
            f"lowest tau with it is {_shown(found.tau(lead, lowest))}, {METRICS[lowest].header}."
        )
    if not apart and not elsewhere:
        return (
            f"The conclusion does not depend on the metric: all {len(found.metrics)} agree with "
            f"{name} on the order of {n} and on the first, {found.first[lead]} (lowest tau "
            f"{_shown(found.tau(lead, lowest))}, {METRICS[lowest].header})."
        )
    said = []
    if apart:
        listed = ", ".join(f"{METRICS[m].header} {_shown(found.tau(lead, m))}" for m in apart)
        said.append(f"no sure agreement with {name} on the order of {n}: tau {listed}")
    if elsewhere:
        rows = {row: [m for m in elsewhere if found.first[m] == row] for row in found.rows}
        listed = "; ".join(
            f"{row} by {', '.join(METRICS[m].header for m in by)}" for row, by in rows.items() if by
        )
        said.append(f"{name} ranks {found.first[lead]} first, {listed}")
    return f"The conclusion depends on the metric: {'. '.join(said)}."


def _shown(tau: Tau) -> str:
    if tau.value is None:
        return "undefined"
    if tau.low is None or tau.high is None:
        return f"{tau.value:.2f}"
    return f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
