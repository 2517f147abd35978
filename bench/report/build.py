"""Records -> results/<grid>/: tables, curves, samples, and a manifest that leads to the runs."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.analysis.cells import Run
from bench.analysis.facts import Facts
from bench.analysis.table import Table
from bench.config import columns as vocabulary
from bench.config.paths import PUBLISHED, RunPaths
from bench.config.spec import Grid
from bench.report import export, manifest, tables
from bench.report.content import tables_of, texts_of
from bench.report.page.build import page
from projgan.errors import UserError
from projgan.files import write_bytes_atomic

Echo = Callable[[str], None]
# Of published reports, whose every version stays in a repository's history: text, and the page,
# which holds the figures and small samples. do=report draws the figures again from the records.
PUBLISHED_FORMS = (".csv", ".md", ".tex", ".html")


def write_report(
    facts: Facts,
    results_dir: Path,
    echo: Echo,
    width: int | None = None,
    show: Sequence[str] = ("table", "targets"),
    command: str | None = None,
    exports: Sequence[str] = (),
) -> list[Path]:
    """Write the report of a grid from the records of its runs, and print its table.

    Args:
        facts: What the records of the grid's runs say.
        results_dir: The report goes to `results_dir/<grid>`.
        echo: Takes one or more lines for the terminal.
        width: Columns of the terminal. None = ask it.
        show: The tables that are printed, where the grid has them.
        command: What writes the same again, for the page. None = do=report.
        exports: Names of `export.EXPORTS`, further forms of all records; `pdf`: of the figures.

    Returns:
        The files written; empty when no run has finished.
    """
    grid, runs = facts.grid, facts.runs
    folder = target_folder(grid, results_dir)
    notes: list[str] = []  # printed when all is written: a terminal may be gone
    for run in runs:
        if run.status == "unreadable":
            notes.append(run.reason)
    if not any(run.status == "finished" for run in runs):
        echo("\n".join([*notes, f"{grid.name}: no run has finished yet, nothing to report"]))
        return []

    found = tables_of(facts)
    files = texts_of(found)
    files["records.csv"] = export.to_csv(runs)
    for name in export.EXPORTS.keys() & set(exports):
        files |= export.EXPORTS[name](runs)
    files |= _pictures(facts, notes.append, "pdf" in exports)
    if folder.parent.name == PUBLISHED:
        files = {name: data for name, data in files.items() if name.endswith(PUBLISHED_FORMS)}
    files["index.html"] = page(facts, found, list(files), command).encode()
    before = manifest.previous(folder)
    for name, data in files.items():
        write_bytes_atomic(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    manifest.write(folder / "manifest.json", manifest.make(grid, facts.cells, hashes))
    manifest.remove_stale(folder, before, files)
    shown = [found[name] for name in show if name in found]
    notes += [_for_terminal(table, width) for table in shown]
    if folder.parent.name == PUBLISHED:
        _keep_records(runs, folder, notes.append)
    for text in notes:
        echo(text)
    return [*(folder / name for name in files), folder / "manifest.json"]


def _keep_records(runs: Sequence[Run], folder: Path, echo: Echo) -> None:
    """Copy the records of published numbers beside them, as a runs_dir= for do=verify and others.

    A run may stand in several grids: those whose record is another one now are named.
    """
    outdated: dict[str, list[str]] = {}
    for run in runs:
        kept = RunPaths(folder.parent / "records" / run.spec.run_id).record
        record = RunPaths(run.folder).record
        if run.status not in ("finished", "failed") or record.resolve() == kept.resolve():
            continue
        data = record.read_bytes()
        if kept.exists() and kept.read_bytes() != data:
            for name in _publishers(folder, run.spec.run_id):
                outdated.setdefault(name, []).append(run.spec.run_id)
        write_bytes_atomic(kept, data)
    for name, ids in outdated.items():
        echo(f"{name}: has another record of {', '.join(ids)} now: do=report grid={name} anew")


def _publishers(folder: Path, run_id: str) -> list[str]:
    """The grids beside this one that publish a run."""
    found = sorted(folder.parent.glob("*/manifest.json"))
    return [
        p.parent.name
        for p in found
        if p.parent != folder and run_id in p.read_text(encoding="utf-8")
    ]


def _for_terminal(table: Table, width: int | None) -> str:
    """The table as text, coloured where the terminal takes it."""
    if not sys.stdout.isatty():
        return tables.to_text(table, width or 120)
    from rich.console import Console
    from rich.text import Text

    width = width or shutil.get_terminal_size((120, 24)).columns
    text = Text(tables.to_text(table, width))
    text.highlight_regex(r"\b(failed|unreadable)\b(: .*)?", "red")
    text.highlight_regex(r"\b(missing|running)\b(: .*)?", "yellow")
    console = Console(force_terminal=True, width=width, soft_wrap=True)
    with console.capture() as written:
        console.print(text, end="")
    return written.get()


def _pictures(facts: Facts, echo: Echo, pdf: bool) -> dict[str, bytes]:
    """Curves and samples; a missing drawing library costs the pictures, not the tables."""
    files: dict[str, bytes] = {}
    grid, cells, axes = facts.grid, facts.cells, facts.cells[0].axes  # no averaged ones
    # The ranking metric and what else is one number; the levels of a ladder stand in the table.
    keys = [k for k in vocabulary.expand(grid.report.columns) if vocabulary.is_single(k)]
    chosen = [m for m in dict.fromkeys([grid.report.rank_by, *keys]) if m]
    try:
        from bench.report import figures, sample_sheets
    except ImportError as error:
        echo(f"No curves and samples: {error.name} is not installed (pip install {error.name})")
        return files
    for metric in chosen:
        better = vocabulary.lower_is_better(metric)
        marks = facts.targets if metric == grid.report.rank_by else []
        files |= figures.draw(
            cells, metric, vocabulary.column(metric), better, targets=marks, pdf=pdf
        )
        for axis in axes if len(axes) == 1 else ():
            files |= figures.draw_axis(cells, metric, vocabulary.column(metric), axis, pdf)
    files |= sample_sheets.sheets(cells, echo)
    return files


def target_folder(grid: Grid, results_dir: Path) -> Path:
    """The folder of the report; never the published results unless `results_dir` names them."""
    folder = results_dir / grid.name
    if folder.name != grid.name or grid.name in (".", "..", PUBLISHED, "records"):
        raise UserError(f"Grid name {grid.name!r} is no plain folder name; rename the grid")
    published = PUBLISHED in folder.resolve().parts
    if published and PUBLISHED not in results_dir.absolute().parts:
        raise UserError(
            f"{folder} holds published results; give results_dir=results/reference to replace them"
        )
    return folder
