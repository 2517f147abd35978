"""The main table of a grid: its columns, and the source of each value."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.analysis import feature_overlap, paper_numbers
from bench.analysis.cells import FIELDS, Cell, Stat
from bench.analysis.table import Entry, Row, Table
from bench.config.columns import (
    MEASURED,
    PAPER,
    Column,
    column,
    expand,
    lower_is_better,
    metric_of,
    split,
)
from bench.report import captions, side_tables

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

CLOCKED = ("images_per_s", "s_per_kimg", "time_s", "train_s", "peak_share")
SHARED_MACHINE = "the machine was shared: the process waited for a processor"
PICKED = "picked after looking: the best value of the curve itself, not of a fresh sample"


def build(facts: Facts) -> Table:
    """The table of a grid: one line per cell, in the grid's order, measured columns first."""
    grid, columns = facts.grid, _columns(facts)
    rows = []
    for cell in facts.cells:
        entries = (
            _label(cell, bool(grid.report.paper)),
            *(_entry(facts, cell, c.key) for c in columns),
        )
        first = None if cell.finished or not cell.unfinished else cell.unfinished[0]
        rows.append(Row(entries, first.status, first.reason) if first else Row(entries))
    table = Table(
        name=grid.name,
        caption=captions.caption(facts),
        columns=(Column("label", "row", text=True), *columns),
        rows=tuple(rows),
        notes=tuple(captions.notes(facts)),
        extra={
            "scale": (grid.scale,) * len(rows),
            "run_ids": tuple(" ".join(run.spec.run_id for run in c.runs) for c in facts.cells),
        },
    )
    if grid.report.paper is None:
        return table
    judged = [facts.judged.get(cell.name, ()) for cell in facts.cells]
    return side_tables.with_verdicts(
        table, grid, judged, paper_numbers.main_column(grid.report.paper)
    )


def _columns(facts: Facts) -> list[Column]:
    """The columns after the row's name: ours, then the paper's."""
    keys = expand(facts.grid.report.columns)
    if "n" not in keys and len({len(cell.finished) for cell in facts.cells} - {0}) > 1:
        keys.append("n")  # the caption says it where all are alike
    return sorted((column(key) for key in keys), key=lambda c: c.paper)


def _label(cell: Cell, beside_paper: bool) -> Entry:
    notes: list[str] = []
    if beside_paper:  # how the backbone's protocol differs from the paper's
        said = ((run.record or {}).get("backbone") or {} for run in cell.finished)
        notes += dict.fromkeys(backbone["note"] for backbone in said if backbone.get("note"))
    small = [
        m["images"]
        for run in cell.finished
        if (m := (run.record or {}).get("micro_batch")) and run.spec.config.train.norm_group is None
    ]  # whole groups are the same in any parts
    if small:
        notes.append(
            f"{len(small)} of {len(cell.runs)} runs went on in micro-batches of {min(small)} for "
            "want of memory: the same batch, but batch norm sees fewer images"
        )
    if cell.finished and cell.unfinished:
        why = "; ".join(dict.fromkeys(f"{r.status}: {r.reason}" for r in cell.unfinished))
        notes.append(f"{len(cell.finished)} of {len(cell.runs)} runs; {why}")
    others = [run.incomparable for run in cell.finished if run.incomparable]
    if 0 < len(others) < len(cell.finished):  # else every metric says it in its own place
        why = "; ".join(dict.fromkeys(others))
        notes.append(f"without {len(others)} of {len(cell.finished)} runs, {why}")
    return Entry(text=cell.name, notes=tuple(notes))


def _entry(facts: Facts, cell: Cell, key: str) -> Entry:
    """A value with its footnotes, and how it compares with the row that it is tested against."""
    entry = _value(facts, cell, key)
    if entry.value is not None:
        metric = metric_of(key)
        leak = feature_overlap.of_cell(cell, metric).reason if metric else ""
        notes = (*entry.notes, *_remarks(facts, cell, key), *([leak] if leak else []))
        if key in CLOCKED and any(run.contended for run in cell.finished):
            notes = (*notes, SHARED_MACHINE)
        entry = replace(entry, notes=notes, leakage=leak)
    if found := facts.comparisons.get(key, {}).get(cell.name):
        better = found.verdict == "better"
        entry = replace(entry, bold=better, compared=found.verdict, p=found.p)
    return entry


def _remarks(facts: Facts, cell: Cell, key: str) -> list[str]:
    """Return remarks on a ranking value, or on an accuracy of another kind than most."""
    if key == facts.grid.report.rank_by:
        return captions.remarks(facts, cell)
    kind = captions.accuracy_kind(cell) if key == "accuracy" else ""
    return [kind] if kind and kind != captions.usual_accuracy(facts.cells) else []


def _value(facts: Facts, cell: Cell, key: str) -> Entry:
    if key in PAPER:
        paper = facts.paper.get(cell.name, {})
        number = paper.get(key)
        if number is None:
            return Entry(notes=("the paper has no such row",)) if not paper else Entry()
        notes = (number.note,) if number.note else ()
        return Entry(number.value, notes=notes, confidence=number.confidence)
    if key == "n":
        return Entry(float(len(cell.finished)))
    if not cell.finished:
        return Entry()
    if key == "kimg":
        return _of(Stat(tuple(run.points[-1].nimg / 1000 for run in cell.finished)), "")
    kind, name = split(key)
    if kind in ("best", "gap"):
        return _best(cell, kind, name)
    stat = cell.stat(name)
    if kind == "rel" and stat is not None:
        baseline = facts.divisors.get(cell.name)
        divisor = baseline.stat(name) if baseline else None
        if divisor is None or divisor.mean == 0:
            return Entry(notes=("the baseline row has no value to divide by",))
        stat = Stat(tuple(point / divisor.mean for point in stat.points))
    return _of(stat, cell.why_missing(name))


def _best(cell: Cell, kind: str, name: str) -> Entry:
    """The best snapshots on fresh samples, or what these add to the values that chose them."""
    lower = lower_is_better(name)
    picked, fresh = cell.best(name, lower), cell.fresh_best(name, lower)
    if kind == "best":
        entry = _of(fresh or picked, cell.why_missing(name))
        return entry if fresh or not picked else replace(entry, notes=(PICKED,))
    if picked is None or fresh is None:
        return Entry(notes=("no fresh sample to compare with",))
    gaps = zip(fresh.points, picked.points, strict=True)
    return _of(Stat(tuple(f - p for f, p in gaps)), "")


def _of(stat: Stat | None, why_missing: str) -> Entry:
    if stat is None:
        return Entry(notes=(why_missing,))
    return Entry(stat.mean, points=stat.points)


assert set(FIELDS) <= set(MEASURED), "every field of a record has a column"
