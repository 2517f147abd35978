"""Figures of pytest-benchmark's become a table, on the page of speed and in a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import facts_of, make_grid, make_record, write_record

from bench.analysis import cells as aggregate
from bench.config.paths import ROOT
from bench.config.spec import ReportSpec
from bench.report import parts
from bench.report.content import tables_of
from projgan.errors import DataError

FIGURES = {
    "date": "2000-01-01",
    "environment": {"cpu": "a processor", "threads": 1, "device": "cpu", "torch": "2",
                    "python": "3"},
    "load": 0.25,
    "timer": "process_time",
    "parts": [
        {"name": "training_step[fast]", "median": 0.25, "q1": 0.2, "q3": 0.5, "rounds": 10,
         "extra": {"images": 16}},
        {"name": "kid", "median": 1.0, "q1": 1.0, "q3": 1.0, "rounds": 3,
         "extra": {"times_as_fast_as_clean_fid": 1.5, "from_to": [0.9, 1.1]}},
    ],
}  # fmt: skip


def test_what_pytest_benchmark_writes_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-only",
               "--benchmark-timer=time.process_time", f"--benchmark-json={file}",
               "tests/benchmarks/test_harness.py", "-k", "expansion"]  # fmt: skip
    # On its own, also where this test is one of several at work.
    alone = {key: value for key, value in os.environ.items() if "XDIST" not in key}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = parts.condensed([file])
    (part,) = found["parts"]
    assert part["name"] == "grid_expansion" and part["extra"] == {"runs": 10_000}
    assert 0 < part["q1"] <= part["median"] <= part["q3"]
    assert found["timer"] == "process_time" and found["environment"]["python"]
    assert set(json.loads(file.read_text())["machine_info"]) == {"environment", "load"}
    assert "grid expansion" in parts.page(found) and "by processor time" in parts.page(found)


def test_the_table_says_what_a_round_did() -> None:
    text = parts.page(FIGURES)
    assert "| training step, fast | 250.00 | 200.00 | 500.00 | 10 | 16 images, 64/s |" in text
    assert "1.50 times as fast as clean fid; 0.90 to 1.10 from to |" in text
    assert "a processor, 1 thread" in text and "load was 0.2" in text


def test_a_file_is_kept_and_shown_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(parts, "FIGURES", tmp_path / "parts.json")
    (tmp_path / "page.md").write_text(f"Before.\n{parts.BEGIN}\nold\n{parts.END}\nAfter.\n")
    theirs = {
        "machine_info": {"environment": FIGURES["environment"], "load": 0.25},
        "datetime": "2000-01-01T00:00:00",
        "benchmarks": [
            {"name": f"test_{p['name']}", "stats": p, "extra_info": p["extra"],
             "options": {"timer": "process_time"}}
            for p in FIGURES["parts"]  # type: ignore[attr-defined]
        ],
    }  # fmt: skip
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    assert parts.main([str(tmp_path / "theirs.json")]) == 0
    assert parts.read(tmp_path / "parts.json") == FIGURES
    text = (tmp_path / "page.md").read_text()
    assert text == f"Before.\n{parts.BEGIN}\n{parts.page(FIGURES)}{parts.END}\nAfter.\n"

    theirs["machine_info"] = {"environment": {}, "load": 0.5}
    (tmp_path / "other.json").write_text(json.dumps(theirs))
    files = [str(tmp_path / name) for name in ("theirs.json", "other.json")]
    assert parts.main(files) == 2 and "another environment" in capsys.readouterr().err
    theirs["machine_info"] = {"environment": FIGURES["environment"], "load": 0.5}
    (tmp_path / "other.json").write_text(json.dumps(theirs))
    assert parts.main(files) == 0
    both = parts.read(tmp_path / "parts.json")
    assert both["load"] == 0.5 and [p["name"] for p in both["parts"]] == [
        "training_step[fast]", "kid", "training_step[fast]", "kid"]  # fmt: skip

    (tmp_path / "theirs.json").write_text("{}")
    assert parts.main([str(tmp_path / "theirs.json")]) == parts.main([]) == 2
    assert "no figures of the parts" in capsys.readouterr().err
    with pytest.raises(DataError, match="cannot be read"):
        parts.read(tmp_path / "nothing.json")


def test_a_report_shows_the_parts_that_its_grid_names(tmp_path: Path) -> None:
    rows = {"A": {"backbone.name": "resnet18"}, "B": {"backbone.name": "deit"}}
    grid = make_grid(rows, ReportSpec(rank_by="fd_lab", columns=("fd_lab",)))
    for spec in grid.runs:
        write_record(tmp_path, spec, make_record(spec, {4000: {"fd_lab": 4.0}}))
    cells = aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))
    assert "parts" not in tables_of(facts_of(grid, cells))
    (tmp_path / "parts.json").write_text(json.dumps(FIGURES))
    named = replace(grid, report=replace(grid.report, parts=str(tmp_path / "parts.json")))
    shown = tables_of(facts_of(named, cells))["parts"]
    assert shown == parts.table(FIGURES)
    # What was not measured here is not shown, and no fault.
    none = replace(grid, report=replace(grid.report, parts="results/none.json"))
    assert "parts" not in tables_of(facts_of(none, cells))


def test_the_page_of_the_project_shows_the_figures_that_are_kept() -> None:
    assert parts.page(parts.read()) in parts.PAGE.read_text(encoding="utf-8")
