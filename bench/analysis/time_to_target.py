"""Images and time to a target value, row by row, against a reference row.

Two answers stand beside each other: the paper's, the first snapshot below the target, and one that
noise cannot fool (`bench.analysis.survival`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from bench.analysis import row_tests, survival
from bench.analysis.cells import Cell
from bench.analysis.survival import Curve, Median, Noise, Reach
from bench.analysis.target import Target
from bench.config import columns as vocabulary
from bench.config.spec import Grid

OWN_SHARE = 0.05  # the paper's plain rows: images to come within 5 % of a run's own best


@dataclass(frozen=True)
class Times:
    """Times at which the runs of a cell reached the target, by one definition."""

    runs: tuple[Reach, ...]
    replicates: tuple[tuple[int, int], ...] = ()  # of each run

    def by_replicate(self) -> dict[tuple[int, int], Reach]:
        return dict(zip(self.replicates, self.runs, strict=True))

    @property
    def count(self) -> int:
        return sum(run.reached for run in self.runs)

    @property
    def undecided(self) -> int:
        return sum(run.undecided for run in self.runs)

    @cached_property
    def images(self) -> Median:
        return self._median([run.images for run in self.runs])

    @cached_property
    def seconds(self) -> Median:
        return self._median([run.seconds for run in self.runs])

    def _median(self, spent: Sequence[float]) -> Median:
        # Runs are censored by images. In seconds, one that stopped early for being fast was not
        # looked at any less: it is censored with the last.
        reached = [run.reached for run in self.runs]
        end = max(spent)
        return survival.median([s if r else end for s, r in zip(spent, reached, strict=True)],
                               reached)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One cell: its target, and both definitions."""

    target: float  # of the metric; the mean over the runs where each has its own
    first: Times  # snapshot below the target, the paper's rule
    sure: Times | None  # None = the noise is not known
    sigma: float | None  # noise of an evaluation, as a share of the value


@dataclass(frozen=True)
class Factor:
    """Images, or seconds, of the reference over those of a cell."""

    ours: float  # median; inf = not within the budget
    theirs: float
    our_end: float  # of the longest run
    their_end: float  # of the shortest run that did not reach it, or its median
    undecided: bool  # whether noise leaves open if the reference reached it

    @property
    def value(self) -> float | None:
        """The factor, a lower bound where the reference did not reach it. None = unknown."""
        if math.isinf(self.ours) or (math.isinf(self.theirs) and self.undecided):
            return None
        return self.their_end / self.ours

    @property
    def text(self) -> str:
        """For programs: a number, or `>number`. Empty = unknown."""
        more = ">" if math.isinf(self.theirs) else ""
        return "" if self.value is None else f"{more}{self.value:.6g}"


@dataclass(frozen=True)
class Targets:
    """Times at which each cell reached the target of a grid."""

    target: Target
    metric: str
    lines: Mapping[str, Line]  # by cell name; a cell without a curve or a target is not there
    reference: Mapping[str, str]  # cell name -> the cell whose images its own are held against

    @property
    def sure(self) -> bool:
        """True if the noise is known for all cells."""
        return all(line.sure for line in self.lines.values())

    @property
    def references(self) -> set[str]:
        return set(self.reference.values())

    def times(self, name: str) -> Times:
        """By the sure definition where the noise is known for all, by the paper's elsewhere."""
        line = self.lines[name]
        return line.sure if self.sure and line.sure else line.first

    def against(self, name: str) -> Line | None:
        """The line of a cell's reference."""
        return self.lines.get(self.reference.get(name, ""))


def values(grid: Grid, cells: Sequence[Cell]) -> list[float]:
    """Return the target values of a grid, each once; empty = none, or each run has its own."""
    target, metric = _wanted(grid)
    if target is None:
        return []
    found = (_value(target, cell, cells, metric) for cell in cells)
    return list(dict.fromkeys(value for value in found if value is not None))


def measure(grid: Grid, cells: Sequence[Cell]) -> Targets | None:
    """Return when the runs of each cell reached the target; None = no target or no curve.

    The row of `target=row:LABEL` cannot be asked when it beat its own best: its runs count to where
    they come within 5 % of it, as in the plain rows of the paper's Table 3.
    """
    target, metric = _wanted(grid)
    if target is None:
        return None
    curves = {c.name: [k for run in c.finished if (k := run.curve(metric))] for c in cells}
    every = [curve for found in curves.values() for curve in found]
    logs = all(value > 0 for curve in every for _, _, value in curve)  # one scale for all runs
    scaled = partial(survival.scaled, lower=vocabulary.lower_is_better(metric), logs=logs)

    def noise(found: Sequence[Curve]) -> Noise | None:
        return survival.noise([([p[0] for p in c], scaled([p[2] for p in c])) for c in found])

    overall = noise(every)
    lines = {}
    for cell in cells:
        share = OWN_SHARE if cell.row == target.row else target.share
        value = _value(target, cell, cells, metric)
        known = noise(curves[cell.name]) or overall
        if curves[cell.name] and (value is not None if share is None else logs):
            lines[cell.name] = _line(cell, metric, scaled, known, value, share)
    if not lines:
        return None
    named = grid.report if target.row is None else replace(grid.report, compare_to=target.row)
    reference = row_tests.baselines(replace(grid, report=named), cells)
    return Targets(target, metric, lines, {name: cell.name for name, cell in reference.items()})


def _line(
    cell: Cell,
    metric: str,
    scaled: Callable[[Sequence[float]], survival.Array],
    noise: Noise | None,
    value: float | None,
    share: float | None,
) -> Line:
    """A cell against a value, or each of its runs against a share of its own best."""
    sign = 1 if vocabulary.lower_is_better(metric) else -1
    goals, first, sure, replicates = [], [], [], []
    for run in cell.finished:
        curve: Curve = run.curve(metric)
        if not curve:
            continue
        y = scaled([point[2] for point in curve])
        if share is not None:
            best = sign * min(sign * point[2] for point in curve)
            goals.append(best * (1 + sign * share))
            within = abs(math.log1p(sign * share))
            sure += [survival.own_best(curve, y, within, noise)] if noise else []
        elif value is not None:
            goals.append(value)
            goal = float(scaled([value])[0])
            sure += [survival.crossing(curve, y, goal, noise)] if noise else []
        first.append(survival.first_below(curve, goals[-1], sign == 1))
        replicates.append(run.replicate)
    return Line(
        statistics.fmean(goals),
        Times(tuple(first), tuple(replicates)),
        Times(tuple(sure), tuple(replicates)) if noise else None,
        noise.sigma if noise else None,
    )


def factor(ours: Times, theirs: Times, of: str = "images") -> Factor:
    """Return the reference's median over ours, in `images` or `seconds`."""
    mine, other = getattr(ours, of).value, getattr(theirs, of).value
    unfinished = [getattr(run, of) for run in theirs.runs if not run.reached]
    return Factor(
        mine,
        other,
        our_end=max(getattr(run, of) for run in ours.runs),
        their_end=min(unfinished) if math.isinf(other) else other,
        undecided=bool(theirs.undecided),
    )


def _wanted(grid: Grid) -> tuple[Target | None, str]:
    report = grid.report
    if report.target is None or report.rank_by is None:
        return None, ""
    return Target.parse(report.target), report.rank_by


def _value(target: Target, cell: Cell, cells: Sequence[Cell], metric: str) -> float | None:
    """The value that a cell's runs shall reach; None = each has its own, or the row has none."""
    if target.row is None:
        return target.value
    lower = vocabulary.lower_is_better(metric)
    for other in cells:
        if other.row == target.row and other.axes == cell.axes:
            stat = other.fresh_best(metric, lower) or other.best(metric, lower)
            return stat.mean if stat else None
    return None
