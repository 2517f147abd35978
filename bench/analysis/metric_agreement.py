"""Whether a grid's conclusion depends on the metric: how alike the metrics rank its rows.

Kendall's tau between each two metrics over the rows, and how far it moves when the seeds are drawn
again. A row with a single run does not show how far it would move, so then nothing is concluded.
Metrics of a row's own features compare nothing across rows and are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis import feature_overlap, paper_numbers
from bench.analysis.cells import Cell
from bench.analysis.table import Entry, Row, Table
from bench.config.columns import Column
from bench.config.metrics import METRICS
from bench.config.spec import Grid

RESAMPLES = 2000
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


def taus(values: Mapping[str, Points], resamples: int = RESAMPLES) -> dict[tuple[str, str], Tau]:
    """Kendall's tau-b between all pairs of metrics, with the interval that seeds give.

    In each of `resamples` rounds the runs of every row are drawn again, with the same draw for all
    metrics, as a run's metrics belong together; the interval holds the middle 95 % of the taus.

    Args:
        values: metric -> by row, one value per seed, lower = better. All metrics have the same
            rows with the same seeds.
        resamples: rounds; they are seeded.
    """
    import numpy as np

    names = list(values)
    rows = len(values[names[0]])
    means = {m: [sum(points) / len(points) for points in values[m]] for m in names}
    drawn = None
    if all(len(points) > 1 for points in values[names[0]]):
        rng = np.random.default_rng(0)
        picked = np.empty((resamples, len(names), rows))
        for r in range(rows):
            runs = np.array([values[m][r] for m in names])  # [metrics, seeds]
            n = runs.shape[1]
            chosen = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
            often = np.bincount(chosen.ravel(), minlength=resamples * n).reshape(resamples, n)
            picked[:, :, r] = often @ runs.T / n
        both = np.empty((resamples, len(names), len(names)))
        for b, order in enumerate(picked):  # [metrics, rows]
            signs = np.sign(order[:, :, None] - order[:, None, :]).reshape(len(names), -1)
            both[b] = signs @ signs.T / 2  # each pair of rows is there in both directions
        told = np.einsum("bmm->bm", both)  # pairs of rows that a metric tells apart
        scale = np.sqrt(told[:, :, None] * told[:, None, :])
        drawn = np.divide(both, scale, out=np.zeros_like(both), where=scale > 0)
    found = {}
    for (a, one), (b, other) in itertools.combinations(enumerate(names), 2):
        value = paper_numbers.kendall(means[one], means[other])
        if drawn is None or value is None:
            found[one, other] = Tau(value)
        else:
            low, high = np.quantile(drawn[:, a, b], [0.025, 0.975])
            found[one, other] = Tau(value, float(low), float(high))
    return found


def panel(grid: Grid, cells: Sequence[Cell]) -> Panel | None:
    """How the metrics of a grid agree; None = fewer than two metrics, or than three rows."""
    rank_by = grid.report.rank_by
    # What only some of the rows have would cost the others their place.
    ranked = [c for c in cells if rank_by and c.stat(rank_by)]
    ranked = ranked or [c for c in cells if c.finished]
    metrics = [
        key
        for key, metric in METRICS.items()
        if metric.extractor != "own"
        and not metric.norms
        and ranked
        and all(c.stat(key) for c in ranked)
    ]
    metrics.sort(key=lambda key: key != rank_by)  # stable: the ranking metric first
    values: dict[str, list[list[float]]] = {key: [] for key in metrics}
    kept = []
    for cell in ranked:
        # A row counts by the runs that have every metric.
        found = [[run.value(key) for key in metrics] for run in cell.finished]
        whole = [[v for v in line if v is not None] for line in found]
        whole = [line for line in whole if len(line) == len(metrics)]
        if whole:
            kept.append(cell.name)
            for k, key in enumerate(metrics):
                sign = 1 if METRICS[key].lower_is_better else -1
                values[key].append([sign * line[k] for line in whole])
    if len(metrics) < 2 or len(kept) < FEWEST:
        return None
    first = {}
    for key in metrics:
        means = [sum(points) / len(points) for points in values[key]]
        first[key] = kept[means.index(min(means))]
    return Panel(tuple(metrics), tuple(kept), taus(values), first)


def conclusion(found: Panel, rank_by: str | None) -> str:
    """One line: does what the grid shows depend on the metric?"""
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


def table(grid: Grid, cells: Sequence[Cell], found: Panel) -> Table:
    """The panel as a table, one line for each pair of metrics."""
    specs = [cell.spec for cell in cells if cell.name in found.rows]
    flagged = {m: feature_overlap.shared_by(specs, m) for m in found.metrics}

    def entry(metric: str) -> Entry:
        rows, of = len(flagged[metric]), len(specs)
        notes = (f"flagged by leakage in {rows} of {of} rows",) if rows else ()
        return Entry(text=METRICS[metric].header, notes=notes)

    rows = []
    for (one, other), tau in found.taus.items():
        ends = (Entry(tau.low), Entry(tau.high)) if tau.low is not None else (Entry(), Entry())
        value = Entry(tau.value) if tau.value is not None else Entry()
        rows.append(Row((entry(one), entry(other), value, *ends)))
    first = "; ".join(f"{METRICS[m].header}: {row}" for m, row in found.first.items())
    seeds = (
        f"From, to: 95 % of {RESAMPLES} draws of the seeds."
        if any(tau.low is not None for tau in found.taus.values())
        else "A row with a single run of all metrics: no interval."
    )
    return Table(
        name=f"{grid.name}-agreement",
        caption=(
            f"Kendall's tau between metrics over {len(found.rows)} rows: 1 = the same order, 0 = "
            "unrelated, -1 = the reverse."
        ),
        columns=(
            Column("metric", "metric", text=True),
            Column("other", "and", text=True),
            Column("tau", "tau", decimals=2),
            Column("from", "from", decimals=2),
            Column("to", "to", decimals=2),
        ),
        rows=tuple(rows),
        notes=(conclusion(found, grid.report.rank_by), f"First by {first}.", seeds),
    )


def _shown(tau: Tau) -> str:
    if tau.value is None:
        return "undefined"
    if tau.low is None or tau.high is None:
        return f"{tau.value:.2f}"
    return f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
