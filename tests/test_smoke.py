"""The whole path for real, at toy size: render, train, measure, kill, go on, report. No network."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import record as records
from bench.paths import RunPaths

ROOT = Path(__file__).resolve().parents[1]

# Any attempt to reach a host ends the process with a status of its own.
NO_NETWORK = """
import os, socket, sys
def refuse(*args, **kwargs):
    sys.stderr.write(f"network: {args}\\n")
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from bench.cli import main
sys.exit(main(sys.argv[1:]))
"""
TOY = ["grid=smoke", "train.total_kimg=0.064", "train.batch=8", "data.images=64"]


def command(*args: str) -> list[str]:
    return [sys.executable, "-c", NO_NETWORK, *TOY, *args]


@pytest.mark.slow
def test_the_whole_path_survives_a_kill_and_needs_no_network(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
    with (tmp_path / "first.txt").open("w") as output:
        process = subprocess.Popen(command(), cwd=tmp_path, env=environment, stdout=output)
        try:  # kill it as soon as something of the first run is on disk
            deadline = time.monotonic() + 300
            while not list(tmp_path.glob("runs/*/checkpoint.pt")):
                assert process.poll() is None, "ended before it could be killed"
                assert time.monotonic() < deadline, "no checkpoint yet"
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()

    done = subprocess.run(command(), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = [path.read_text() for path in tmp_path.glob("runs/*/log.txt")]
    assert len(logs) == 2 and sum("Going on from" in log for log in logs) == 1

    speeds = []
    for folder in (tmp_path / "runs").iterdir():
        record = records.load(RunPaths(folder).record)
        assert record is not None and record["status"] == "finished"
        assert [s["nimg"] for s in record["snapshots"]] == [64]
        metrics = record["snapshots"][0]["metrics"]
        assert set(metrics) == {"fd_lab", "kid_lab", "fd_l1", "fd_l2", "fd_l3", "fd_l4"}
        assert metrics["fd_lab"] > 0
        speeds.append(record["throughput"].get("images_per_s"))
        assert RunPaths(folder).samples(64).stat().st_size > 1000
        assert not RunPaths(folder).claim.exists()

    assert any(speeds)  # the run that was killed may have had no time to warm up again

    results = tmp_path / "results" / "smoke"
    with (results / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["EfficientNet-lite1", "ResNet18"]
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert {"table.md", "table.tex", "manifest.json"} <= {p.name for p in results.iterdir()}
    assert len(list(results.glob("samples/*.png"))) >= 2
