"""The table of images to a target: three kinds of target, both definitions, and its words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis import target, time_to_target
from bench.analysis.cells import Cell, cells, read_runs
from bench.analysis.facts import Facts
from bench.analysis.survival import Reach
from bench.analysis.table import Table
from bench.cli import main
from bench.config.spec import Grid, ReportSpec
from bench.report import tables, target_table
from bench.report.build import write_report
from projgan.errors import ConfigError

ROWS = {"Projected": {}, "RGB": {"discriminator.kind": "rgb"}}
REPORT = ReportSpec(rank_by="fd_lab", columns=("fd_lab",), compare_to="RGB")
STEPS = [200 * (i + 1) for i in range(20)]  # images of the snapshots


def falling(end: float, speed: float, noise: float = 0.01, seed: int = 0) -> list[float]:
    """From four times the end down to it."""
    rng = np.random.default_rng(seed)
    truth = end * (1 + 3 * np.exp(-np.array(STEPS) / speed))
    return [float(v) for v in truth * (1 + noise * rng.standard_normal(len(STEPS)))]


def made(
    runs: Path, curves: dict[str, Callable[[int], Sequence[float]]], target: str, seeds: int = 3
) -> tuple[Grid, list[Cell]]:
    grid = make_grid(ROWS, replace(REPORT, target=target), seeds=range(seeds))
    for spec in grid.runs:
        if spec.row in curves:
            values = curves[spec.row](spec.config.train.seed)
            points = {n: {"fd_lab": v} for n, v in zip(STEPS, values, strict=True)}
            write_record(runs, spec, make_record(spec, points))
    return grid, cells(read_runs(grid.runs, runs))


CURVES: dict[str, Callable[[int], Sequence[float]]] = {
    "Projected": lambda seed: falling(4.0, 300, seed=seed),
    "RGB": lambda seed: falling(10.0, 900, seed=10 + seed),
}


def shown(grid: Grid, found: list[Cell]) -> Table:
    times = time_to_target.measure(grid, found)
    assert times is not None
    return target_table.targets(grid, found, times)


def lines(grid: Grid, found: list[Cell]) -> dict[str, dict[str, str]]:
    table = shown(grid, found)
    return {r["label"]: r for r in csv.DictReader(io.StringIO(tables.to_csv(table)))}


def test_targets_are_numbers_rows_and_shares() -> None:
    assert target.Target.parse("20") == target.Target(value=20.0)
    assert target.Target.parse("row:RGB") == target.Target(row="RGB")
    assert target.Target.parse("5%") == target.Target(share=0.05)
    for text in ("", "row:", "five", "nan", "-5%", "RGB"):
        with pytest.raises(ConfigError, match="row:LABEL"):
            target.Target.parse(text)
    with pytest.raises(ConfigError, match="Did you mean 'RGB'"):
        target.check("row:RGP", "fd_lab", list(ROWS))
    target.check("row:RGP", "fd_lab", list(ROWS), narrowed=True)
    with pytest.raises(ConfigError, match="rank_by"):
        target.check("20", None, list(ROWS))


def test_a_number_is_reached_where_the_curves_get_there(tmp_path: Path) -> None:
    found = lines(*made(tmp_path, CURVES, "15"))
    # 4 (1 + 3 exp(-n / 300)) = 15 at n = 26; 10 (1 + 3 exp(-n / 900)) = 15 at n = 1613.
    assert found["Projected"]["kimg"] == "0.2" and found["Projected"]["reached"] == "3 of 3"
    assert float(found["RGB"]["kimg"]) == pytest.approx(1.8, abs=0.21)
    kimg = float(found["RGB"]["kimg"])
    assert found["Projected"]["speedup"] == f"RGB {kimg:g} k → 0.2 k, {kimg / 0.2:.2g}x"
    assert float(found["Projected"]["factor"]) == pytest.approx(8, abs=1.1)
    assert found["RGB"]["speedup"] == "reference"
    table = shown(*made(tmp_path, CURVES, "15"))
    assert r"k $\rightarrow$ 0.2 k" in tables.to_latex(table)


def test_a_row_above_the_target_is_censored_and_bounds_the_factor(tmp_path: Path) -> None:
    found = lines(*made(tmp_path, CURVES, "8"))
    assert (found["RGB"]["kimg"], found["RGB"]["reached"]) == (">4", "0 of 3")
    projected = found["Projected"]
    assert projected["speedup"].startswith("RGB >4 k → 0.4 k, >")
    assert projected["factor"] == ">10"
    swapped = {"Projected": CURVES["RGB"], "RGB": CURVES["Projected"]}
    turned = lines(*made(tmp_path / "turned", swapped, "8"))
    assert turned["Projected"]["speedup"] == "RGB 0.4 k → not in 4 k"
    assert turned["Projected"]["factor"] == ""


def test_a_fast_run_that_did_not_get_there_is_no_sooner_out_of_sight() -> None:
    """Two of three runs are not there at the end; that they took less time changes nothing."""
    reach = [Reach(2000, 70.0, True), Reach(4000, 60.0, False), Reach(4000, 65.0, False)]
    assert time_to_target.Times(tuple(reach)).seconds.value == math.inf


def test_a_reference_that_may_have_got_there_bounds_nothing(tmp_path: Path) -> None:
    curves = {**CURVES, "RGB": lambda seed: falling(10.0, 500, noise=0.02, seed=seed)}
    found = lines(*made(tmp_path, curves, "9.9"))
    assert "undecided" in found["RGB"]["reached"]
    assert found["Projected"]["speedup"] == "RGB undecided at 4 k → 0.4 k"
    assert found["Projected"]["factor"] == "" and found["Projected"]["first_factor"] != ""


def test_a_rows_best_is_a_target_for_the_others(tmp_path: Path) -> None:
    grid, found = made(tmp_path, CURVES, "row:RGB")
    (value,) = time_to_target.values(grid, found)
    assert 9.5 < value < 10.6
    row = lines(grid, found)
    assert row["Projected"]["target"] == f"{value:.8g}"
    # RGB comes within 5 % of its end, 10, where 3 exp(-n / 900) = 0.05: n = 3685.
    assert 3.0 <= float(row["RGB"]["kimg"]) <= 4.0 and row["RGB"]["reached"] == "3 of 3"
    # 4 (1 + 3 exp(-n / 300)) = 10 at n = 208.
    assert row["Projected"]["kimg"] in ("0.2", "0.4")
    note = " ".join(shown(grid, found).notes)
    assert "mean best of RGB as its curve has it, picked after looking" in note
    for run in found[1].runs:  # measured on fresh samples
        assert run.record is not None
        run.record["best"] = {"copied:fd_lab": {"chosen": run.best("fd_lab"), "fresh": 11.0}}
    assert time_to_target.values(grid, found) == [11.0]


def test_each_run_has_a_share_of_its_own_best(tmp_path: Path) -> None:
    grid, found = made(tmp_path, CURVES, "10%")
    assert time_to_target.values(grid, found) == []
    row = lines(grid, found)
    assert {r["reached"] for r in row.values()} == {"3 of 3"}
    # Within 10 %: 3 exp(-n / speed) = 0.1 at 3.4 speeds.
    assert float(row["Projected"]["kimg"]) == pytest.approx(1.02, abs=0.3)
    assert float(row["RGB"]["kimg"]) == pytest.approx(3.06, abs=0.5)


def test_seeds_have_a_range_and_from_five_on_an_interval(tmp_path: Path) -> None:
    few = lines(*made(tmp_path / "few", CURVES, "15"))["RGB"]
    many = lines(*made(tmp_path / "many", CURVES, "15", seeds=6))["RGB"]
    one = lines(*made(tmp_path / "one", CURVES, "15", seeds=1))["RGB"]
    for row in (few, many):
        assert float(row["low"]) <= float(row["kimg"]) <= float(row["high"])
    assert one["low"] == one["high"] == "" and one["reached"] == "1 of 1"


def test_a_curve_of_three_snapshots_is_sure_of_nothing(tmp_path: Path) -> None:
    grid = make_grid(ROWS, replace(REPORT, target="5"))
    for spec in grid.runs:
        points = {n: {"fd_lab": v} for n, v in ((1000, 9.0), (2000, 6.0), (4000, 4.0))}
        write_record(tmp_path, spec, make_record(spec, points))
    found = cells(read_runs(grid.runs, tmp_path))
    table = shown(grid, found)
    assert "too few snapshots" in tables.to_markdown(table)
    row = lines(grid, found)["Projected"]
    assert (row["first_kimg"], row["kimg"]) == ("4", "")


def test_a_row_without_runs_keeps_its_place(tmp_path: Path) -> None:
    grid, found = made(tmp_path, {"Projected": CURVES["Projected"]}, "15")
    table = shown(grid, found)
    assert [row.status for row in table.rows] == ["finished", "missing"]
    assert lines(grid, found)["Projected"]["speedup"] == ""
    grid, found = made(tmp_path, CURVES, "row:RGB")
    assert time_to_target.measure(replace(grid, report=REPORT), found) is None


def test_the_report_writes_the_table_and_draws_the_line(tmp_path: Path) -> None:
    grid, _ = made(tmp_path / "runs", CURVES, "15")
    said: list[str] = []
    files = write_report(
        Facts.read(grid, tmp_path / "runs"), tmp_path / "with", said.append, width=120
    )
    assert {"targets.md", "targets.csv", "targets.tex"} <= {path.name for path in files}
    assert "Images until FD-lab reaches 15." in "".join(said)
    plain = replace(grid, report=replace(grid.report, target=None))
    write_report(Facts.read(plain, tmp_path / "runs"), tmp_path / "without", said.append, width=120)
    svg = "made/curves/fd_lab.svg"
    assert (tmp_path / "with" / svg).read_bytes() != (tmp_path / "without" / svg).read_bytes()


def test_the_command_line_gives_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["grid=backbones", "do=report", "target=RGB"]) == 2
    assert "row:LABEL" in capsys.readouterr().err
    assert main.main(["grid=backbones", "do=report", "target=row:ViTT"]) == 2
    assert "Did you mean 'ViT'" in capsys.readouterr().err
    assert main.main(["grid=backbones", "do=plan", "target=20"]) == 2
    assert "do=report" in capsys.readouterr().err
