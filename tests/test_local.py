"""Local dispatch: worker processes in slots, and what happens when one dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.dispatch import local
from bench.paths import RunPaths
from bench.progress import Progress
from bench.spec import EvalSpec, RunSpec
from projgan.config import (
    Backbone,
    Config,
    Data,
    Discriminator,
    Generator,
    Projection,
    Train,
)
from projgan.files import write_json_atomic


def spec(seed: int, **backbone: object) -> RunSpec:
    config = Config(
        data=Data(name="clevr", resolution=32, images=32),
        backbone=Backbone(zoo="lab", weights="random", **backbone),  # type: ignore[arg-type]
        projection=Projection(channels=16),
        discriminator=Discriminator(base=4, width=16, kind="rgb"),
        generator=Generator(width=4, z_dim=8),
        train=Train(batch=8, total_kimg=0.032, seed=seed),
    )
    return RunSpec("g", f"Row {seed}", {}, "lab", config, EvalSpec(("fd_lab",), 0.016, fake=32))


class Seen(Progress):
    """Keeps what it is told."""

    def __init__(self, runs: list[RunSpec], on_show: Callable[[str], None] = lambda stage: None):
        super().__init__(runs)
        self.lines: list[str] = []
        self.on_show = on_show

    def show(self, stage: str) -> None:
        self.on_show(stage)

    def line(self, text: str) -> None:
        self.lines.append(text)


def prepare(runs: list[RunSpec], runs_dir: Path) -> None:
    for run in runs:
        write_json_atomic(RunPaths(runs_dir / run.run_id).spec, run.to_json())


def test_two_slots_do_three_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "slots", lambda: 2)
    runs = [spec(seed) for seed in range(3)]
    prepare(runs, tmp_path / "runs")
    progress = Seen(runs)
    most = 0

    def count(stage: str) -> None:
        nonlocal most
        most = max(most, len(progress.present))

    progress.on_show = count
    local.dispatch(runs, tmp_path / "runs", tmp_path / "data", progress, False)
    for run in runs:
        paths = RunPaths(tmp_path / "runs" / run.run_id)
        record = json.loads(paths.record.read_text())
        assert record["status"] == "finished" and record["snapshots"][-1]["nimg"] == 32
        assert record["environment"]["threads"] == max(1, local.cores() // 2)
        assert not paths.claim.exists()
    assert most == 2 and len(progress.lines) == 3
    assert all("finished" in line for line in progress.lines)
    assert len(list((tmp_path / "data").glob("clevr-*"))) == 1


def test_a_worker_that_is_killed_is_told_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "slots", lambda: 1)
    runs = [spec(0), spec(1)]
    prepare(runs, tmp_path / "runs")
    started = local._start
    killed = []

    def start(run: RunSpec, *rest: object) -> local.Worker:
        worker = started(run, *rest)  # type: ignore[arg-type]
        if run == runs[0]:
            os.kill(worker.process.pid, signal.SIGKILL)
            killed.append(worker)
        return worker

    monkeypatch.setattr(local, "_start", start)
    progress = Seen(runs)
    local.dispatch(runs, tmp_path / "runs", tmp_path / "data", progress, False)
    assert "worker died (status -9)" in progress.lines[0] and killed
    assert "finished" in progress.lines[1]


def test_slots_follow_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert local.slots() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.slots() == local.cores() >= 1
