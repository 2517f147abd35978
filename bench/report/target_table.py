"""The table of images and time to a target, with speed-ups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bench.analysis.cells import Cell
from bench.analysis.stats import INTERVAL_FROM
from bench.analysis.table import Entry, Row, Table, Values
from bench.analysis.target import Target
from bench.analysis.time_to_target import OWN_SHARE, Factor, Line, Targets, Times, factor
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.config.spec import Grid

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


def targets(grid: Grid, cells: Sequence[Cell], found: Targets) -> Table:
    """Return images to the target and speed-ups, a line for each cell."""
    header, target = vocabulary.column(found.metric), found.target
    name = target.row or grid.report.compare_to or grid.report.baseline
    columns = [
        Column("label", "row", text=True),
        Column("target", "target", header.unit),
        Column("first_kimg", "first below", "k"),
        Column("first_reached", "runs", text=True),
        Column("kimg", "reached", "k"),
        Column("low", "from", "k", minor=True),
        Column("high", "to", "k", minor=True),
        Column("reached", "runs", text=True),
    ]
    if found.reference:
        columns += [
            Column("first_speedup", "speed-up, first below", text=True),
            Column("speedup", "speed-up, reached", text=True),
            Column("time_speedup", "speed-up in time, reached", text=True),
        ]
    logs_only = ", or values of 0 and less" if target.value is None else ""
    rows = []
    extra: dict[str, list[str]] = {"first_factor": [], "factor": [], "time_factor": []}
    for cell in cells:
        line = found.lines.get(cell.name)
        ups = _factors(line, found.against(cell.name)) if line else {}
        for key, kind in zip(extra, ("first_speedup", "speedup", "time_speedup"), strict=True):
            extra[key].append(ups[kind].text if kind in ups else "")
        if line is None:
            why = cell.unmeasured(f"no curve of the metric{logs_only}")
            rows.append(Row.by_column(columns, {"label": cell.name}, *why))
            continue
        values = {"label": cell.name, "target": line.target, **_reached(line)}
        own = "reference" if cell.name in found.references else ""
        for kind in ("first_speedup", "speedup"):
            values[kind] = f"{name} {_speedup(ups[kind], _amount)}" if kind in ups else own
        if "time_speedup" in ups:
            values["time_speedup"] = _speedup(ups["time_speedup"], _duration)
        rows.append(Row.by_column(columns, values))
    return Table(
        name=f"{grid.name}-targets",
        file="targets",
        caption=f"Images until {header.header} reaches {target_words(target)}.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(_target_notes(found, cells)),
        extra={key: tuple(texts) for key, texts in extra.items()} if found.reference else {},
    )


def _factors(line: Line, against: Line | None) -> dict[str, Factor]:
    if against is None:
        return {}
    found = {"first_speedup": factor(line.first, against.first)}
    if line.sure and against.sure:
        found["speedup"] = factor(line.sure, against.sure)
        found["time_speedup"] = factor(line.sure, against.sure, "seconds")
    return found


def _reached(line: Line) -> Values:
    values: Values = {
        "first_kimg": _kimg(line.first.images.value, line.first),
        "first_reached": count_words(line.first),
    }
    if line.sure is None:
        return values | {"kimg": Entry(notes=(UNKNOWN_NOISE,))}
    values |= {"kimg": _kimg(line.sure.images.value, line.sure), "reached": count_words(line.sure)}
    if len(line.sure.runs) == 1:
        return values
    ends = [run.images if run.reached else math.inf for run in line.sure.runs]
    low, high = min(ends), max(ends)
    if len(ends) >= INTERVAL_FROM:
        low, high = line.sure.images.low, line.sure.images.high
    return values | {"low": _kimg(low, line.sure), "high": _kimg(high, line.sure)}


def _kimg(images: float, times: Times) -> float | str:
    if math.isinf(images):
        return f">{max(run.images for run in times.runs) / 1000:.3g}"
    return images / 1000


def count_words(times: Times) -> str:
    """`2 of 3, 1 undecided`."""
    more = f", {times.undecided} undecided" if times.undecided else ""
    return f"{times.count} of {len(times.runs)}{more}"


def target_words(target: Target) -> str:
    if target.row is not None:
        return f"the best of {target.row}"
    if target.share is not None:
        return f"{100 * target.share:.3g} % above each run's own best"
    return f"{target.value:g}"


def _target_notes(found: Targets, cells: Sequence[Cell]) -> list[str]:
    notes, target = [FIRST_NOTE, REACHED_NOTE, SEEDS_NOTE], found.target
    sigmas = [line.sigma for line in found.lines.values() if line.sigma is not None]
    if sigmas:
        both = dict.fromkeys(f"{sigma:.1%}" for sigma in (min(sigmas), max(sigmas)))
        notes.append(
            "Noise of one evaluation, from how the curves jump between snapshots: "
            f"{' to '.join(both)}; where snapshots are few, bends count as noise."
        )
    if target.row is not None:
        lower = vocabulary.lower_is_better(found.metric)
        bests = [c for c in cells if c.row == target.row and c.best(found.metric, lower)]
        fresh = all(c.fresh_best(found.metric, lower) for c in bests)
        how = "on fresh samples" if fresh else "as its curve has it, picked after looking"
        notes.append(
            f"Target: mean best of {target.row} {how}. Its own line, and what others are held "
            f"against: images to come within {OWN_SHARE:.0%} of its own best."
        )
    return notes


def _speedup(found: Factor, show: Callable[[float], str]) -> str:
    """`5 k → 1.2 k, 4.2x`: the reference's median, ours, and how many times fewer."""
    more = ">" if math.isinf(found.theirs) else ""
    before = f"{more}{show(found.their_end)}"
    if math.isinf(found.ours):
        return f"{before} → not in {show(found.our_end)}"
    if found.value is None:
        return f"undecided at {show(found.their_end)} → {show(found.ours)}"
    times = f"{found.value:.0f}x" if found.value >= 9.5 else f"{found.value:.2g}x"
    return f"{before} → {show(found.ours)}, {more}{times}"


def _amount(images: float) -> str:
    return f"{images / 1e6:.3g} M" if images >= 1e6 else f"{images / 1e3:.3g} k"


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 60:.3g} min" if seconds > 600 else f"{seconds:.3g} s"
