"""Whether metrics rank a grid's rows alike: orders that are known, and what a report says of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from made_records import facts_of, make_grid, make_record, write_record

from bench.analysis import cells as aggregate
from bench.analysis.facts import Facts
from bench.analysis.metric_agreement import Panel, Tau, conclusion, panel, taus
from bench.config.spec import Grid, ReportSpec
from bench.report import main_table, side_tables
from bench.report.build import write_report
from bench.report.tables import to_csv, to_markdown

ROWS = {f"row {i}": {"train.ema_kimg": 1.0 + i} for i in range(4)}
REPORT = ReportSpec(rank_by="kid_lab", columns=("fd_lab",))
RISING, FALLING = (1.0, 2.0, 3.0, 4.0), (4.0, 3.0, 2.0, 1.0)
UNRELATED = (2.0, 4.0, 1.0, 3.0)  # three of six pairs as in RISING, three the other way


def made(
    tmp_path: Path, values: Mapping[str, Sequence[float]], shifts: Sequence[float] = (0.0,)
) -> tuple[Grid, list[aggregate.Cell]]:
    """Four rows; `values` by metric, to each of which a seed adds its own shift."""
    grid = make_grid(ROWS, REPORT, seeds=range(len(shifts)))
    for spec in grid.runs:
        shift = shifts[spec.config.train.seed]
        row = int(spec.row.split()[1])
        metrics = {name: points[row] + shift for name, points in values.items()}
        write_record(tmp_path, spec, make_record(spec, {4000: metrics}))
    return grid, aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))


def single(points: Sequence[float]) -> list[list[float]]:
    return [[p] for p in points]


@pytest.mark.parametrize(("other", "tau"), [(RISING, 1.0), (UNRELATED, 0.0), (FALLING, -1.0)])
def test_known_orders_give_1_0_and_minus_1(other: Sequence[float], tau: float) -> None:
    found = taus({"a": single(RISING), "b": single(other)})["a", "b"]
    assert found.value == pytest.approx(tau, abs=1e-12)
    assert found.low is None and not found.agrees  # one run each: nobody knows


@pytest.mark.parametrize(("other", "tau"), [(RISING, 1.0), (UNRELATED, 0.0), (FALLING, -1.0)])
def test_so_do_grids(tmp_path: Path, other: Sequence[float], tau: float) -> None:
    grid, cells = made(tmp_path, {"fd_lab": RISING, "kid_lab": other})
    found = panel(grid, cells)
    assert found is not None and found.metrics == ("kid_lab", "fd_lab")
    assert found.tau("fd_lab", "kid_lab").value == pytest.approx(tau, abs=1e-12)


def test_seeds_give_the_interval() -> None:
    apart = [[10.0 * i, 10.0 * i + 1] for i in range(4)]  # no draw changes the order
    found = taus({"a": apart, "b": apart})["a", "b"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    near = [[1.0, 4.0], [2.0, 3.5], [3.0, 2.0], [1.5, 4.5]]  # every draw does
    far = [[4.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 1.5]]
    found = taus({"a": near, "b": far})["a", "b"]
    assert found.low is not None and found.high is not None and found.value is not None
    assert found.low < found.value < found.high and not found.agrees
    assert taus({"a": near, "b": far})["a", "b"] == found  # seeded


def test_a_row_with_one_run_leaves_all_open() -> None:
    """It would count as if its values had no noise."""
    rows = [[10.0 * i, 10.0 * i + 1] for i in range(3)] + [[40.0]]
    found = taus({"a": rows, "b": rows})["a", "b"]
    assert (found.value, found.low) == (1.0, None) and not found.agrees


def test_a_runs_metrics_are_drawn_together() -> None:
    """Two metrics that are one and the same agree in every draw, however noisy the seeds are."""
    noisy = [[1.0, 9.0, 4.0], [2.0, 7.0, 3.0], [8.0, 1.0, 5.0], [6.0, 2.0, 4.5]]
    found = taus({"a": noisy, "b": [[2 * v for v in points] for points in noisy]})["a", "b"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_more_may_be_better(tmp_path: Path) -> None:
    grid, cells = made(tmp_path, {"fd_lab": RISING, "recall_lab": FALLING})
    found = panel(grid, cells)
    assert found is not None and found.tau("fd_lab", "recall_lab").value == 1.0
    assert found.first == {"fd_lab": "row 0", "recall_lab": "row 0"}


def test_what_cannot_be_ranked_has_no_panel(tmp_path: Path) -> None:
    grid, cells = made(tmp_path / "1", {"fd_lab": RISING})
    assert panel(grid, cells) is None
    grid, cells = made(tmp_path / "2", {"fd_lab": RISING, "kid_lab": RISING})
    assert panel(grid, cells[:2]) is None
    # The levels of a row's own backbone compare nothing across rows.
    grid, cells = made(tmp_path / "3", {"fd_lab": RISING, "own_l1": FALLING})
    assert panel(grid, cells) is None


def test_a_metric_of_some_rows_costs_no_row_its_place(tmp_path: Path) -> None:
    grid, _ = made(tmp_path, {"fd_lab": RISING, "kid_lab": RISING})
    spec = grid.runs[0]
    extra = {"fd_lab": 1.0, "kid_lab": 1.0, "recall_lab": 0.5}
    write_record(tmp_path, spec, make_record(spec, {4000: extra}))
    found = panel(grid, aggregate.cells(aggregate.read_runs(grid.runs, tmp_path)))
    assert found is not None and len(found.rows) == 4
    assert set(found.metrics) == {"fd_lab", "kid_lab"}


def test_equal_rows_have_no_tau() -> None:
    found = taus({"a": single(RISING), "b": single((1.0, 1.0, 1.0, 1.0))})["a", "b"]
    assert found.value is None and not found.agrees


# What is said of it.


def said(**pairs: Tau) -> str:
    metrics = ("fd_lab", *pairs)
    first = dict.fromkeys(metrics, "A") | ({"fd_l4": "B"} if "fd_l4" in pairs else {})
    found = Panel(metrics, ("A", "B", "C"), {("fd_lab", m): t for m, t in pairs.items()}, first)
    return conclusion(found, "fd_lab")


def test_the_conclusion_in_words() -> None:
    assert said(kid_lab=Tau(0.9, 0.7, 1.0), fd_l1=Tau(0.6, 0.2, 0.8)) == (
        "The conclusion does not depend on the metric: all 3 agree with FD-lab on the order of 3 "
        "rows and on the first, A (lowest tau 0.60 [0.20, 0.80], FD-L1)."
    )
    assert said(kid_lab=Tau(0.9, 0.7, 1.0), fd_l1=Tau(0.3, -0.1, 0.6)) == (
        "The conclusion depends on the metric: no sure agreement with FD-lab on the order of 3 "
        "rows: tau FD-L1 0.30 [-0.10, 0.60]."
    )
    assert said(fd_l4=Tau(0.8, 0.5, 1.0)) == (
        "The conclusion depends on the metric: FD-lab ranks A first, B by FD-L4."
    )
    assert "tau KID-lab x1000 undefined" in said(kid_lab=Tau(None))


def test_with_one_seed_it_is_not_known(tmp_path: Path) -> None:
    """Where a user reads it: under the table that `do=report` writes, and in agreement.md."""
    for i, (other, same, tau) in enumerate(
        ((RISING, "1 of 1", "1.00"), (UNRELATED, "0 of 1", "0.00"))
    ):
        place = tmp_path / str(i)
        grid, _ = made(place / "runs", {"fd_lab": other, "kid_lab": RISING})
        write_report(Facts.read(grid, place / "runs"), place, lambda text: None)
        line = (
            "Whether the conclusion depends on the metric is not known: a row with a single run of "
            "all metrics does not show how far seeds move the order of 4 rows. In these runs "
            f"{same} other metrics have KID-lab x1000's first, row 0; "
            f"the lowest tau with it is {tau}, FD-lab."
        )
        for name in ("table.md", "agreement.md"):
            assert line in (place / "made" / name).read_text()


def test_the_report_writes_the_panel_and_says_it_under_the_table(tmp_path: Path) -> None:
    values = {"fd_lab": RISING, "kid_lab": RISING, "fd_l1": FALLING}
    grid, cells = made(tmp_path / "runs", values, shifts=(0.0, 0.1, -0.1))
    write_report(Facts.read(grid, tmp_path / "runs"), tmp_path, lambda text: None)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "made" / "agreement.csv").read_text())))
    assert [(line["metric"], line["other"]) for line in lines] == [
        ("KID-lab x1000", "FD-lab"), ("KID-lab x1000", "FD-L1"), ("FD-lab", "FD-L1"),
    ]  # fmt: skip
    assert [(line["tau"], line["from"], line["to"]) for line in lines] == [
        ("1", "1", "1"), ("-1", "-1", "-1"), ("-1", "-1", "-1"),
    ]  # fmt: skip
    notes = main_table.build(facts_of(grid, cells)).notes
    (line,) = [note for note in notes if note.startswith("The conclusion")]
    assert "depends on the metric" in line and "row 3 by FD-L1" in line
    markdown = (tmp_path / "made" / "agreement.md").read_text()
    assert "First by KID-lab x1000: row 0; FD-lab: row 0; FD-L1: row 3." in markdown
    # FD-L1's judge learned from what the rows' backbones learned from.
    found = panel(grid, cells)
    assert found is not None
    assert "flagged by leakage in 4 of 4 rows" in to_markdown(
        side_tables.agreement(grid, cells, found)
    )
    assert "KID-lab" in to_csv(side_tables.agreement(grid, cells, found))
