"""Rows against a named baseline, seed by seed: what is better, what is worse, what is too few."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.analysis.cells import Cell
from bench.analysis.stats import ALPHA, holm, pairs_needed, sign_flip_p, smallest_p
from bench.analysis.table import Entry, Row, Table
from bench.config.columns import Column
from bench.config.spec import Grid, value_name

Verdict = Literal["better", "worse", "undecided", "too few seeds"]

TEST = "exact two-sided sign-flip test"


@dataclass(frozen=True)
class Comparison:
    """A cell against its baseline, over the seeds that both have finished."""

    n: int  # common seeds
    difference: float  # mean over them, cell - baseline
    p: float | None  # sign-flip test, Holm over the column's rows. None = never below alpha
    verdict: Verdict


def baselines(grid: Grid, cells: Sequence[Cell]) -> dict[str, Cell]:
    """Cell name -> the cell that it is compared with; a baseline itself is not there.

    `report.compare_to` names a row (compared at the same axis values) or a value of an axis
    (compared within the row). Without it, the row that `report.baseline` names.
    """
    name = grid.report.compare_to or grid.report.baseline
    if name is None:
        return {}
    axis, _, value = name.partition("=")
    by_axis = axis in grid.axes

    def is_baseline(cell: Cell) -> bool:
        return value_name(axis, cell.axes.get(axis)) == value if by_axis else cell.row == name

    def rest(cell: Cell) -> str:  # what a cell shares with its baseline
        axes = {k: v for k, v in cell.axes.items() if not (by_axis and k == axis)}
        return repr((cell.row if by_axis else "", sorted(axes.items())))

    found = {rest(cell): cell for cell in cells if is_baseline(cell)}
    return {
        cell.name: found[rest(cell)]
        for cell in cells
        if not is_baseline(cell) and rest(cell) in found
    }


def compare(
    cells: Sequence[Cell], against: Mapping[str, Cell], metric: str, lower_is_better: bool = True
) -> dict[str, Comparison]:
    """Tests each cell against its baseline, paired by seed, and corrects for their number.

    Args:
        cells: All cells of a table.
        against: Cell name -> its baseline, as `baselines` gives it.
        metric: Key of the metric; of each run's last snapshot.
        lower_is_better: Which way is better.

    Returns:
        By cell name, for the cells that have a common seed with their baseline.
    """
    pairs = {c.name: d for c in cells if c.name in against if (d := _paired(c, against, metric))}
    # A row with too few seeds for any test is no member of the family that Holm corrects for
    # (Tarone, Biometrics 1990). Of the others: what could the test say at most?
    able = {name: d for name, d in pairs.items() if smallest_p(len(d)) <= ALPHA}
    adjusted = dict(zip(able, holm([sign_flip_p(d) for d in able.values()]), strict=True))
    at_best = dict(zip(able, holm([smallest_p(len(d)) for d in able.values()]), strict=True))
    found = {}
    for name, d in pairs.items():
        difference, p = statistics.fmean(d), adjusted.get(name)
        verdict: Verdict = "undecided"
        if p is None or at_best[name] > ALPHA:
            verdict = "too few seeds"
        elif p <= ALPHA:
            verdict = "better" if (difference < 0) == lower_is_better else "worse"
        found[name] = Comparison(len(d), difference, p, verdict)
    return found


def note(grid: Grid, found: Sequence[Mapping[str, Comparison]]) -> str:
    """What bold means in a table, or why nothing in it can be; empty = nothing is compared.

    Args:
        grid: Says what the rows are compared with.
        found: What `compare` gave for each column.
    """
    name = grid.report.compare_to or grid.report.baseline
    every = [c for column in found for c in column.values()]
    if not every:
        return ""
    few = [c for c in every if c.verdict == "too few seeds"]
    testable = max(sum(c.p is not None for c in column.values()) for column in found)
    rows = testable or max(map(len, found))
    holm_over = f", Holm's correction over {rows} rows in each column" if rows > 1 else ""
    if len(few) < len(every):
        line = f"Bold: better than {name} ({TEST}, paired by seed{holm_over}, {ALPHA:.0%})."
        return line + (" Rows with too few seeds for it are not bold." if few else "")
    most = max(c.n for c in few)
    return (
        f"Not tested against {name}: with {most} common seed{'s' if most > 1 else ''} the {TEST} "
        f"can never reject at {ALPHA:.0%}{holm_over}; it needs {pairs_needed(rows)} seeds."
    )


def seeds_table(
    grid: Grid, cells: Sequence[Cell], metric: str, header: Column, lower_is_better: bool
) -> Table | None:
    """Every point of one metric, its interval, and the comparison with the baseline.

    Args:
        grid: Says what is compared.
        cells: One line each.
        metric: Key of the metric.
        header: Its column in the main table.
        lower_is_better: Which way is better.

    Returns:
        None where no cell has two finished runs.
    """
    stats = {cell.name: cell.stat(metric) for cell in cells}
    if not any(stat and stat.n > 1 for stat in stats.values()):
        return None
    against = baselines(grid, cells)
    found = compare(cells, against, metric, lower_is_better)
    columns = [
        Column("label", "row", text=True),
        Column("n", "n", decimals=0),
        Column(metric, header.header, header.unit),
        Column("low", "from", header.unit),
        Column("high", "to", header.unit),
        Column("points", "all runs", text=True),
    ]
    if against:
        columns += [
            Column("difference", "difference"),
            Column("p_holm", "p (Holm)", decimals=3),
            Column("verdict", "verdict", text=True),
        ]
    rows = []
    for cell in cells:
        stat = stats[cell.name]
        if stat is None:
            rows.append(_empty(cell, len(columns)))
            continue
        interval, versus = stat.interval, found.get(cell.name)
        entries = [
            Entry(text=cell.name),
            Entry(float(stat.n)),
            Entry(stat.mean, bold=bool(versus and versus.verdict == "better")),
            *((Entry(interval.low), Entry(interval.high)) if interval else (Entry(), Entry())),
            Entry(text=", ".join(f"{point:.4g}" for point in stat.points)),
        ]
        if against and versus:
            entries += [Entry(versus.difference), Entry(versus.p), Entry(text=_said(versus))]
        elif against:
            own = "baseline" if cell.name in {c.name for c in against.values()} else ""
            entries += [Entry(), Entry(), Entry(text=own)]
        rows.append(Row(tuple(entries)))
    kinds = {s.interval.kind for s in stats.values() if s and s.interval}
    words = [
        "95 % interval of the mean by Student's t" if "t" in kinds else "",
        "lowest and highest run where there are fewer than five" if "range" in kinds else "",
    ]
    name = grid.report.compare_to or grid.report.baseline
    lines = [
        f"From, to: {'; '.join(word for word in words if word)}.",
        f"Difference: mean over the seeds that the row and {name} have in common."
        if against
        else "",
        note(grid, [found]),
    ]
    return Table(
        name=f"{grid.name}-seeds",
        file="seeds",
        caption=f"{header.header} of the last snapshot, run by run.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(line for line in lines if line),
    )


def _said(versus: Comparison) -> str:
    few = versus.verdict == "too few seeds"
    return f"too few seeds ({versus.n})" if few else versus.verdict


def _empty(cell: Cell, width: int) -> Row:
    reason = cell.unfinished[0].reason if cell.unfinished else ""
    status = cell.unfinished[0].status if cell.unfinished else "not measured"
    return Row((Entry(text=cell.name), *[Entry()] * (width - 1)), status, reason)


def _paired(cell: Cell, against: Mapping[str, Cell], metric: str) -> list[float]:
    """Differences to the baseline over the common seeds."""
    ours, theirs = cell.by_seed(metric), against[cell.name].by_seed(metric)
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
