"""Rows against a named baseline, seed by seed: what is better, what is worse, what is too few."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.cells import Cell
from bench.analysis.stats import ALPHA, holm, pairs_needed, sign_flip_p, smallest_p
from bench.analysis.verdicts import RowWord
from bench.config.spec import Grid, value_name

TEST = "exact two-sided sign-flip test"


@dataclass(frozen=True)
class Comparison:
    """A cell against its baseline, over the seeds that both have finished."""

    n: int  # common seeds
    difference: float  # mean over them, cell - baseline
    p: float | None  # sign-flip test, Holm over the column's rows. None = never below alpha
    verdict: RowWord


def baselines(grid: Grid, cells: Sequence[Cell]) -> dict[str, Cell]:
    """Return the cell that each cell is compared with, by name; a baseline has none.

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
    """Return each cell against its baseline, paired by seed, corrected for their number.

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
        verdict: RowWord = "undecided"
        if p is None or at_best[name] > ALPHA:
            verdict = "too few seeds"
        elif p <= ALPHA:
            verdict = "better" if (difference < 0) == lower_is_better else "worse"
        found[name] = Comparison(len(d), difference, p, verdict)
    return found


def note(grid: Grid, found: Sequence[Mapping[str, Comparison]]) -> str:
    """Return what bold means in a table, or why nothing in it can be; empty = nothing is compared.

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


def _paired(cell: Cell, against: Mapping[str, Cell], metric: str) -> list[float]:
    """Differences to the baseline over the common seeds."""
    ours, theirs = cell.by_seed(metric), against[cell.name].by_seed(metric)
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
