"""The tables of a report: facts in, tables out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.analysis import (
    feature_overlap,
    metric_agreement,
    paper_claims,
    people,
    reproduction,
    row_tests,
    time_to_target,
)
from bench.analysis.table import Table
from bench.config import columns as vocabulary
from bench.config.paths import ROOT
from bench.report import main_table, parts, tables

if TYPE_CHECKING:
    from bench.analysis.facts import Facts


def tables_of(facts: Facts) -> dict[str, Table]:
    """The tables that a grid has, by the name of their files; `table`, the main one, first."""
    grid, cells, report = facts.grid, facts.cells, facts.grid.report
    found = {"table": main_table.build(facts)}
    if facts.judged:
        headers = {key: column.header for key, column in vocabulary.PAPER.items()}
        found["verdicts"] = reproduction.table(grid, facts.judged, headers)
    if metric := report.rank_by:
        header, lower = vocabulary.column(metric), vocabulary.lower_is_better(metric)
        if seeds := row_tests.seeds_table(grid, cells, metric, header, lower):
            found["seeds"] = feature_overlap.mark(seeds, cells, metric, {metric})
    if facts.agreement:
        found["agreement"] = metric_agreement.table(grid, cells, facts.agreement)
    if metric and (reached := time_to_target.table(grid, cells)):
        found["targets"] = feature_overlap.mark(reached, cells, metric, {"first_kimg", "kimg"})
    if facts.findings:
        found["claims"] = paper_claims.table(grid.name, facts.findings)
    if report.parts and (kept := ROOT / report.parts).exists():
        found["parts"] = parts.table(parts.read(kept))
    if report.people:
        found["people"] = people.table(grid.name)
    return found


def texts_of(made: Mapping[str, Table]) -> dict[str, bytes]:
    """The tables as Markdown, CSV and LaTeX, by file name."""
    found = {}
    for name, table in made.items():
        found[f"{name}.md"] = tables.to_markdown(table).encode()
        found[f"{name}.csv"] = tables.to_csv(table).encode()
        found[f"{name}.tex"] = tables.to_latex(table).encode()
    return found
