"""The tables of a report: facts in, tables out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.analysis.table import Table
from bench.config.paths import ROOT
from bench.report import main_table, parts, side_tables, tables, target_table

if TYPE_CHECKING:
    from bench.analysis.facts import Facts


def tables_of(facts: Facts) -> dict[str, Table]:
    """The tables that a grid has, by the name of their files; `table`, the main one, first."""
    grid, cells, report = facts.grid, facts.cells, facts.grid.report
    rank_by = report.rank_by or ""
    found = {"table": main_table.build(facts)}
    if facts.judged:
        found["verdicts"] = side_tables.verdicts(grid, facts.judged)
    if seeds := side_tables.seeds(grid, cells):
        found["seeds"] = side_tables.mark_leakage(seeds, cells, rank_by, {rank_by})
    if facts.agreement:
        found["agreement"] = side_tables.agreement(grid, cells, facts.agreement)
    if facts.times:
        reached = target_table.targets(grid, cells, facts.times)
        keys = {"first_kimg", "kimg"}
        found["targets"] = side_tables.mark_leakage(reached, cells, rank_by, keys)
    if facts.findings:
        found["claims"] = side_tables.claims(grid, facts.findings)
    if report.parts and (kept := ROOT / report.parts).exists():
        found["parts"] = parts.table(parts.read(kept))
    if report.people:
        found["people"] = side_tables.people_beside(grid)
    return found


def texts_of(made: Mapping[str, Table]) -> dict[str, bytes]:
    """The tables as Markdown, CSV and LaTeX, by file name."""
    found = {}
    for name, table in made.items():
        found[f"{name}.md"] = tables.to_markdown(table).encode()
        found[f"{name}.csv"] = tables.to_csv(table).encode()
        found[f"{name}.tex"] = tables.to_latex(table).encode()
    return found
