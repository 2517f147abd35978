"""Records -> results/<grid>/: tables, curves, samples, and a manifest that leads to the runs."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import (
    aggregate,
    agreement,
    columns,
    compare,
    leakage,
    speedup,
    tables,
    targets,
    verdicts,
)
from bench.aggregate import Cell, Run
from bench.metrics.table import METRICS
from bench.record import protocol
from bench.spec import Grid, changed
from projgan.errors import UserError
from projgan.files import sha256_of, write_bytes_atomic, write_json_atomic

Echo = Callable[[str], None]

_PATHS = ("data.path", "backbone.weights")  # fields that may hold a path


def write_report(
    grid: Grid, runs_dir: Path, results_dir: Path, echo: Echo, width: int | None = None
) -> list[Path]:
    """Writes the report of a grid from the records of its runs; prints its table.

    Args:
        grid: The whole grid, whatever part of it was run.
        runs_dir: Holds one folder per run.
        results_dir: The report goes to `results_dir/<grid>`.
        echo: Takes one or more lines for the terminal.
        width: Columns of the terminal. None = ask it.

    Returns:
        The files written; empty when no run has finished.
    """
    folder = _target(grid, results_dir)
    runs = aggregate.read_runs(grid.runs, runs_dir)
    for run in runs:
        if run.status == "unreadable":
            echo(run.reason)
    if not any(run.status == "finished" for run in runs):
        echo(f"{grid.name}: no run has finished yet, nothing to report")
        return []

    cells, report = aggregate.cells(runs), grid.report
    table = make_table(grid, cells)
    echo(terminal(table, width))

    files = _written("table", table)
    if judged := _judged(grid, cells):
        headers = {key: column.header for key, column in columns.PAPER.items()}
        files |= _written("verdicts", verdicts.table(grid, judged, headers))
    if report.rank_by and (seeds := _seeds_table(grid, cells, report.rank_by)):
        seeds = leakage.mark(seeds, cells, report.rank_by, {report.rank_by})
        files |= _written("seeds", seeds)
    if panel := agreement.panel(grid, cells):
        files |= _written("agreement", agreement.table(grid, cells, panel))
    if report.rank_by and (reached := speedup.table(grid, cells)):
        reached = leakage.mark(reached, cells, report.rank_by, {"first_kimg", "kimg"})
        files |= _written("targets", reached)
        echo(terminal(reached, width))
    files |= _pictures(grid, cells, echo)
    before = _previous(folder)
    for name, data in files.items():
        write_bytes_atomic(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    write_json_atomic(folder / "manifest.json", manifest(grid, cells, hashes))
    _remove_stale(folder, before, files)
    return [*(folder / name for name in files), folder / "manifest.json"]


def make_table(grid: Grid, cells: Sequence[Cell]) -> tables.Table:
    """The table of a grid with its caption, the paper's numbers and the remarks under it."""
    report, paper = grid.report, _paper(grid, cells)
    remarks = _remarks(cells, report.rank_by) if report.rank_by else {}
    notes = [
        *([rank_line(cells, paper, report.paper, report.rank_by)] if report.paper else []),
        *_leakage(grid),
        agreement.note(grid, cells),
        _accuracy_kind(cells) if "accuracy" in report.columns else "",
        compare.note(grid, tested) if (tested := _tested(grid, cells)) else "",
        columns.BEST_NOTE if any(c.startswith("best:") for c in report.columns) else "",
        certificate_line(cells, columns.expand(report.columns)),
        *_counts(cells),
        *report.notes,
    ]
    table = columns.build(
        grid, cells, paper, caption(grid, cells), [n for n in notes if n], remarks
    )
    if report.paper is None:
        return table
    judged = _judged(grid, cells)
    return verdicts.beside(
        table, [judged.get(c.name, ()) for c in cells], targets.main_column(report.paper)
    )


def _paper(grid: Grid, cells: Sequence[Cell]) -> dict[str, targets.PaperRow]:
    """The paper's numbers by cell name."""
    if grid.report.paper is None:
        return {}
    chosen = {row.label: row.paper for row in grid.rows}
    name = grid.report.paper
    return {c.name: targets.paper_row(name, c.spec, chosen.get(c.row)) for c in cells}


def _judged(grid: Grid, cells: Sequence[Cell]) -> dict[str, list[verdicts.Judged]]:
    """The paper's numbers with their verdicts, by cell name; a row without any is left out."""
    base = {repr(sorted(c.axes.items())): c for c in cells if c.row == grid.report.baseline}
    paper = _paper(grid, cells)
    found = {
        c.name: verdicts.judge(grid, c, paper[c.name], base.get(repr(sorted(c.axes.items()))))
        for c in cells
        if paper.get(c.name)
    }
    return {name: judged for name, judged in found.items() if judged}


def caption(grid: Grid, cells: Sequence[Cell]) -> str:
    """What was trained on what, and how it was measured, from the records themselves."""
    runs = [run for cell in cells for run in cell.finished]
    data = _varying(map(_data, runs))
    budget = _varying(f"{r.points[-1].nimg / 1000:.3g}" for r in runs)
    batch = _varying(str(r.spec.config.train.batch) for r in runs)
    ends = [r.points[-1].eval for r in runs if not r.apart]
    fake = _varying(str(e.get("fake", "?")) for e in ends)
    real = _varying(str(e.get("real", "?")) for e in ends)
    several = any(len(cell.finished) > 1 for cell in cells)
    about = grid.about.rstrip(".")
    parts = [
        f"{about[:1].upper()}{about[1:]}.",
        f"Scale {grid.scale}: {data}.",
        f"{budget} thousand images shown to the discriminator (batch {batch}).",
        f"Last snapshot; {fake} generated against {real} real images.",
    ]
    if grid.overrides:
        changes = ", ".join(f"{key}={value}" for key, value in _public(grid.overrides).items())
        parts.append(f"Changed on the command line: {changes}.")
    if several:
        counts = sorted({len(cell.finished) for cell in cells} - {0})
        n = f"n = {counts[0]}" if len(counts) == 1 else "n"
        parts.append(f"Mean ± standard deviation over {n} runs.")
    levels = [k for k in columns.expand(grid.report.columns) if "fd_l1" in k]
    if levels:
        network = _varying(str(e.get("levels", "?")) for e in ends)
        parts.append(f"FD-L1 to FD-L4: feature levels of {network}, shallow to deep.")
    if grid.scale == "lab":
        parts.append(
            "Lab distances use the project's own small networks: they are not FID and compare "
            "with nothing outside this project."
        )
    if grid.report.paper:
        parts.append("Columns marked paper are the published numbers at the paper's own scale.")
    return " ".join(parts)


def rank_line(
    cells: Sequence[Cell],
    paper: Mapping[str, targets.PaperRow],
    name: str | None,
    rank_by: str | None,
) -> str:
    """How far our ranking agrees with the paper's; empty = fewer than three rows."""
    if name is None or rank_by is None:
        return ""
    key = targets.main_column(name)
    sign = 1 if columns.lower_is_better(rank_by) else -1
    pairs = [
        (sign * ours.mean, theirs)
        for cell in cells
        if (ours := cell.stat(rank_by))
        and (theirs := paper.get(cell.name, {}).get(key))
        and theirs.value is not None
    ]
    what = "relative FID" if key == "paper_rel_fid" else "FID"
    if len(pairs) < 3:
        return ""
    rho, tau = _correlations(pairs)
    line = (
        f"Spearman rank correlation with the paper's {what} over {len(pairs)} rows: {rho} "
        f"(Kendall's tau {tau}; our ranking by {rank_by})."
    )
    sure = [pair for pair in pairs if not pair[1].confidence.startswith("memory")]
    if 3 <= len(sure) < len(pairs):
        line += (
            f" Without the paper's numbers from memory, over {len(sure)} rows: "
            f"{_correlations(sure)[0]}."
        )
    return line


def certificate_line(cells: Sequence[Cell], keys: Iterable[str]) -> str:
    """How far the two routes to the table's distances are apart; empty = none was certified."""
    shown = {key.rpartition(":")[2] for key in keys}
    finals = [run.final for cell in cells for run in cell.finished if run.final and not run.apart]
    gaps = [gap for final in finals for key, gap in final.certificates.items() if key in shown]
    if not gaps:
        return ""
    return (
        f"{len(gaps)} distances were computed by two independent routes, which differ by "
        f"{max(gaps):.0e} at most."
    )


def manifest(grid: Grid, cells: Sequence[Cell], hashes: Mapping[str, str]) -> dict[str, Any]:
    """What leads from every cell back to its runs; the same records give the same manifest."""
    return {
        "schema": 1,
        "grid": grid.name,
        "about": grid.about,
        "scale": grid.scale,
        "rank_by": grid.report.rank_by,
        "paper": grid.report.paper,
        "overrides": _public(grid.overrides),
        "cells": [
            {"cell": cell.name, "axes": dict(cell.axes), "runs": [_evidence(r) for r in cell.runs]}
            for cell in cells
        ],
        "files": dict(hashes),
    }


def terminal(table: tables.Table, width: int | None = None) -> str:
    """The table as a terminal shows it: plain text, coloured where the terminal takes it."""
    if not sys.stdout.isatty():
        return tables.to_text(table, width or 120)
    import io
    import shutil

    from rich.console import Console
    from rich.text import Text

    width = width or shutil.get_terminal_size((120, 24)).columns
    text = Text(tables.to_text(table, width))
    text.highlight_regex(r"\b(failed|unreadable): .*", "red")
    text.highlight_regex(r"\b(missing|running): .*", "yellow")
    text.highlight_regex(r"[─–]+", "dim")
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=width, soft_wrap=True).print(text, end="")
    return out.getvalue()


def _tested(grid: Grid, cells: Sequence[Cell]) -> list[dict[str, compare.Comparison]]:
    """The comparison with the baseline row, metric by metric of the table."""
    keys = [key for key in columns.expand(grid.report.columns) if key in METRICS]
    found = (columns.versus_baseline(grid, cells, key) for key in keys)
    return [column for column in found if column]


def _written(name: str, table: tables.Table) -> dict[str, bytes]:
    """A table in its three forms."""
    return {
        f"{name}.md": tables.to_markdown(table).encode(),
        f"{name}.csv": tables.to_csv(table).encode(),
        f"{name}.tex": tables.to_latex(table).encode(),
    }


def _seeds_table(grid: Grid, cells: Sequence[Cell], metric: str) -> tables.Table | None:
    header, better = columns.column(metric), columns.lower_is_better(metric)
    return compare.seeds_table(grid, cells, metric, header, better)


def _pictures(grid: Grid, cells: Sequence[Cell], echo: Echo) -> dict[str, bytes]:
    """Curves and samples; a missing drawing library costs the pictures, not the tables."""
    files: dict[str, bytes] = {}
    # The ranking metric and what else is one number; the levels of a ladder stand in the table.
    keys = [k for k in columns.expand(grid.report.columns) if columns.alone(k)]
    chosen = [m for m in dict.fromkeys([grid.report.rank_by, *keys]) if m]
    try:
        from bench import curves, sheets
    except ImportError as error:
        echo(f"No curves and samples: {error.name} is not installed (pip install {error.name})")
        return files
    for metric in chosen:
        better = columns.lower_is_better(metric)
        marks = speedup.values(grid, cells) if metric == grid.report.rank_by else []
        files |= curves.draw(cells, metric, columns.column(metric), better, targets=marks)
        for axis in grid.axes:
            places = [_place(cell, axis) for cell in cells]
            if len(grid.axes) == 1 and all(place is not None for place in places):
                at = [place for place in places if place is not None]
                files |= curves.draw_axis(cells, metric, columns.column(metric), axis, at)
    files |= sheets.sheets(cells, echo)
    return files


def _place(cell: Cell, axis: str) -> float | None:
    """Where a cell stands on a numeric axis; None = it has no place there."""
    value = cell.axes.get(axis)
    if axis == "data.subset" and value is None:  # all images
        value = cell.spec.config.data.images
        for run in cell.finished:
            value = ((run.record or {}).get("data") or {}).get("images", value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _target(grid: Grid, results_dir: Path) -> Path:
    """The folder of the report; never the published results unless `results_dir` names them."""
    folder = results_dir / grid.name
    if folder.name != grid.name or grid.name in (".", "..", "reference"):
        raise UserError(f"Grid name {grid.name!r} is no plain folder name; rename the grid")
    published = "reference" in folder.resolve().parts
    if published and "reference" not in results_dir.absolute().parts:
        raise UserError(
            f"{folder} holds published results; give results_dir=results/reference to replace them"
        )
    return folder


def _remarks(cells: Sequence[Cell], metric: str) -> dict[str, list[str]]:
    """What must be known of a row's ranking number: another protocol, or that it did not learn."""
    remarks: dict[str, list[str]] = {}
    better = columns.lower_is_better(metric)
    controls = {_identity(c): c for c in cells if c.spec.config.backbone.weights == "random"}
    for cell in cells:
        found = []
        for run in (run for run in cell.finished if not run.apart):
            done = run.points[-1].eval
            found += [
                f"measured with {name}={done.get(name)} where the grid has {wanted}"
                for name, wanted in protocol(run.spec).items()
                if done.get(name) != wanted
            ]
        ratio = cell.progress(metric) if better else None
        if ratio and ratio.mean >= 0.5:
            found.append(f"ends at {ratio.mean:.2f} of its own value at 1 kimg, not below half")
        ours, control = cell.stat(metric), controls.get(_identity(cell))
        theirs = control.stat(metric) if better and control and control is not cell else None
        if ours and theirs and ours.mean >= theirs.mean:
            found.append("not below its control with random weights")
        remarks[cell.name] = list(dict.fromkeys(found))
    return remarks


def _identity(cell: Cell) -> str:
    """All that a row and its control with random weights have in common."""
    apart = {"backbone.weights", *aggregate.AVERAGED}
    fields = changed(cell.spec.config)
    return repr(sorted((k, v) for k, v in fields.items() if k not in apart))


def _accuracy_kind(cells: Sequence[Cell]) -> str:
    kind = columns.usual_accuracy(cells)
    return f"Accuracy: of a network in its own pretraining ({kind})." if kind else ""


def _leakage(grid: Grid) -> list[str]:
    """Why a flagged metric ranks, and what holds of the paper's own numbers."""
    report, notes = grid.report, []
    if report.rank_by and leakage.shared_by(grid.runs, report.rank_by):
        name = columns.column(report.rank_by).header
        notes.append(f"Ranked by {name} in spite of leakage: {report.rank_despite_leakage}")
    if any(key in columns.PAPER and "fid" in key for key in report.columns):
        notes.append(
            "Leakage in the paper's FID: Inception-v3 learned from ImageNet-1k as the paper's "
            "feature networks did, R50-CLIP apart."
        )
    return notes


def _counts(cells: Sequence[Cell]) -> list[str]:
    left = [run for cell in cells for run in cell.unfinished]
    if not left:
        return []
    total = sum(len(cell.runs) for cell in cells)
    kinds = dict.fromkeys(run.status for run in left)
    counts = (f"{sum(run.status == kind for run in left)} {kind}" for kind in kinds)
    return [f"{total - len(left)} of {total} runs finished ({', '.join(counts)})."]


def _correlations(pairs: Sequence[tuple[float, targets.PaperValue]]) -> tuple[str, str]:
    ours, theirs = [a for a, _ in pairs], [b.value or 0.0 for _, b in pairs]
    found = targets.spearman(ours, theirs), targets.kendall(ours, theirs)
    rho, tau = ("undefined" if x is None else f"{x:.2f}" for x in found)
    return rho, tau


def _evidence(run: Run) -> dict[str, Any]:
    record = run.record or {}
    config = record.get("config")
    found: dict[str, Any] = {
        "run_id": run.spec.run_id,
        "status": run.status,
        "reason": run.reason or None,
        "seed": run.spec.config.train.seed,
        "recipe_version": record.get("recipe_version"),
        "config_sha256": _digest(config) if config is not None else None,
        "data": record.get("data"),
        "backbone": record.get("backbone"),
        "environment": record.get("environment"),
        "eval": run.final.eval if run.final else None,
        "metrics": run.final.metrics if run.final else None,
        "apart": run.apart or None,
        "intervals": run.final.intervals if run.final else None,
        "certificates": run.final.certificates if run.final else None,
    }
    return found


def _data(run: Run) -> str:
    found = (run.record or {}).get("data") or {}
    name = found.get("name", run.spec.config.data.name)
    images = found.get("trained_on", found.get("images", "?"))
    return f"{name} at {run.spec.config.data.resolution} px ({images} images)"


def _public(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as a report shows them: of a path its last part, as the rest is the machine's."""

    def shown(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [shown(part) for part in value]
        return Path(value).name if isinstance(value, str) else value

    return {k: shown(value) if k in _PATHS else value for k, value in overrides.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _varying(values: Iterable[str]) -> str:
    """The one value, or all of them: `6` or `3, 6`."""
    return ", ".join(dict.fromkeys(values))


def _previous(folder: Path) -> dict[str, str]:
    """Name -> hash of what an earlier report wrote here."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remove_stale(folder: Path, before: Mapping[str, str], now: Mapping[str, bytes]) -> None:
    """Removes what an earlier report wrote and this one did not, if nobody changed it since."""
    for name in before.keys() - now.keys():
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and path.is_file() and sha256_of(path) == before[name]:
            path.unlink()
