"""Images and time to a target value, row by row, and how many times fewer than a reference row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.analysis import row_tests
from bench.analysis.cells import Cell
from bench.analysis.stats import INTERVAL_FROM
from bench.analysis.table import Entry, Row, Table
from bench.analysis.target import Target
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.config.spec import Grid

if TYPE_CHECKING:
    from bench.analysis.survival import Median, Noise, Reach

OWN_SHARE = 0.05  # the paper's plain rows: images to come within 5 % of a run's own best


@dataclass(frozen=True)
class Reached:
    """When the runs of a cell reached the target, by one definition."""

    runs: tuple[Reach, ...]

    @property
    def count(self) -> int:
        return sum(run.reached for run in self.runs)

    @property
    def undecided(self) -> int:
        return sum(run.undecided for run in self.runs)

    def median(self, of: Callable[[Reach], float]) -> Median:
        from bench.analysis.survival import median

        # Runs are censored by images. In seconds, one that stopped early for being fast was not
        # looked at any less: it is censored with the last.
        end = max(of(run) for run in self.runs)
        times = [of(run) if run.reached else end for run in self.runs]
        return median(times, [run.reached for run in self.runs])


@dataclass(frozen=True)
class Line:
    """One cell: its target, and both definitions."""

    target: float  # of the metric; the mean over the runs where each has its own
    paper: Reached
    sound: Reached | None  # None = the noise is not known
    sigma: float | None  # noise of an evaluation, as a share of the value


def values(grid: Grid, cells: Sequence[Cell]) -> list[float]:
    """The target values of a grid, each once; empty = none, or each run has its own."""
    target, metric = _wanted(grid)
    if target is None:
        return []
    found = (_value(target, cell, cells, metric) for cell in cells)
    return list(dict.fromkeys(value for value in found if value is not None))


def lines(grid: Grid, cells: Sequence[Cell]) -> dict[str, Line]:
    """Cell name -> when its runs reached the target; a cell without a curve or target is not there.

    The row of `target=row:LABEL` cannot be asked when it beat its own best: its runs count to where
    they come within 5 % of it, as in the plain rows of the paper's Table 3.
    """
    from bench.analysis import survival

    target, metric = _wanted(grid)
    if target is None:
        return {}
    lower = vocabulary.lower_is_better(metric)
    curves = {c.name: [k for run in c.finished if (k := run.curve(metric))] for c in cells}
    # One scale for all runs.
    logs = all(p[2] > 0 for found in curves.values() for curve in found for p in curve)

    def scaled(numbers: Sequence[float]) -> survival.Array:
        return survival.scaled(numbers, lower, logs)

    def noise(found: Sequence[survival.Curve]) -> Noise | None:
        return survival.noise([([p[0] for p in c], scaled([p[2] for p in c])) for c in found])

    overall = noise([curve for found in curves.values() for curve in found])
    result: dict[str, Line] = {}
    for cell in cells:
        share = OWN_SHARE if cell.row == target.row else target.share
        value = _value(target, cell, cells, metric)
        found = curves[cell.name]
        if not found or (share is None and value is None) or (share is not None and not logs):
            continue
        known = noise(found) or overall
        goals, paper, sound = [], [], []
        for curve in found:
            y = scaled([point[2] for point in curve])
            if share is not None:
                sign = 1 if lower else -1
                best = sign * min(sign * point[2] for point in curve)
                goals.append(best * (1 + sign * share))
                within = abs(math.log1p(sign * share))
                sound += [survival.own_best(curve, y, within, known)] if known else []
            elif value is not None:
                goals.append(value)
                at = float(scaled([value])[0])
                sound += [survival.crossing(curve, y, at, known)] if known else []
            paper.append(survival.first_below(curve, goals[-1], lower))
        result[cell.name] = Line(
            statistics.fmean(goals),
            Reached(tuple(paper)),
            Reached(tuple(sound)) if known else None,
            known.sigma if known else None,
        )
    return result


def table(grid: Grid, cells: Sequence[Cell]) -> Table | None:
    """The table of images to the target and of speed-ups; None = no target or nothing measured."""
    target, metric = _wanted(grid)
    found = lines(grid, cells)
    if target is None or not found:
        return None
    header = vocabulary.column(metric)
    name = target.row or grid.report.compare_to or grid.report.baseline
    reference = _references(grid, target, cells)
    heads = [
        Column("label", "row", text=True),
        Column("target", "target", header.unit),
        Column("first_kimg", "first below", "k"),
        Column("first_reached", "runs", text=True),
        Column("kimg", "reached", "k"),
        Column("low", "from", "k", minor=True),
        Column("high", "to", "k", minor=True),
        Column("reached", "runs", text=True),
    ]
    if reference:
        heads += [
            Column("first_speedup", "speed-up, first below", text=True),
            Column("speedup", "speed-up, reached", text=True),
            Column("time_speedup", "speed-up in time, reached", text=True),
        ]
    rows: list[Row] = []
    factors: list[tuple[str, ...]] = []
    for cell in cells:
        line = found.get(cell.name)
        if line is None:
            rows.append(_without(cell, len(heads), logs_only=target.value is None))
            factors.append(("", "", ""))
            continue
        entries = [Entry(text=cell.name), Entry(line.target)]
        entries += [*_when(line.paper), _count(line.paper)]
        if line.sound is None:
            entries += [Entry(notes=(UNKNOWN_NOISE,)), Entry(), Entry(), Entry()]
        else:
            entries += [*_when(line.sound), *_range(line.sound), _count(line.sound)]
        ups = [_NONE] * 3
        against = found.get(reference[cell.name].name) if cell.name in reference else None
        if against:
            ups[0] = _speedup(line.paper, against.paper, _images)
            if line.sound and against.sound:
                ups[1] = _speedup(line.sound, against.sound, _images)
                ups[2] = _speedup(line.sound, against.sound, _seconds)
        if reference:
            own = "reference" if cell.name in {c.name for c in reference.values()} else ""
            texts = [f"{name} {up.text}" if up.text else own for up in ups[:2]]
            entries += [Entry(text=text) for text in [*texts, ups[2].text]]
        rows.append(Row(tuple(entries)))
        factors.append(tuple(up.factor for up in ups))
    kinds = ("first_factor", "factor", "time_factor")
    extra = {kind: tuple(f[i] for f in factors) for i, kind in enumerate(kinds)}
    return Table(
        name=f"{grid.name}-targets",
        file="targets",
        caption=f"Images until {header.header} reaches {_words(target)}.",
        columns=tuple(heads),
        rows=tuple(rows),
        notes=tuple(_notes(target, found, cells, metric)),
        extra=extra if reference else {},
    )


@dataclass(frozen=True)
class Soon:
    """How soon a cell reached the target, in short."""

    name: str
    images: float  # median over its runs; inf = not within the budget
    runs: str  # how many reached it
    factor: str  # times fewer images than the reference row. Empty = none, or not comparable
    is_reference: bool


def soon(grid: Grid, cells: Sequence[Cell]) -> tuple[str, bool, list[Soon]]:
    """What was to be reached, whether it is surely so, and when each cell did, the first first.

    By the sound definition where the noise is known for all, by the paper's rule elsewhere.
    """
    target, metric = _wanted(grid)
    found = lines(grid, cells)
    if target is None or not found:
        return "", False, []
    sure = all(line.sound for line in found.values())
    reached = {name: line.sound if sure and line.sound else line.paper
               for name, line in found.items()}  # fmt: skip
    against = _references(grid, target, cells)
    of = {cell.name for cell in against.values()}
    result = []
    for name, times in reached.items():
        base = reached.get(against[name].name) if name in against else None
        factor = _speedup(times, base, _images).factor if base else ""
        middle = times.median(_images).value
        result.append(Soon(name, middle, str(_count(times).text), factor, name in of))
    words = f"{vocabulary.column(metric).header} of {_words(target)}"
    if target.row is not None:
        values = sorted({round(line.target, 9) for name, line in found.items() if name not in of})
        values_said = f" ({values[0]:.3g})" if len(values) == 1 else ""
        words = f"{_words(target)}{values_said}"
    return words, sure, sorted(result, key=lambda one: one.images)


UNKNOWN_NOISE = "too few snapshots to know the noise of an evaluation, so nothing is sure"
FIRST_NOTE = (
    "First below: the paper's rule, the first evaluated snapshot below the target; with noisy "
    "evaluations that is too early, and a plateau above the target passes for it."
)
REACHED_NOTE = (
    "Reached: some stretch of the curve is below the target by more than the noise of evaluations "
    "(1 % for a wrong one), at the first snapshot where the monotone fit is there. Undecided: the "
    "fit comes down to it, but by less than the noise."
)
SEEDS_NOTE = (
    "Over seeds: median; runs that do not reach it are censored (Kaplan-Meier). From, to: 95 % "
    "interval of the median (Brookmeyer-Crowley), earliest and latest run below five."
)


@dataclass(frozen=True)
class _Up:
    text: str = ""
    factor: str = ""  # for programs: a number, or >number where the reference was not seen to end


_NONE = _Up()


def _images(reach: Reach) -> float:
    return float(reach.images)


def _seconds(reach: Reach) -> float:
    return reach.seconds


def _speedup(ours: Reached, theirs: Reached, of: Callable[[Reach], float]) -> _Up:
    """`5 k → 1.2 k, 4.2x`: the reference's median, ours, and how many times fewer."""
    say = _amount if of is _images else _duration
    mine, other = ours.median(of).value, theirs.median(of).value
    last = min(of(run) for run in theirs.runs if not run.reached) if math.isinf(other) else other
    if math.isinf(mine):
        end = max(of(run) for run in ours.runs)
        before = f">{say(last)}" if math.isinf(other) else say(other)
        return _Up(f"{before} → not in {say(end)}")
    if not math.isinf(other):
        return _Up(f"{say(other)} → {say(mine)}, {_times(other / mine)}", f"{other / mine:.6g}")
    if theirs.undecided:
        return _Up(f"undecided at {say(last)} → {say(mine)}")
    return _Up(f">{say(last)} → {say(mine)}, >{_times(last / mine)}", f">{last / mine:.6g}")


def _when(reached: Reached) -> list[Entry]:
    middle = reached.median(_images).value
    if math.isinf(middle):
        last = max(run.images for run in reached.runs)
        return [Entry(text=f">{last / 1000:.3g}")]
    return [Entry(middle / 1000)]


def _range(reached: Reached) -> list[Entry]:
    """The median's interval; below five runs the earliest and the latest."""
    ends = [run.images if run.reached else math.inf for run in reached.runs]
    low, high = min(ends), max(ends)
    if len(ends) >= INTERVAL_FROM:
        found = reached.median(_images)
        low, high = found.low, found.high
    elif len(ends) == 1:
        return [Entry(), Entry()]
    last = max(run.images for run in reached.runs)
    texts = (f">{last / 1000:.3g}" if math.isinf(end) else "" for end in (low, high))
    return [
        Entry(text=text) if text else Entry(end / 1000)
        for text, end in zip(texts, (low, high), strict=True)
    ]


def _count(reached: Reached) -> Entry:
    more = f", {reached.undecided} undecided" if reached.undecided else ""
    return Entry(text=f"{reached.count} of {len(reached.runs)}{more}")


def _without(cell: Cell, width: int, logs_only: bool) -> Row:
    blank = (Entry(text=cell.name), *[Entry()] * (width - 1))
    if cell.finished or not cell.unfinished:
        reason = "no curve of the metric" + (", or values of 0 and less" if logs_only else "")
        return Row(blank, "not measured", reason)
    return Row(blank, cell.unfinished[0].status, cell.unfinished[0].reason)


def _notes(
    target: Target, found: Mapping[str, Line], cells: Sequence[Cell], metric: str
) -> list[str]:
    notes = [FIRST_NOTE, REACHED_NOTE, SEEDS_NOTE]
    sigmas = [line.sigma for line in found.values() if line.sigma is not None]
    if sigmas:
        low, high = min(sigmas), max(sigmas)
        both = f"{low:.1%}" if f"{low:.1%}" == f"{high:.1%}" else f"{low:.1%} to {high:.1%}"
        notes.append(
            f"Noise of one evaluation, from how the curves jump between snapshots: {both}; where "
            "snapshots are few, bends count as noise."
        )
    if target.row is not None:
        lower = vocabulary.lower_is_better(metric)
        bests = [c for c in cells if c.row == target.row and c.best(metric, lower)]
        fresh = all(c.fresh_best(metric, lower) for c in bests)
        how = "on fresh samples" if fresh else "as its curve has it, picked after looking"
        notes.append(
            f"Target: mean best of {target.row} {how}. Its own line, and what others are held "
            f"against: images to come within {OWN_SHARE:.0%} of its own best."
        )
    return notes


def _words(target: Target) -> str:
    if target.row is not None:
        return f"the best of {target.row}"
    if target.share is not None:
        return f"{100 * target.share:.3g} % above each run's own best"
    return f"{target.value:g}"


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


def _references(grid: Grid, target: Target, cells: Sequence[Cell]) -> dict[str, Cell]:
    """Cell name -> the cell whose images its own are held against."""
    if target.row is None:
        return row_tests.baselines(grid, cells)
    report = replace(grid.report, compare_to=target.row)
    return row_tests.baselines(replace(grid, report=report), cells)


def _amount(images: float) -> str:
    return f"{images / 1e6:.3g} M" if images >= 1e6 else f"{images / 1e3:.3g} k"


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 60:.3g} min" if seconds > 600 else f"{seconds:.3g} s"


def _times(factor: float) -> str:
    return f"{factor:.0f}x" if factor >= 9.5 else f"{factor:.2g}x"
