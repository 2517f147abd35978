"""What each column of a grid's table means: header, unit, and where its values come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.analysis import feature_overlap, paper_numbers, row_tests
from bench.analysis.cells import FIELDS, Cell, Stat
from bench.config.metrics import METRICS, metric_keys
from bench.config.spec import Grid
from bench.report.tables import Column, Entry, Row, Table
from projgan.errors import ConfigError, unknown

MEASURED = {
    "params_m": Column("params_m", "params", "M"),
    "accuracy": Column("accuracy", "accuracy", "%", decimals=1),
    "generator_m": Column("generator_m", "G params", "M"),
    "discriminator_m": Column("discriminator_m", "D params", "M"),
    "images_per_s": Column("images_per_s", "speed", "img/s"),
    "s_per_kimg": Column("s_per_kimg", "speed", "s/kimg", decimals=1),
    "gflop_per_image": Column("gflop_per_image", "work", "GFLOP/img", decimals=2),
    "peak_share": Column("peak_share", "of peak", "%", decimals=0),
    "peak_mb": Column("peak_mb", "memory", "MB", decimals=0),
    "time_s": Column("time_s", "time", "s", decimals=0),
    "train_s": Column("train_s", "training", "s", decimals=0),
    "eval_s": Column("eval_s", "evaluation", "s", decimals=0),
    "warmup_s": Column("warmup_s", "warm-up", "s", decimals=1),
    "checkpoint_s": Column("checkpoint_s", "checkpoints", "s", decimals=1),
    "unexplained_s": Column("unexplained_s", "unexplained", "s", decimals=1),
    "kimg": Column("kimg", "images", "k"),
    "n": Column("n", "n", decimals=0),
}
# Where the time of a training step goes (projgan/ledger.py), in its order.
SHARES = ("data", "augmentation", "generator", "backbone", "projection", "discriminator",
          "optimiser", "average", "idle", "rest")  # fmt: skip
MEASURED |= {f"share_{part}": Column(f"share_{part}", part, "%", decimals=1) for part in SHARES}
CLOCKED = ("images_per_s", "s_per_kimg", "time_s", "train_s", "peak_share")
SHARED_MACHINE = "the machine was shared: the process waited for a processor"
PAPER = {
    "paper_params_m": Column("paper_params_m", "paper params", "M", True, decimals=2, minor=True),
    "paper_top1": Column("paper_top1", "paper top-1", "%", True, decimals=2, minor=True),
    "paper_fid": Column("paper_fid", "paper FID", paper=True, decimals=2),
    **{
        f"paper_rel_fd_l{i}": Column(
            f"paper_rel_fd_l{i}", f"paper rel. FD-L{i}", paper=True, decimals=2, minor=True
        )
        for i in (1, 2, 3, 4)
    },
    "paper_rel_fid": Column("paper_rel_fid", "paper rel. FID", paper=True, decimals=2),
    "paper_imgs_m": Column("paper_imgs_m", "paper images", "M", True, minor=True),
    "paper_kid": Column("paper_kid", "paper KID", paper=True, minor=True),
    "paper_swav_fid": Column("paper_swav_fid", "paper SwAV-FID", paper=True, minor=True),
    "paper_precision": Column("paper_precision", "paper precision", paper=True, minor=True),
    "paper_recall": Column("paper_recall", "paper recall", paper=True, minor=True),
}
PICKED = "picked after looking: the best value of the curve itself, not of a fresh sample"
BEST_NOTE = (
    "Best: the snapshot is chosen on one generated sample and measured on a fresh one; gap: what "
    "the fresh sample adds to the value that was best."
)
DERIVED = ("rel", "best", "gap")  # kind:metric
PaperRows = Mapping[str, paper_numbers.PaperRow]  # cell name -> the paper's numbers


HELD = {name for m in METRICS.values() if m.norms for name in (m.key, m.group)}


def known() -> list[str]:
    """Every name that a grid's `report.columns` may hold."""
    metrics = [*METRICS, *(m.group for m in METRICS.values())]
    derived = [f"{kind}:{key}" for kind in DERIVED for key, m in METRICS.items() if not m.norms]
    return [*dict.fromkeys(["label", *MEASURED, *PAPER, *metrics, *derived])]


def expand(names: Sequence[str]) -> list[str]:
    """Column keys of a table: groups of metrics opened, `label` left out (it is always first).

    Raises:
        ConfigError: a name that is no column.
    """
    keys: dict[str, None] = {}
    for name in names:
        if name not in known():
            raise ConfigError(unknown("column", name, (k for k in known() if k not in HELD)))
        groups = name not in METRICS and any(m.group == name for m in METRICS.values())
        keys.update(dict.fromkeys(metric_keys([name]) if groups else [name]))
        if name.startswith("best:"):  # what the choice looked like beside what it is
            keys["gap:" + name.removeprefix("best:")] = None
    keys.pop("label", None)
    return list(keys)


def check(grid: Grid) -> None:
    """Refuses what a report could not show, before anything is trained.

    Raises:
        ConfigError: an unknown column, ranking metric or table of the paper, a ranking metric
            whose network learned from what a backbone learned from, or a row that picks no line
            of that table.
    """
    report = grid.report
    expand(report.columns)
    if report.rank_by is not None and report.rank_by not in METRICS:
        raise ConfigError(unknown("rank_by metric", report.rank_by, METRICS))
    if report.rank_by and not report.rank_despite_leakage:
        _check_ranking(grid, report.rank_by)
    if report.paper:
        chosen = {row.label: row.paper for row in grid.rows}
        of_each_cell = {(run.row, repr(run.axes)): run for run in grid.runs}
        for run in of_each_cell.values():
            paper_numbers.paper_row(report.paper, run, chosen.get(run.row))


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


def column(key: str) -> Column:
    """The header of one column."""
    if key in MEASURED:
        return MEASURED[key]
    if key in PAPER:
        return PAPER[key]
    kind, name = split(key)
    metric = METRICS[name]
    unit = metric.unit.replace("x", "×")
    header = metric.header.removesuffix(metric.unit).strip()
    if kind == "rel":
        return Column(key, f"rel. {header}", spread=True, decimals=2)
    if kind == "best":
        return Column(key, f"best {header}", unit, spread=True)
    if kind == "gap":
        return Column(key, f"{header} gap", unit, spread=True, minor=True)
    return Column(key, header, unit, spread=True)


def tested(grid: Grid, cells: Sequence[Cell]) -> dict[str, dict[str, row_tests.Comparison]]:
    """Each cell against the grid's baseline row, by metric of the table and cell name."""
    against = row_tests.baselines(grid, cells)
    metrics = [key for key in expand(grid.report.columns) if key in METRICS]
    return {key: row_tests.compare(cells, against, key, lower_is_better(key)) for key in metrics}


def lower_is_better(metric: str) -> bool:
    return METRICS[metric].lower_is_better if metric in METRICS else True


def metric_of(key: str) -> str | None:
    """The metric that a column shows, as it is or derived; None = it shows none."""
    name = split(key)[1]
    return name if name in METRICS else None


def split(key: str) -> tuple[str, str]:
    """`rel:fd_lab` as `rel` and `fd_lab`; what is not derived has an empty kind."""
    kind, _, name = key.partition(":")
    return (kind, name) if kind in DERIVED else ("", key)


def alone(key: str) -> bool:
    """Whether a metric is the only number of its group: not one level of four."""
    return key in METRICS and sum(m.group == METRICS[key].group for m in METRICS.values()) == 1


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


def _check_ranking(grid: Grid, metric: str) -> None:
    shared = feature_overlap.shared_by(grid.runs, metric)
    if shared:
        row, reason = next(iter(shared.items()))
        raise ConfigError(
            f"rank_by: {metric} cannot rank row {row!r} ({reason}): rank by another metric, or "
            "give the reason for it as rank_despite_leakage"
        )


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
