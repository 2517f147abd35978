"""What each column of a grid's table means: header, unit, and where its values come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.analysis import feature_overlap, paper_numbers, row_tests
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
from bench.config.metrics import METRICS
from bench.config.spec import Grid

CLOCKED = ("images_per_s", "s_per_kimg", "time_s", "train_s", "peak_share")
SHARED_MACHINE = "the machine was shared: the process waited for a processor"
PICKED = "picked after looking: the best value of the curve itself, not of a fresh sample"
BEST_NOTE = (
    "Best: the snapshot is chosen on one generated sample and measured on a fresh one; gap: what "
    "the fresh sample adds to the value that was best."
)
PaperRows = Mapping[str, paper_numbers.PaperRow]  # cell name -> the paper's numbers


def build(
    grid: Grid,
    cells: Sequence[Cell],
    paper: PaperRows,
    caption: str,
    notes: Sequence[str],
    remarks: Mapping[str, Sequence[str]],
    versus: Mapping[str, Mapping[str, row_tests.Comparison]],
) -> Table:
    """The table of a grid: one line per cell, in the grid's order, measured columns first.

    Args:
        cells: What was measured.
        paper: The paper's numbers by cell name.
        caption: Above the table.
        notes: Under the table.
        remarks: Footnotes at a cell's ranking value, by cell name.
        versus: What `tested` gave.
    """
    keys = expand(grid.report.columns)
    if "n" not in keys and len({len(cell.finished) for cell in cells} - {0}) > 1:
        keys.append("n")  # the caption says it where all are alike
    columns = [column(key) for key in keys]
    columns.sort(key=lambda c: c.paper)  # stable: ours, then the paper's
    baseline = {_others(c): c for c in cells if c.row == grid.report.baseline}
    usual = usual_accuracy(cells)
    rows = []
    for cell in cells:
        entries = [_label(cell, bool(grid.report.paper))]
        for c in columns:
            entry = _entry(cell, c.key, baseline.get(_others(cell)), paper.get(cell.name, {}))
            if entry.value is not None:
                more = remarks.get(cell.name, ()) if c.key == grid.report.rank_by else ()
                kind = accuracy_kind(cell) if c.key == "accuracy" else ""
                more = [*more, kind] if kind and kind != usual else more
                metric = metric_of(c.key)
                leak = feature_overlap.of_cell(cell, metric).reason if metric else ""
                more = [*more, leak] if leak else more
                slowed = c.key in CLOCKED and any(run.contended for run in cell.finished)
                more = [*more, SHARED_MACHINE] if slowed else more
                entry = replace(entry, notes=(*entry.notes, *more), leakage=leak)
            if found := versus.get(c.key, {}).get(cell.name):
                better = found.verdict == "better"
                entry = replace(entry, bold=better, compared=found.verdict, p=found.p)
            entries.append(entry)
        first = cell.unfinished[0] if cell.unfinished else None
        if cell.finished or first is None:
            rows.append(Row(tuple(entries)))
        else:
            rows.append(Row(tuple(entries), first.status, first.reason))
    return Table(
        name=grid.name,
        caption=caption,
        columns=(Column("label", "row", text=True), *columns),
        rows=tuple(rows),
        notes=tuple(notes),
        extra={
            "scale": (grid.scale,) * len(rows),
            "run_ids": tuple(" ".join(run.spec.run_id for run in cell.runs) for cell in cells),
        },
    )


def tested(grid: Grid, cells: Sequence[Cell]) -> dict[str, dict[str, row_tests.Comparison]]:
    """Each cell against the grid's baseline row, by metric of the table and cell name."""
    against = row_tests.baselines(grid, cells)
    metrics = [key for key in expand(grid.report.columns) if key in METRICS]
    return {key: row_tests.compare(cells, against, key, lower_is_better(key)) for key in metrics}


def usual_accuracy(cells: Sequence[Cell]) -> str:
    """What most rows' accuracy is an accuracy of; the others have a footnote. Empty = none has."""
    kinds = [kind for cell in cells if (kind := accuracy_kind(cell))]
    return max(dict.fromkeys(kinds), key=kinds.count, default="")


def accuracy_kind(cell: Cell) -> str:
    """What a row's accuracy is an accuracy of; empty = it has none."""
    kinds = (
        ((run.record or {}).get("backbone") or {}).get("accuracy_kind", "")
        for run in cell.finished
        if run.value("accuracy") is not None
    )
    return next(kinds, "")


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
    apart = [run.apart for run in cell.finished if run.apart]
    if 0 < len(apart) < len(cell.finished):  # else every metric says it in its own place
        why = "; ".join(dict.fromkeys(apart))
        notes.append(f"without {len(apart)} of {len(cell.finished)} runs, {why}")
    return Entry(text=cell.name, notes=tuple(notes))


def _entry(cell: Cell, key: str, baseline: Cell | None, paper: paper_numbers.PaperRow) -> Entry:
    if key in PAPER:
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


def _others(cell: Cell) -> str:
    """What a baseline shares with the cells that it divides: the axis values."""
    return repr(sorted(cell.axes.items()))


assert set(FIELDS) <= set(MEASURED), "every field of a record has a column"
