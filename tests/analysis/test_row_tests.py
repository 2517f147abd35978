"""Rows against their baseline: paired by seed, corrected, and silent where seeds are too few."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import facts_of, make_grid, make_record, write_record

from bench.analysis import row_tests
from bench.analysis.cells import Cell, cells, read_runs
from bench.analysis.facts import Facts
from bench.analysis.validation import validate
from bench.config.spec import Grid, ReportSpec
from bench.report import main_table, side_tables, tables
from bench.report.build import write_report
from projgan.errors import UserError

ROWS = {"Base": {"backbone.name": "vit"}, "Low": {}, "High": {"backbone.name": "resnet18"}}
REPORT = ReportSpec(rank_by="fd_lab", columns=("fd_lab",), compare_to="Base")
BASE = [10.0, 14.0, 11.0, 17.0, 12.0, 13.0, 15.0, 16.0]


def made(
    runs: Path, values: Mapping[str, Sequence[float | None]], report: ReportSpec = REPORT
) -> tuple[Grid, list[Cell]]:
    """A value per row and seed; None = that run is not there."""
    seeds = max(map(len, values.values()))
    grid = make_grid({name: ROWS[name] for name in values}, report, seeds=range(seeds))
    for spec in grid.runs:
        value = values[spec.row][spec.config.train.seed]
        if value is not None:
            write_record(runs, spec, make_record(spec, {4000: {"fd_lab": value}}))
    return grid, cells(read_runs(grid.runs, runs))


def compared(grid: Grid, found: list[Cell]) -> dict[str, row_tests.Comparison]:
    return row_tests.compare(found, row_tests.baselines(grid, found), "fd_lab")


def test_rows_are_compared_with_the_baseline_seed_by_seed(tmp_path: Path) -> None:
    # The rows differ by far less than the seeds do: only pairs can tell them apart.
    values = {
        "Base": BASE,
        "Low": [v - 0.1 * (i + 1) for i, v in enumerate(BASE)],
        "High": [v + 0.5 for v in BASE],
    }
    found = compared(*made(tmp_path, values))
    assert found.keys() == {"Low", "High"}
    assert (found["Low"].verdict, found["High"].verdict) == ("better", "worse")
    assert found["Low"].difference == pytest.approx(-0.45)
    assert found["Low"].p == pytest.approx(2 * 2 / 2**8)  # Holm over two rows
    table = main_table.build(facts_of(*made(tmp_path, values)))
    assert [row.entries[1].bold for row in table.rows] == [False, True, False]
    assert table.notes[0] == (
        "Bold: better than Base (exact two-sided sign-flip test, paired by seed, Holm's "
        "correction over 2 rows in each column, 5%)."
    )


def test_a_row_that_does_not_differ_is_not_bold_however_low_its_mean(tmp_path: Path) -> None:
    low = [1.0, 15.0, 12.0, 18.0, 13.0, 14.0, 16.0, 17.0]  # one lucky seed
    found = compared(*made(tmp_path, {"Base": BASE, "Low": low}))
    assert found["Low"].difference < 0 and found["Low"].verdict == "undecided"


def test_only_common_seeds_count(tmp_path: Path) -> None:
    low = [None, *(v - 1 for v in BASE[1:])]
    found = compared(*made(tmp_path, {"Base": [*BASE[:-1], None], "Low": low}))
    assert (found["Low"].n, found["Low"].difference) == (6, -1.0)


def test_too_few_seeds_are_told_instead_of_a_verdict(tmp_path: Path) -> None:
    grid, found = made(tmp_path, {"Base": BASE[:3], "Low": [1.0, 2.0, 3.0], "High": BASE[:3]})
    assert {c.verdict for c in compared(grid, found).values()} == {"too few seeds"}
    table = main_table.build(facts_of(grid, found))
    assert not any(entry.bold for row in table.rows for entry in row.entries)
    assert table.notes[0] == (
        "Not tested against Base: with 3 common seeds the exact two-sided sign-flip test can "
        "never reject at 5%, Holm's correction over 2 rows in each column; it "
        "needs 7 seeds."
    )


def test_without_a_baseline_nothing_is_compared(tmp_path: Path) -> None:
    grid, found = made(tmp_path, {"Base": BASE, "Low": BASE}, replace(REPORT, compare_to=None))
    assert row_tests.baselines(grid, found) == {}
    (note,) = main_table.build(facts_of(grid, found)).notes
    assert note.startswith("Signal to noise of FD-lab: 0.00; ")
    by_ratio = replace(grid, report=replace(REPORT, compare_to=None, baseline="Base"))
    assert list(row_tests.baselines(by_ratio, found)) == ["Low"]


def test_an_axis_value_is_a_baseline_within_each_row(tmp_path: Path) -> None:
    report = replace(REPORT, compare_to="backbone.weights=random")
    axes = {"backbone.weights": ("pretrained", "random")}
    grid = make_grid({name: ROWS[name] for name in ("Base", "Low")}, report, axes=axes)
    found = row_tests.baselines(grid, cells(read_runs(grid.runs, tmp_path)))
    assert {name: cell.name for name, cell in found.items()} == {
        f"{row} · weights=pretrained": f"{row} · weights=random" for row in ("Base", "Low")
    }
    validate(grid)
    with pytest.raises(UserError, match="Did you mean 'Base'"):
        validate(replace(grid, report=replace(report, compare_to="base")))


def test_the_seeds_have_a_table_of_their_own(tmp_path: Path) -> None:
    values = {"Base": BASE[:6], "Low": [v - 1 for v in BASE[:6]], "High": [9.0, *[None] * 5]}
    grid, found = made(tmp_path / "runs", values)
    table = side_tables.seeds(grid, found)
    assert table is not None
    text = tables.to_markdown(table)
    assert "| 10.00, 14.00" not in text and "10, 14, 11, 17, 12, 13" in text
    lines = {r["label"]: r for r in csv.DictReader(io.StringIO(tables.to_csv(table)))}
    assert lines["Base"]["verdict"] == "baseline" and lines["Base"]["n"] == "6"
    assert float(lines["Low"]["low"]) < float(lines["Low"]["fd_lab"]) < float(lines["Low"]["high"])
    # High has one seed, for which no test can say anything: Holm does not count it.
    assert lines["High"]["verdict"] == "too few seeds (1)" and lines["High"]["low"] == ""
    assert (lines["Low"]["verdict"], lines["Low"]["p_holm"]) == ("better", "0.03125")
    assert "| Low | 6 | **11.8** |" in text
    assert "(exact two-sided sign-flip test, paired by seed, 5%). Rows with too few" in text
    files = write_report(
        Facts.read(grid, tmp_path / "runs"), tmp_path / "results", lambda line: None, 120
    )
    assert {"seeds.md", "seeds.csv", "seeds.tex"} <= {path.name for path in files}


def test_a_single_seed_needs_no_table_of_seeds(tmp_path: Path) -> None:
    grid, found = made(tmp_path, {"Base": [1.0], "Low": [2.0]})
    assert side_tables.seeds(grid, found) is None
