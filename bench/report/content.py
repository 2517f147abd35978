"""What a report says, before it is written anywhere: tables, verdicts, findings of one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis import (
    feature_overlap,
    metric_agreement,
    paper_claims,
    paper_numbers,
    people,
    reproduction,
    row_tests,
    time_to_target,
)
from bench.analysis.cells import Cell
from bench.analysis.table import Table
from bench.config import columns as vocabulary
from bench.config import grid as grids
from bench.config.paths import ROOT
from bench.config.spec import Claim, Grid
from bench.report import captions, main_table, parts
from projgan.errors import UserError


@dataclass(frozen=True)
class Content:
    """All that the files of a report are made of."""

    tables: Mapping[str, Table]  # file name without its ending -> table; `table` first
    paper: Mapping[str, paper_numbers.PaperRow] = field(default_factory=dict)  # by cell name
    judged: Mapping[str, Sequence[reproduction.Judged]] = field(default_factory=dict)
    panel: metric_agreement.Panel | None = None
    findings: Sequence[tuple[Claim, paper_claims.Finding]] = ()
    findings_fault: str = ""  # why the claims about this grid were not looked at


def gather(grid: Grid, cells: Sequence[Cell], runs_dir: Path) -> Content:
    """Computes everything that a report of these cells holds.

    Args:
        grid: what was asked for.
        cells: what was measured.
        runs_dir: where the claims about the grid find its records.
    """
    report, paper, panel = grid.report, paper_rows(grid, cells), metric_agreement.panel(grid, cells)
    judged = _judged(grid, cells, paper)
    found = {"table": _table(grid, cells, paper, judged, panel)}
    if judged:
        headers = {key: column.header for key, column in vocabulary.PAPER.items()}
        found["verdicts"] = reproduction.table(grid, judged, headers)
    if report.rank_by and (seeds := _seeds_table(grid, cells, report.rank_by)):
        found["seeds"] = feature_overlap.mark(seeds, cells, report.rank_by, {report.rank_by})
    if panel:
        found["agreement"] = metric_agreement.table(grid, cells, panel)
    if report.rank_by and (reached := time_to_target.table(grid, cells)):
        found["targets"] = feature_overlap.mark(
            reached, cells, report.rank_by, {"first_kimg", "kimg"}
        )
    findings, fault = _findings(grid, cells, runs_dir)
    if findings:
        found["claims"] = paper_claims.table(grid.name, findings)
    if report.parts and (kept := ROOT / report.parts).exists():
        found["parts"] = parts.table(parts.read(kept))
    if report.people:
        found["people"] = people.table(grid.name)
    return Content(found, paper, judged, panel, findings, fault)


def make_table(grid: Grid, cells: Sequence[Cell]) -> Table:
    """The table of a grid with its caption, the paper's numbers and the remarks under it."""
    paper = paper_rows(grid, cells)
    return _table(
        grid, cells, paper, _judged(grid, cells, paper), metric_agreement.panel(grid, cells)
    )


def _table(
    grid: Grid,
    cells: Sequence[Cell],
    paper: Mapping[str, paper_numbers.PaperRow],
    judged: Mapping[str, Sequence[reproduction.Judged]],
    panel: metric_agreement.Panel | None,
) -> Table:
    report = grid.report
    on_rows = captions.on_rows(cells, report.rank_by) if report.rank_by else {}
    tested = main_table.tested(grid, cells)
    notes = captions.notes(grid, cells, paper, panel, tested)
    table = main_table.build(
        grid, cells, paper, captions.caption(grid, cells), notes, on_rows, tested
    )
    if report.paper is None:
        return table
    return reproduction.beside(
        table, [judged.get(c.name, ()) for c in cells], paper_numbers.main_column(report.paper)
    )


def paper_rows(grid: Grid, cells: Sequence[Cell]) -> dict[str, paper_numbers.PaperRow]:
    """The paper's numbers by cell name."""
    if grid.report.paper is None:
        return {}
    chosen = {row.label: row.paper for row in grid.rows}
    name = grid.report.paper
    return {c.name: paper_numbers.paper_row(name, c.spec, chosen.get(c.row)) for c in cells}


def _judged(
    grid: Grid, cells: Sequence[Cell], paper: Mapping[str, paper_numbers.PaperRow]
) -> dict[str, list[reproduction.Judged]]:
    """The paper's numbers with their verdicts, by cell name; a row without any is left out."""
    base = {repr(sorted(c.axes.items())): c for c in cells if c.row == grid.report.baseline}
    found = {
        c.name: reproduction.judge(grid, c, paper[c.name], base.get(repr(sorted(c.axes.items()))))
        for c in cells
        if paper.get(c.name)
    }
    return {name: judged for name, judged in found.items() if judged}


def _seeds_table(grid: Grid, cells: Sequence[Cell], metric: str) -> Table | None:
    header, better = vocabulary.column(metric), vocabulary.lower_is_better(metric)
    return row_tests.seeds_table(grid, cells, metric, header, better)


def _findings(
    grid: Grid, cells: Sequence[Cell], runs_dir: Path
) -> tuple[list[tuple[Claim, paper_claims.Finding]], str]:
    """The paper's claims about this grid, as its runs decide them; and why they cannot be told."""
    try:
        about = [claim for claim in grids.load_claims(grid.scale) if claim.grid == grid.name]
        for claim in about:
            paper_claims.check(claim, grid)
    except UserError as error:  # rows were left out or renamed
        return [], str(error)
    return [(claim, paper_claims.examine(claim, grid, runs_dir, cells)) for claim in about], ""
