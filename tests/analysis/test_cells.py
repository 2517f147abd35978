"""Records become cells without losing a point or hiding a gap."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis.cells import Cell, Run, Stat, cells, read_runs
from bench.config.spec import Grid, ReportSpec
from bench.store import record

ROWS = {
    "A": {"backbone.name": "efficientnet_lite1"},
    "B": {"backbone.name": "resnet18"},
}
CURVE = {1024: {"fd_lab": 10.0}, 2048: {"fd_lab": 3.0}, 4000: {"fd_lab": 4.0}}


def one_run(runs_dir: Path, **changes: object) -> Run:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    write_record(runs_dir, grid.runs[0], make_record(grid.runs[0], CURVE, **changes))
    return read_runs(grid.runs, runs_dir)[0]


def seeded(runs_dir: Path, values: list[float]) -> tuple[Grid, list[Cell]]:
    """Row A with one finished run per value; row B not run."""
    grid = make_grid(ROWS, ReportSpec(), seeds=range(len(values)))
    for spec, value in zip(grid.runs, values, strict=False):
        write_record(runs_dir, spec, make_record(spec, {4000: {"fd_lab": value}}))
    return grid, cells(read_runs(grid.runs, runs_dir))


def test_a_cell_keeps_every_point_and_says_n_mean_and_spread(tmp_path: Path) -> None:
    _, (a, b) = seeded(tmp_path, [1.0, 2.0, 6.0])
    stat = a.stat("fd_lab")
    assert stat is not None
    assert stat.points == (1.0, 2.0, 6.0)
    assert (stat.n, stat.mean, stat.min, stat.max) == (3, 3.0, 1.0, 6.0)
    assert stat.std == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert b.stat("fd_lab") is None
    assert [run.status for run in b.runs] == ["missing"] * 3


def test_one_run_has_no_spread() -> None:
    assert Stat((5.0,)).std is None


def test_final_is_the_last_snapshot_and_best_is_apart_from_it(tmp_path: Path) -> None:
    run = one_run(tmp_path)
    assert run.value("fd_lab") == 4.0
    assert run.best("fd_lab") == 3.0
    assert run.best("fd_lab", lower_is_better=False) == 10.0
    assert run.curve("fd_lab") == [(1024, 10.24, 10.0), (2048, 20.48, 3.0), (4000, 40.0, 4.0)]


def test_snapshots_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    record = make_record(grid.runs[0], CURVE)
    record["snapshots"].reverse()
    write_record(tmp_path, grid.runs[0], record)
    assert read_runs(grid.runs, tmp_path)[0].value("fd_lab") == 4.0


def test_snapshots_measured_otherwise_are_not_on_the_curve(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    record = make_record(grid.runs[0], CURVE)
    record["snapshots"][1]["eval"]["fake"] = 100  # the best value, but of fewer images
    record["snapshots"][0]["eval"]["seconds"] = 7.0  # no part of the protocol
    write_record(tmp_path, grid.runs[0], record)
    (run,) = read_runs(grid.runs, tmp_path)
    assert [nimg for nimg, _, _ in run.curve("fd_lab")] == [1024, 4000]


def test_networks_are_compared_where_both_snapshots_used_them(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    record = make_record(grid.runs[0], CURVE)
    looked: list[dict[str, str]] = [{}, {"lab": "other"}, {"lab": "one", "inception": "i"}]
    for snapshot, networks in zip(record["snapshots"], looked, strict=True):
        snapshot["eval"]["extractors"] = networks
    write_record(tmp_path, grid.runs[0], record)
    (run,) = read_runs(grid.runs, tmp_path)
    assert [nimg for nimg, _, _ in run.curve("fd_lab")] == [1024, 4000]


# Distances from other numbers of images.


def four(runs_dir: Path, name: str, value: object, where: str = "A") -> list[Run]:
    """Four runs, of which one was measured with another number of images."""
    grid = make_grid({row: {"backbone.name": row} for row in "ABCD"}, ReportSpec())
    for spec in grid.runs:
        record = make_record(spec, CURVE)
        for snapshot in record["snapshots"] if spec.row == where else ():
            snapshot["eval"][name] = value
        write_record(runs_dir, spec, record)
    return read_runs(grid.runs, runs_dir)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("fake", 500, "500 against 8192"),
        ("real", 1000, "2000 against 1000"),
        ("fake", None, "unkn"),
    ],
)
def test_values_from_other_numbers_of_images_do_not_stand_beside(
    tmp_path: Path, name: str, value: object, words: str
) -> None:
    odd, *others = four(tmp_path, name, value)
    assert odd.value("fd_lab") is None and odd.curve("fd_lab") == [] and odd.best("fd_lab") is None
    assert words in odd.why_missing("fd_lab")
    assert "where the others have 2000 against 8192: not comparable" in odd.why_missing("fd_lab")
    assert odd.value("images_per_s") == 100.0  # is no matter of images
    assert all(run.value("fd_lab") == 4.0 and not run.incomparable for run in others)
    cell, *_ = cells([odd, *others])
    assert cell.stat("fd_lab") is None and "not comparable" in cell.why_missing("fd_lab")


def test_those_that_the_grid_asks_for_stay_even_where_they_are_few(tmp_path: Path) -> None:
    grid = make_grid({row: {"backbone.name": row} for row in "ABC"}, ReportSpec())
    for spec in grid.runs:
        record = make_record(spec, CURVE)
        for snapshot in record["snapshots"] if spec.row != "C" else ():
            snapshot["eval"]["fake"] = 500
        write_record(tmp_path, spec, record)
    assert [bool(run.incomparable) for run in read_runs(grid.runs, tmp_path)] == [True, True, False]


def test_all_alike_but_not_as_the_grid_asks_are_comparable(tmp_path: Path) -> None:
    grid = make_grid({row: {"backbone.name": row} for row in "AB"}, ReportSpec())
    for spec in grid.runs:
        record = make_record(spec, CURVE)
        for snapshot in record["snapshots"]:
            snapshot["eval"]["fake"] = 500
        write_record(tmp_path, spec, record)
    assert not any(run.incomparable for run in read_runs(grid.runs, tmp_path))


def test_other_data_has_other_real_images(tmp_path: Path) -> None:
    grid = make_grid({"A": {}}, ReportSpec(), axes={"data.name": ("clevr", "pokemon")})
    for spec, real in zip(grid.runs, (8192, 833), strict=True):
        record = make_record(spec, CURVE)
        for snapshot in record["snapshots"]:
            snapshot["eval"]["real"] = real
        write_record(tmp_path, spec, record)
    assert not any(run.incomparable for run in read_runs(grid.runs, tmp_path))


def test_values_beside_the_metrics_come_from_their_place_in_the_record(tmp_path: Path) -> None:
    run = one_run(tmp_path)
    keys = ("params_m", "accuracy", "images_per_s", "peak_mb", "time_s", "discriminator_m")
    assert [run.value(key) for key in keys] == [0.251, 81.25, 100.0, 812.4, 51.0, 0.6]


def test_what_is_missing_has_its_reason(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    record = make_record(grid.runs[0], CURVE, backbone=None)
    record["snapshots"][-1]["missing"] = {"kid_lab": "too few images"}
    write_record(tmp_path, grid.runs[0], record)
    (run,) = read_runs(grid.runs, tmp_path)
    assert run.value("params_m") is None
    assert run.why_missing("params_m") == "has no feature network"
    assert run.why_missing("kid_lab") == "too few images"
    assert run.why_missing("fd_l1") == "not evaluated"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_no_value(tmp_path: Path, bad: float) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    write_record(tmp_path, grid.runs[0], make_record(grid.runs[0], {4000: {"fd_lab": bad}}))
    assert read_runs(grid.runs, tmp_path)[0].value("fd_lab") is None


def test_failed_and_unfinished_runs_stay_out_of_the_mean(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec(), seeds=(0, 1, 2))
    first, second, third = grid.runs
    write_record(tmp_path, first, make_record(first, CURVE))
    write_record(
        tmp_path, second, make_record(second, CURVE, status="failed", error="boom\nTraceback")
    )
    early = {1024: {"fd_lab": 99.0}}
    write_record(tmp_path, third, make_record(third, early, status="running"))
    (cell,) = cells(read_runs(grid.runs, tmp_path))
    stat = cell.stat("fd_lab")
    assert stat is not None and stat.points == (4.0,)
    reasons = [(run.status, run.reason) for run in cell.unfinished]
    assert reasons == [("failed", "boom"), ("running", "1.024 of 4 kimg evaluated")]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": 1}', '{"schema": 1, "status": "finished", "snapshots": [3]}']
)
def test_a_damaged_record_is_a_run_that_says_so(tmp_path: Path, text: str) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    path = write_record(tmp_path, grid.runs[0], {})
    path.write_text(text)
    (run,) = read_runs(grid.runs, tmp_path)
    assert run.status == "unreadable"
    assert str(path) in run.reason and "\n" not in run.reason


def test_a_reader_that_checks_less_still_gives_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    snapshot = {"nimg": 1, "metrics": {}}
    monkeypatch.setattr(record, "load", lambda path: {"snapshots": [snapshot]})
    (run,) = read_runs(grid.runs, tmp_path)
    assert run.status == "unreadable" and "train_seconds" in run.reason


def test_axes_split_cells_and_pretraining_seeds_do_not(tmp_path: Path) -> None:
    settings = {"A": {"backbone.name": "resnet18", "backbone.zoo": "lab"}}
    by_subset = make_grid(settings, ReportSpec(), axes={"data.subset": (1000, None)}, seeds=(0, 1))
    found = cells(read_runs(by_subset.runs, tmp_path))
    assert [(c.name, len(c.runs)) for c in found] == [
        ("A · subset=1000", 2),
        ("A · subset=all", 2),
    ]
    by_luck = make_grid(settings, ReportSpec(), axes={"backbone.pretrain_seed": (0, 1)})
    (cell,) = cells(read_runs(by_luck.runs, tmp_path))
    assert (cell.name, len(cell.runs)) == ("A", 2)


def test_progress_compares_the_end_with_the_first_thousand_images(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec())
    spec = grid.runs[0]
    write_record(tmp_path, spec, make_record(spec, CURVE))
    (cell,) = cells(read_runs(grid.runs, tmp_path))
    assert cell.progress("fd_lab") == Stat((0.4,))
    assert cell.progress("fd_lab", kimg=3) is None  # no snapshot there
    assert cell.progress("fd_lab", kimg=4) is None  # the end itself is no start
