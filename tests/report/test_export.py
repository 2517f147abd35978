"""All records as one flat table: nothing left out, nothing rounded."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis.cells import Run, read_runs
from bench.config.spec import ReportSpec
from bench.report import export
from projgan.errors import UserError


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """One run with two snapshots, one that failed, one that is missing."""
    rows = {name: {"backbone.name": name.lower()} for name in ("ResNet18", "ResNet50", "ViT")}
    grid = make_grid(rows, ReportSpec(), {"data.subset": (100,)})
    first, second, _ = grid.runs
    curve = {1000: {"fd_lab": 0.1 + 0.2}, 4000: {"fd_lab": 0.25, "of_later": 7.0}}
    write_record(tmp_path, first, make_record(first, curve))
    write_record(tmp_path, second, make_record(second, {}, status="failed", error="too, hot"))
    return read_runs(grid.runs, tmp_path)


def test_every_run_and_snapshot_has_its_line_in_full_precision(runs: list[Run]) -> None:
    lines = list(csv.DictReader(io.StringIO(export.to_csv(runs).decode())))
    assert [(x["row"], x["status"], x["images"]) for x in lines] == [
        ("ResNet18", "finished", "1000"),
        ("ResNet18", "finished", "4000"),
        ("ResNet50", "failed", ""),
        ("ViT", "missing", ""),
    ]
    assert float(lines[0]["fd_lab"]) == 0.1 + 0.2
    assert lines[1]["of_later"] == "7.0" and lines[0]["of_later"] == ""  # not known to this version
    assert lines[2]["reason"] == "too, hot" and lines[0]["data.subset"] == "100"
    assert lines[0]["fingerprint"] == "f00d" and '"backbone.name": "resnet18"' in lines[0]["config"]


def test_parquet_holds_the_same_with_types(runs: list[Run]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    data = export.to_parquet(runs)
    assert data == export.to_parquet(runs)
    columns = parquet.read_table(io.BytesIO(data["records.parquet"])).to_pydict()
    assert columns["fd_lab"] == [0.1 + 0.2, 0.25, None, None]
    assert columns["images"] == [1000, 4000, None, None]
    text = csv.DictReader(io.StringIO(export.to_csv(runs).decode()))
    assert list(columns) == list(text.fieldnames or ())


def test_tensorboard_shows_every_snapshot_by_images(runs: list[Run], tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    files = export.to_tensorboard(runs)
    assert files == export.to_tensorboard(runs)
    (name,) = files  # what failed and what is missing has none
    assert name.startswith("tensorboard/resnet18-subset=100/seed=0-")
    (tmp_path / "events.out.tfevents").write_bytes(files[name])
    read = reader.EventAccumulator(str(tmp_path)).Reload()
    assert sorted(read.Tags()["scalars"]) == ["fd_lab", "of_later", "train_seconds"]
    found = [(e.step, round(e.value, 6)) for e in read.Scalars("fd_lab")]
    assert found == [(1000, 0.3), (4000, 0.25)]
    clock = [e.wall_time for e in read.Scalars("fd_lab")]
    assert clock[1] - clock[0] == 30  # seconds of training between the two


def test_without_tensorboard_it_says_what_to_install(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"pip install 'projected-gan-bench\[export\]'") as caught:
        export.to_tensorboard(runs)
    assert "\n" not in str(caught.value)


def test_without_pyarrow_it_says_what_to_install(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'projected-gan-bench\[export\]'"):
        export.to_parquet(runs)
