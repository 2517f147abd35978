"""Records -> results/<grid>/: tables, curves, samples, and a manifest that leads to the runs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import (
    aggregate,
    agreement,
    columns,
    compare,
    leakage,
    manifest,
    remarks,
    speedup,
    tables,
    targets,
    verdicts,
)
from bench.aggregate import Cell
from bench.spec import Grid
from projgan.errors import UserError
from projgan.files import write_bytes_atomic, write_json_atomic

Echo = Callable[[str], None]


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
    before = manifest.previous(folder)
    for name, data in files.items():
        write_bytes_atomic(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    write_json_atomic(folder / "manifest.json", manifest.make(grid, cells, hashes))
    manifest.remove_stale(folder, before, files)
    return [*(folder / name for name in files), folder / "manifest.json"]


def make_table(grid: Grid, cells: Sequence[Cell]) -> tables.Table:
    """The table of a grid with its caption, the paper's numbers and the remarks under it."""
    report, paper = grid.report, _paper(grid, cells)
    on_rows = remarks.on_rows(cells, report.rank_by) if report.rank_by else {}
    around = remarks.caption(grid, cells), remarks.notes(grid, cells, paper)
    table = columns.build(grid, cells, paper, *around, on_rows)
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
