"""do=compare: runs and grids against each other."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis import comparison
from bench.analysis.facts import Facts
from bench.cli import main
from bench.config.spec import Grid, ReportSpec
from bench.report.build import write_report
from projgan.errors import UserError

REPORT = ReportSpec(rank_by="fd_lab", columns=("fd_lab",))
ROWS = {"One": {"backbone.name": "resnet18"}, "Two": {"backbone.name": "vit"}}


def made(name: str, runs_dir: Path, factor: float, width: int, seeds: int = 7) -> Grid:
    """A grid of two rows whose first reaches 8 * factor, and whose second 4 * factor."""
    rows = {label: {**settings, "generator.width": width} for label, settings in ROWS.items()}
    grid = make_grid(rows, REPORT, seeds=range(seeds), name=name)
    wanted = tuple(
        # made_records asks for no metrics; a comparison looks for what was asked of both
        replace(s, eval=replace(s.eval, metrics=("fd_lab",)))
        for s in grid.runs
    )
    grid = replace(grid, runs=wanted)
    for spec in grid.runs:
        last = factor * (8 if spec.row == "One" else 4) + spec.config.train.seed / 100
        curve = {1000 * i: {"fd_lab": last * 8 / i} for i in range(1, 9)}
        folder = write_record(runs_dir, spec, make_record(spec, curve)).parent
        (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    return grid


def lines(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {line["label"]: line for line in csv.DictReader(file)}


def test_grids_are_paired_row_by_row_and_seed_by_seed(tmp_path: Path) -> None:
    both = [made("old", tmp_path, 1.0, 8), made("new", tmp_path, 0.5, 4)]
    grid = comparison.of_grids(both, tmp_path, target="8.5")
    write_report(Facts.read(grid, tmp_path), tmp_path / "out", lambda text: None, width=120)
    folder = tmp_path / "out" / "compare-old-new"
    seeds = lines(folder / "seeds.csv")
    assert seeds["One · grid=old"]["verdict"] == "baseline"
    new = seeds["One · grid=new"]
    assert (new["verdict"], float(new["difference"])) == ("better", -4.0)
    assert float(new["p_holm"]) == pytest.approx(2 * 2 / 2**7)
    targets = lines(folder / "targets.csv")
    # Old row One is first below 8.5 after 8000 images; the new one, at half, after 4000.
    assert targets["One · grid=old"]["first_kimg"] == "8"
    assert targets["One · grid=new"]["first_kimg"] == "4"
    assert targets["One · grid=new"]["first_factor"] == "2"
    assert "Two · grid=new" in (folder / "index.html").read_text()


def test_an_axis_of_one_grid_is_a_setting_of_the_other(tmp_path: Path) -> None:
    plain = made("plain", tmp_path, 1.0, 8, seeds=1)
    settings = {label: {**row, "generator.width": 8} for label, row in ROWS.items()}
    axes = {"backbone.weights": ("pretrained", "random")}
    crossed = make_grid(settings, REPORT, axes, name="crossed")
    wanted = tuple(replace(s, eval=replace(s.eval, metrics=("fd_lab",))) for s in crossed.runs)
    grid = comparison.of_grids([plain, replace(crossed, runs=wanted)], tmp_path)
    found = {(s.row, s.axes["backbone.weights"], s.axes["grid"]): s.run_id for s in grid.runs}
    # The very same run, once in each grid.
    assert found["One", "pretrained", "plain"] == found["One", "pretrained", "crossed"]
    write_report(Facts.read(grid, tmp_path), tmp_path / "out", lambda text: None, width=120)
    text = (tmp_path / "out" / "compare-plain-crossed" / "index.html").read_text()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "2 rows are level" in text and "not at all" in text


def test_runs_are_held_against_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    grid = made("old", runs, 1.0, 8, seeds=1)
    a, b = (spec.run_id for spec in grid.runs)
    where = [f"runs_dir={runs}", f"results_dir={tmp_path / 'out'}"]
    assert main.main(["do=compare", f"runs={a},{b}", *where]) == 0
    said = capsys.readouterr().out
    assert "Two · seed=0" in said and "to look at: " in said
    folder = tmp_path / "out" / f"compare-{a}-{b}"
    reached = lines(folder / "targets.csv")["Two · seed=0"]
    assert (reached["target"], reached["first_kimg"]) == ("8", "5")  # 6.4, after 8 at 4
    page = (folder / "index.html").read_text()
    assert f"do=compare runs={a},{b}" in page and "do=verify" not in page


def test_runs_of_two_scales_have_no_findings_and_none_is_missed(tmp_path: Path) -> None:
    specs = made("both", tmp_path, 1.0, 8, seeds=1).runs
    for spec, scale in zip(specs, ("lab", "paper"), strict=True):
        path = tmp_path / spec.run_id / "spec.json"
        path.write_text(json.dumps(replace(spec, scale=scale).to_json()))
    grid = comparison.of_runs([spec.run_id for spec in specs], tmp_path)
    write_report(Facts.read(grid, tmp_path), tmp_path / "out", lambda text: None, width=120)
    page = (tmp_path / "out" / grid.name / "index.html").read_text()
    assert "scale lab and paper" in page and "not looked at" not in page


def test_published_runs_have_records_alone(tmp_path: Path) -> None:
    grid = make_grid({"One": {}, "Two": {"backbone.name": "vit"}}, REPORT)
    for spec, final in zip(grid.runs, (8.0, 6.0), strict=True):
        write_record(tmp_path, spec, make_record(spec, {4000: {"fd_lab": final, "kid_lab": 0.1}}))
    found = comparison.of_runs([spec.run_id for spec in grid.runs], tmp_path)
    assert [run.run_id for run in found.runs] == [spec.run_id for spec in grid.runs]
    assert found.report.columns[:2] == ("fd_lab", "kid_lab") and found.report.rank_by == "fd_lab"
    assert [row.label for row in found.rows] == ["One · seed=0", "Two · seed=0"]
    with pytest.raises(UserError, match="holds no run"):
        comparison.of_runs(["aaa", "bbb"], tmp_path / "none")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ([], "give runs=A,B (ids) or grids=A,B (names)"),
        (["runs=aaa,aaa"], "give two or more, each once"),
        (["grids=smoke"], "give two or more, each once"),
        (["runs=aaa,bbb"], "holds no run"),
        (["grids=smoke,backbone"], "Unknown grid 'backbone'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    ask: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["do=compare", *ask, f"runs_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_no_common_metric_is_said(tmp_path: Path) -> None:
    grid = make_grid(ROWS, REPORT)  # asks for no metric
    with pytest.raises(UserError, match="no metric"):
        comparison.of_grids([grid, replace(grid, name="other")], tmp_path)
