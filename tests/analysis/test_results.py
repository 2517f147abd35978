"""bench.load_results: records as one tidy DataFrame."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_records import make_record, write_record

import bench
from bench.analysis.results import COLUMNS
from bench.config import grid as grids
from bench.config.paths import ROOT, RunPaths
from projgan.errors import DataError

RECORDS = ROOT / "results" / "reference" / "records"
DOCS = ROOT / "docs" / "python.md"


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return bench.load_results(RECORDS)


def test_every_value_of_every_published_record_is_there_once(published: pd.DataFrame) -> None:
    runs = published.drop_duplicates(["run_id", "images", "metric", "norms"])
    values = {
        (path.parent.name, snapshot["nimg"], key): value
        for path in RECORDS.glob("*/record.json")
        for snapshot in json.loads(path.read_text())["snapshots"]
        for key, value in snapshot["metrics"].items()
    }
    found = runs.dropna(subset=["value"])
    assert len(values) > 4000 and len(found) == len(values)
    for line in found.sample(200, random_state=0).itertuples():
        assert values[line.run_id, line.images, line.metric] == line.value


def test_published_results_know_their_grids_and_axes(published: pd.DataFrame) -> None:
    manifests = {path.parent.name for path in RECORDS.parent.glob("*/manifest.json")}
    assert set(published.grid.dropna()) == manifests
    subsets = published[published.grid == "subsets"]
    assert {(1000,), (10000,)} <= {(v,) for v in subsets["data.subset"].dropna()}
    assert published[published.grid == "backbones"].groupby("row").run_id.nunique().eq(6).all()


def test_a_grid_alone_and_its_means_are_those_of_its_table() -> None:
    frame = bench.load_results(RECORDS, grid="backbones")
    final = frame[frame.final & (frame.metric == "fd_lab")]
    means = final.groupby("row").value.mean()
    table = pd.read_csv(RECORDS.parent / "backbones" / "table.csv").set_index("label")
    assert len(means) == 10
    for row, mean in means.items():
        assert mean == pytest.approx(table.loc[row, "fd_lab"], rel=1e-6)


def test_columns_have_their_types_and_are_documented(published: pd.DataFrame) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, kind in COLUMNS.items():
        assert f"`{name}`" in text, name
        assert str(published[name].dtype) == kind, name
    assert published.images.dropna().gt(0).all() and published.norms.dropna().eq("copied").all()


def test_runs_of_a_folder_stand_in_the_grid_that_began_them(tmp_path: Path) -> None:
    grid = grids.load("smoke")
    run, failed = grid.runs
    write_record(tmp_path, run, make_record(run, {1000: {"fd_lab": 3.0}, 2000: {"fd_lab": 2.0}}))
    write_record(tmp_path, failed, make_record(failed, {}, status="failed", error="too hot"))
    for spec in (run, failed):
        RunPaths(tmp_path / spec.run_id).spec.write_text(json.dumps(spec.to_json()))
    frame = bench.load_results(tmp_path)
    assert frame.value.dropna().tolist() == [3.0, 2.0]
    assert frame[frame.value.notna()].final.tolist() == [False, True]
    assert set(frame.grid) == {grid.name} and set(frame.row) == {run.row, failed.row}
    assert frame[frame.status == "failed"].value.isna().all()


@pytest.mark.parametrize("text", ['{"name": "a web page"}', "[1]", "no JSON", '{"cells": 1}'])
def test_another_manifest_beside_the_runs_is_none_of_a_report(tmp_path: Path, text: str) -> None:
    (run, _) = grids.load("smoke").runs
    write_record(tmp_path / "runs", run, make_record(run, {1000: {"fd_lab": 3.0}}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text(text)
    frame = bench.load_results(tmp_path / "runs")
    assert frame.value.tolist() == [3.0] and frame.grid.isna().all()


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        bench.load_results(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no run of grid=smoke"):
        bench.load_results(tmp_path, grid="smoke")
    assert list(bench.load_results(tmp_path).columns) == list(COLUMNS)


def test_the_lines_of_the_document_run() -> None:
    blocks = DOCS.read_text(encoding="utf-8").split("```python\n")[1:]
    code = "\n".join(block.partition("```")[0] for block in blocks)
    plain = "import matplotlib; matplotlib.use('agg')\n"
    done = subprocess.run(
        [sys.executable, "-c", plain + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "EfficientNet-lite1" in done.stdout
