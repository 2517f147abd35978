"""The whole path for real, at toy size: render, train, measure, kill, go on, report. No network."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.config.paths import RunPaths
from bench.store import record as records

ROOT = Path(__file__).resolve().parents[1]

# Loaded by every Python process of a run, workers too: says so, and any attempt to reach a host
# leaves a trace and ends the process.
NO_NETWORK = """
import os, pathlib, socket, sys
seen = pathlib.Path(os.environ["GUARDED"])
def refuse(*args, **kwargs):
    (seen / "network").write_text(repr((sys.orig_argv, args)))
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
(seen / f"process-{os.getpid()}").write_text(" ".join(sys.orig_argv))
"""
COMMAND = [sys.executable, str(ROOT / "run_bench.py"), "grid=smoke", "train.batch=8"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Without a network, whatever the surroundings say."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(NO_NETWORK)
    here = {"PYTHONPATH": str(guard), "GUARDED": str(guard), "HF_HUB_OFFLINE": "0"}
    return os.environ | here


def guarded(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in tmp_path.glob("guard/process-*")]


def test_the_guard_sees_a_network(tmp_path: Path, environment: dict[str, str]) -> None:
    code = "import urllib.request as r; r.urlopen('http://localhost:9')"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 99
    assert (tmp_path / "guard" / "network").exists()


def test_a_run_needs_no_network(tmp_path: Path, environment: dict[str, str]) -> None:
    """Command and worker, from rendering to the report."""
    toy = ["only=ResNet18", "train.total_kimg=0.016", "data.images=32", "generator.width=4"]
    done = subprocess.run(
        [*COMMAND, *toy], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert not (tmp_path / "guard" / "network").exists()
    assert done.returncode == 0, done.stdout + done.stderr
    commands = guarded(tmp_path)
    assert any("run_bench.py" in text for text in commands)
    assert any("bench.dispatch.worker" in text for text in commands)
    assert (tmp_path / "results" / "smoke" / "table.md").is_file()


@pytest.mark.slow
def test_the_whole_path_survives_a_kill(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [*COMMAND, "data.images=64"]
    with (tmp_path / "first.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output)
        try:  # kill it as soon as something of the first run is on disk
            deadline = time.monotonic() + 300
            while not list(tmp_path.glob("runs/*/checkpoint.pt")):
                assert process.poll() is None, "ended before it could be killed"
                assert time.monotonic() < deadline, "no checkpoint yet"
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    while list(tmp_path.glob("runs/*/claim.json")):  # the workers notice and give back
        assert time.monotonic() < deadline, "workers go on alone"
        time.sleep(0.05)

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "guard" / "network").exists()
    logs = [path.read_text() for path in tmp_path.glob("runs/*/log.txt")]
    assert len(logs) == 2 and any("Going on from" in log for log in logs)

    speeds = []
    for folder in (tmp_path / "runs").iterdir():
        record = records.load(RunPaths(folder).record)
        assert record is not None and record["status"] == "finished"
        assert [s["nimg"] for s in record["snapshots"]] == [128, 256]
        metrics = record["snapshots"][1]["metrics"]
        keys = {"fd_lab", "kid_lab", "fd_l1", "fd_l2", "fd_l3", "fd_l4"}
        assert set(metrics) == {*(f"standing:{key}" for key in keys), "raw:fd_lab"}
        assert metrics["standing:fd_lab"] > 0
        speeds.append(record["throughput"].get("images_per_s"))
        assert RunPaths(folder).samples(256, "standing").stat().st_size > 1000
        assert not RunPaths(folder).lease.exists()

    assert any(speeds)  # the run that was killed may have had no time to warm up again

    results = tmp_path / "results" / "smoke"
    with (results / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["EfficientNet-lite1", "ResNet18"]
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert {"table.md", "table.tex", "manifest.json"} <= {p.name for p in results.iterdir()}
    assert len(list(results.glob("samples/*.png"))) >= 2
