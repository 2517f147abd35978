"""Local dispatch: worker processes in slots, and what happens when one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killed_processes import forge_claim

from bench.config.paths import ROOT, RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.dispatch import local
from bench.run.progress import Progress
from bench.store import record as records
from projgan.config import (
    Backbone,
    Config,
    Data,
    Discriminator,
    Generator,
    Projection,
    Train,
)
from projgan.errors import UserError
from projgan.files import write_json_atomic


def spec(seed: int, metric: str = "swd") -> RunSpec:
    """A run of four steps; SWD needs no network, whose import would take longer than the run."""
    config = Config(
        data=Data(name="clevr", resolution=32, images=32),
        backbone=Backbone(zoo="lab", weights="random"),
        projection=Projection(channels=16),
        discriminator=Discriminator(base=4, width=16, kind="rgb"),
        generator=Generator(width=4, z_dim=8),
        train=Train(batch=8, total_kimg=0.032, seed=seed),
    )
    return RunSpec("g", f"Row {seed}", {}, "lab", config, EvalSpec((metric,), 0.016, fake=32))


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
    monkeypatch.setattr(local, "slots", lambda: [None, None])
    runs = [spec(seed) for seed in range(3)]
    prepare(runs, tmp_path / "runs")
    progress = Seen(runs)
    most = 0

    def count(stage: str) -> None:
        nonlocal most
        most = max(most, len(progress.running))

    progress.on_show = count
    local.dispatch(runs, tmp_path / "runs", tmp_path / "data", progress, False)
    for run in runs:
        paths = RunPaths(tmp_path / "runs" / run.run_id)
        record = json.loads(paths.record.read_text())
        assert record["status"] == "finished" and record["snapshots"][-1]["nimg"] == 32
        assert record["environment"]["threads"] == max(1, local.cores() // 2)
        assert not paths.lease.exists()
    assert most == 2 and len(progress.lines) == 3
    assert all("finished" in line for line in progress.lines)
    assert len(list((tmp_path / "data").glob("clevr-*"))) == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that report at once that they finished; that of seed 0 waits to be killed."""
    finished = """print('["train", 8]', '["end", "finished at once"]', sep=chr(10))"""

    def command(run: RunSpec, *rest: object) -> list[str]:
        waits = run.config.train.seed == 0
        return [sys.executable, "-c", "import time; time.sleep(600)" if waits else finished]

    monkeypatch.setattr(local, "_command", command)


@pytest.mark.usefixtures("quick")
def test_a_worker_that_is_killed_is_told_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "slots", lambda: [None])
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
    # Back to the queue twice, behind the other; the third time without getting on it has failed.
    assert len(killed) == 3 and len(progress.lines) == 4
    died = [line for line in progress.lines if "worker died (killed by signal 9" in line]
    assert [("tried again later" in line) for line in died] == [True, True, False]
    assert "finished" in progress.lines[1]
    at = records.run_state(runs[0], tmp_path / "runs")
    assert at.state == "failed" and "killed by signal 9" in at.note


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("3,5", ["3", "5"]), ("GPU-ab, 1", ["GPU-ab", "1"]), ("0,-1,2", ["0"])],
)
def test_a_slot_is_a_visible_device(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local.slots() == expected


@pytest.mark.parametrize("visible", ["", "-1"])
def test_without_a_device_a_slot_is_a_core(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local.slots() == [None] * local.cores()


def test_a_quota_limits_the_cores(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    free = local.cores(quota)  # there is no such file
    for text, expected in [("max 100000", free), ("100000 100000", 1), ("50000 100000", 1)]:
        quota.write_text(text)
        assert local.cores(quota) == expected


def test_a_worker_gets_its_own_device_and_keeps_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}

    def popen(*args: object, env: dict[str, str], **options: object) -> object:
        given.update(env)
        raise OSError("not started")

    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setattr(local.subprocess, "Popen", popen)
    prepare([spec(0)], tmp_path)
    with pytest.raises(OSError, match="not started"):
        local._start(spec(0), ["5"], [], tmp_path / "log.txt", 3, local.queue.SimpleQueue())
    assert given["CUDA_VISIBLE_DEVICES"] == "5" and given["OMP_NUM_THREADS"] == "3"
    assert given["PYTHONPATH"] == os.pathsep.join([str(ROOT), "elsewhere"])


@pytest.mark.parametrize("line", ["", "torch says hello", "3", '["made up"]', "[]", "{}"])
def test_what_is_no_event_is_passed_over(line: str) -> None:
    assert local._event(line) is None


def test_a_run_takes_two_slots_and_trains_as_one_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "slots", lambda: [None, None])
    runs, found = [spec(0, "fd_lab")], []
    for processes in (2, 1):
        runs_dir = tmp_path / f"runs-{processes}"
        prepare(runs, runs_dir)
        progress = Seen(runs)
        local.dispatch(runs, runs_dir, tmp_path / "data", progress, False, processes)
        paths = RunPaths(runs_dir / runs[0].run_id)
        record = json.loads(paths.record.read_text())
        assert record["status"] == "finished", paths.log.read_text()
        assert record["environment"].get("processes", 1) == processes
        assert len(progress.lines) == 1 and not paths.lease.exists()
        found.append([s["metrics"]["copied:fd_lab"] for s in record["snapshots"]])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_more_slots_than_there_are_or_than_share_the_batch_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "slots", lambda: ["0", "1", "2"])
    with pytest.raises(UserError, match="gpus_per_run=4: this machine has 3 GPUs"):
        local.dispatch([spec(0)], tmp_path, tmp_path, Seen([spec(0)]), False, 4)
    with pytest.raises(UserError, match=r"train.batch=8 cannot be shared by gpus_per_run=3"):
        local.dispatch([spec(0)], tmp_path, tmp_path, Seen([spec(0)]), False, 3)


def dead(run: RunSpec, processes: int = 1, **told: Any) -> local.Worker:
    """A worker whose process has ended."""
    slots: list[local.Slot] = [None] * processes
    return local.Worker(run, slots, None, **told)  # type: ignore[arg-type]


def test_a_death_is_noted_and_goes_back_to_the_queue(tmp_path: Path) -> None:
    run = spec(0)
    paths = RunPaths(tmp_path / run.run_id)
    # Before there was a record.
    reason, again = local.note_death(dead(run), tmp_path, -signal.SIGKILL)
    assert "killed by signal 9" in reason and again == "node"
    at = records.run_state(run, tmp_path)
    assert at.state == "stopped" and "killed by signal 9" in at.note
    for start in (0, 512, 512):  # it got on in between: as often again
        forge_claim(paths.lease, start=start)
        assert local.note_death(dead(run), tmp_path, -signal.SIGSEGV)[1] == "node"
    assert local.note_death(dead(run), tmp_path, -signal.SIGSEGV)[1] is None
    assert records.run_state(run, tmp_path).state == "failed"


def test_a_worker_that_was_asked_to_end_is_not_started_again(tmp_path: Path) -> None:
    run = spec(0)
    assert local.note_death(dead(run), tmp_path, 130) == (
        f"the worker died (status 130); see {RunPaths(tmp_path / run.run_id).log}",
        None,
    )
    assert records.run_state(run, tmp_path).state == "stopped"


def test_of_several_processes_the_one_that_failed_says_why(tmp_path: Path) -> None:
    run = spec(0)

    def died(**told: Any) -> tuple[str | None, Any]:
        """Whether again, and the record; torchrun ends with 1 whatever happened."""
        again = local.note_death(dead(run, 2, **told), tmp_path, 1)[1]
        return again, records.load(RunPaths(tmp_path / run.run_id).record)

    # Want of memory: 4 of 8 images were its share, and 2 are batch norm's least.
    short = local.Fault("memory", "out of memory", 16)
    again, record = died(fault=short, left=(8, 16))
    assert again == "memory" and record["micro_batch"] == {"images": 2, "since": 16}
    assert "out of memory" in record["error"]
    assert died(fault=short)[0] is None
    assert records.run_state(run, tmp_path).state == "failed"

    RunPaths(tmp_path / run.run_id).record.unlink()
    bug = local.Fault("code", "ValueError: a bug", 16)
    assert [died(fault=bug)[0] for _ in range(2)] == ["code", None]
    assert "a bug" in records.run_state(run, tmp_path).note

    # Nobody says why, as where one was killed: the machine's, counted by what the run began with.
    RunPaths(tmp_path / run.run_id).record.unlink()
    starts = (0, 8, 8, 8)
    assert [died(left=(n, n + 8))[0] for n in starts] == ["node", "node", "node", None]


@pytest.mark.usefixtures("quick")
def test_what_the_machine_failed_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To whoever takes it, such as a job that asks for another node; the other run goes on."""
    monkeypatch.setattr(local, "slots", lambda: [None])
    runs = [spec(0), spec(1)]
    prepare(runs, tmp_path / "runs")
    started, times = local._start, []

    def start(run: RunSpec, *rest: object) -> local.Worker:
        worker = started(run, *rest)  # type: ignore[arg-type]
        times.append(run)
        if run == runs[0]:
            os.kill(worker.process.pid, signal.SIGSEGV)
        return worker

    monkeypatch.setattr(local, "_start", start)
    progress, given = Seen(runs), []
    local.dispatch(
        runs, tmp_path / "runs", tmp_path / "data", progress, False, hand_over=given.append
    )
    assert given == [runs[0]] and times == runs
    assert "left to another machine" in progress.lines[0] and "finished" in progress.lines[1]
    assert records.run_state(runs[0], tmp_path / "runs").state == "stopped"


# Loaded by every Python process: what the second of several does instead of a training step.
SECOND = """
import importlib.abc, importlib.util, os, signal, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "projgan.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            step = module.Trainer.step

            def other(self, real, index):
                import torch
                FAULT
                return step(self, real, index)

            module.Trainer.step = other

        spec.loader.exec_module = exec_module
        return spec

if os.environ.get("RANK") == "1":
    sys.meta_path.insert(0, Hook())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "status", "kinds", "said"),
    [
        ("if (self.cfg.train.micro_batch or len(real)) > 2: raise torch.OutOfMemoryError('full')",
         "finished", ["memory"], ""),
        ("raise ValueError('a bug of the second')", "failed", ["code"] * 2, "a bug of the second"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "failed", ["node"] * 3, "the worker died"),
    ],
    ids=["memory", "code", "killed"],
)  # fmt: skip
def test_a_process_beside_the_first_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, status: str, kinds: list[str],
    said: str,
) -> None:  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(SECOND.replace("FAULT", fault))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(local, "slots", lambda: [None, None])
    run = spec(0)
    prepare([run], tmp_path / "runs")
    progress = Seen([run])
    local.dispatch([run], tmp_path / "runs", tmp_path / "data", progress, False, 2)
    paths = RunPaths(tmp_path / "runs" / run.run_id)
    record = records.load(paths.record)
    assert record is not None
    assert record["status"] == status, paths.log.read_text()
    assert [f["kind"] for f in record["failures"]] == kinds
    assert said in (record["error"] or "") and not paths.lease.exists()
    if status == "finished":
        assert record["micro_batch"] == {"images": 2, "since": 0}
        assert record["snapshots"][-1]["nimg"] == 32


# A parent that starts one worker and says when it trains; then it is killed.
PARENT = """
import sys, time
from pathlib import Path
from bench.dispatch import local
from bench.run.progress import Progress
from bench.config.spec import RunSpec
import json
runs_dir, run_id = Path(sys.argv[1]), sys.argv[2]
run = RunSpec.from_json(json.loads((runs_dir / run_id / "spec.json").read_text()))
class Told(Progress):
    def train(self, nimg): print("training", flush=True)
local.slots = lambda: [None]
local.dispatch([run], runs_dir, runs_dir.parent / "data", Told([run]), False)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_worker_stops_when_its_parent_dies(tmp_path: Path, how: signal.Signals) -> None:
    run = spec(0)
    run = replace(
        run, config=replace(run.config, train=replace(run.config.train, total_kimg=1000.0)),
        eval=replace(run.eval, every_kimg=1000.0),
    )  # fmt: skip
    prepare([run], tmp_path / "runs")
    paths = RunPaths(tmp_path / "runs" / run.run_id)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "runs"), run.run_id],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None and parent.stdout.readline() == "training\n"
        assert paths.lease.exists()
        parent.send_signal(how)
        parent.wait(timeout=90)  # it gives its worker half a minute
    deadline = time.monotonic() + 60
    while paths.lease.exists():
        assert time.monotonic() < deadline, "the worker goes on alone"
        time.sleep(0.05)
    assert records.run_state(run, tmp_path / "runs").state == "stopped"
    assert paths.checkpoint.exists()  # no snapshot was due: asked to end, it kept its last step
    assert "Traceback" not in paths.log.read_text()
