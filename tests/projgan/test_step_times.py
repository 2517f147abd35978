"""Step times: every part of a sampled step is counted, and nothing disturbed by looking."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_config import SMALL
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.analysis.cells import Run
from bench.config import grid as grids
from bench.config.columns import SHARES
from bench.run.throughput import flops_per_image, throughput
from projgan.config import (
    Train,
)
from projgan.divergence import LossWatch
from projgan.speed import fast, step_times
from projgan.speed.step_times import PARTS, StepTimer
from projgan.train import Snapshot, train
from projgan.trainer import Trainer

CPU = torch.device("cpu")
CFG = replace(SMALL, train=Train(batch=8, total_kimg=0.16))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("run")
    *_, last = train(CFG, folder, folder / "data", (80,))
    return last


def test_a_run_accounts_for_its_sampled_steps(trained: Snapshot) -> None:
    found = trained.step_times
    assert found is not None and found["sampled_steps"] == 1  # step 16 of 20
    assert list(found["shares"]) == list(PARTS) == list(SHARES)
    assert sum(found["shares"].values()) == pytest.approx(1)
    shares = dict(found["shares"])
    assert shares.pop("rest") < 0.01 and shares.pop("idle") >= 0
    assert all(share > 0 for share in shares.values())
    session = found["session"]
    parts = session["training_s"] + session["checkpoint_s"] + session["evaluation_s"]
    assert session["wall_s"] == pytest.approx(parts + session["rest_s"])
    assert session["rest_s"] < 0.05 * session["wall_s"] and session["checkpoint_s"] > 0


def test_sampled_steps_do_not_count_as_throughput(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampled step that takes long leaves the speed alone."""
    whole = Trainer.step

    def step(self: Trainer, real: Tensor, index: Tensor) -> object:
        if self.timer.active:
            time.sleep(20)
        return whole(self, real, index)

    now = time.perf_counter
    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: now() + slept)
    monkeypatch.setattr(Trainer, "step", step)
    *_, last = train(CFG, tmp_path, tmp_path / "data", ())
    assert last.images_per_s is not None and last.step_times is not None
    assert last.step_times["sampled_step_s"] > 20 > 5 * 8 / last.images_per_s
    assert last.step_times["contended"] and last.step_times["shares"]["idle"] > 0.9
    assert last.train_seconds > 20 > last.warmup_seconds


def test_no_step_has_another_ones_work_on_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that works behind the host's back, 20 s a step: all are on the clock of steps."""
    whole, check, now = Trainer.step, LossWatch.check, time.perf_counter
    queued = spent = 0.0

    def step(self: Trainer, real: Tensor, index: Tensor) -> object:
        nonlocal queued
        queued += 20
        return whole(self, real, index)

    def wait(*_: object) -> None:
        nonlocal queued, spent
        queued, spent = 0.0, spent + queued

    def waiting(self: LossWatch) -> None:
        wait()
        check(self)

    monkeypatch.setattr(time, "perf_counter", lambda: now() + spent)
    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(LossWatch, "check", waiting)
    monkeypatch.setattr(StepTimer, "synchronise", wait)
    *_, last = train(CFG, tmp_path, tmp_path / "data", ())
    assert last.step_times is not None and last.images_per_s is not None
    assert 20 < last.step_times["sampled_step_s"] < 30
    assert 20 < 8 / last.images_per_s < 30
    assert 100 < last.warmup_seconds < 150


def test_the_work_of_every_generator_and_baseline_can_be_counted() -> None:
    for run in grids.load("convergence").runs:
        assert 0.1e9 < flops_per_image(run.config) < 10e9


def test_work_that_cannot_be_counted_costs_no_run(
    trained: Snapshot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def enter(self: FlopCounterMode) -> FlopCounterMode:
        raise AssertionError("Expected gradient function to be set")

    monkeypatch.setattr(FlopCounterMode, "__enter__", enter)
    snapshot = replace(trained, images_per_s=40.0)
    found = throughput(snapshot, replace(CFG, train=replace(CFG.train, total_kimg=0.32)))
    assert found["images_per_s"] == 40 and "gflop_per_image" not in found
    assert "Expected gradient function" in caplog.text


class Event:
    """What a GPU's stream marks, on the clock of the host."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return 1000 * (end.at - self.at)


def test_on_a_gpu_laps_lie_between_events_that_nothing_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its events are stood in for: what is held here is the bookkeeping."""
    waits: list[bool] = []
    accounts = StepTimer(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: waits.append(accounts.active))
    for _ in range(2):
        with accounts.step(step_times.SAMPLE_EVERY // 2):
            time.sleep(0.02)
            accounts.mark("data")
            time.sleep(0.04)
            accounts.mark("generator")
    assert waits == [False] * 4
    found = accounts.summary(None)
    assert found is not None and found["sampled_steps"] == 2 and not found["contended"]
    shares = found["shares"]
    assert "idle" not in shares and sum(shares.values()) == pytest.approx(1)
    assert accounts.parts["data"] > 0.04 and accounts.parts["generator"] > 0.08
    assert accounts.parts["rest"] < accounts.parts["data"]


def test_looking_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for every in (1, 10**9):
        monkeypatch.setattr(step_times, "SAMPLE_EVERY", every)
        trainer = Trainer(CFG, CPU)
        for number in range(1, 4):
            with trainer.timer.step(number):
                real = torch.linspace(-1, 1, 8 * 3 * 32 * 32).view(8, 3, 32, 32)
                trainer.step(real, torch.arange(8 * number, 8 * number + 8))
                trainer.update_average(8 * number)
        assert trainer.timer.steps == (3 if every == 1 else 0)
        ends.append(torch.cat([p.flatten() for p in trainer.average.parameters()]))
    assert torch.equal(*ends)


class Slow(torch.autograd.Function):
    """Changes nothing, and takes long on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
        return gradients[0]


@pytest.mark.parametrize("part", ["generator", "backbone", "projection", "discriminator"])
def test_the_backward_pass_is_divided_where_gradients_arrive(part: str) -> None:
    """A network is made slow on its way back; its account takes the time."""
    trainer = Trainer(CFG, CPU)
    d = trainer.discriminator
    networks = {"generator": trainer.generator, "backbone": d.backbone,
                "projection": d.projection, "discriminator": d.heads}  # fmt: skip

    def hook(module: object, given: object, out: Any) -> Any:
        return [*out[:-1], Slow.apply(out[-1])] if isinstance(out, list) else Slow.apply(out)

    network = networks[part]
    assert network is not None
    network.register_forward_hook(hook)
    with trainer.timer.step(step_times.SAMPLE_EVERY // 2):
        trainer.step(torch.zeros(8, 3, 32, 32), torch.arange(8))
    spent = trainer.timer.parts
    assert spent[part] > 0.3 > sum(spent[name] for name in PARTS[:-2] if name != part)


def test_a_shared_machine_is_noticed() -> None:
    """A thread that waits while the clock runs had no processor."""
    accounts = StepTimer(CPU)
    with accounts.step(step_times.SAMPLE_EVERY // 2):
        threading.Event().wait(0.05)
        accounts.mark("data")
    found = accounts.summary(None)
    assert found is not None and found["contended"] and found["shares"]["idle"] > 0.9


def test_what_a_record_keeps_of_it(trained: Snapshot) -> None:
    found = throughput(trained, CFG)
    assert found["images_per_s"] == trained.images_per_s
    rate = found["gflop_per_image"] * found["images_per_s"]
    assert found["peak_share"] == pytest.approx(100 * rate / found["peak_gflops"])
    plain = Trainer(CFG, CPU, switches=fast.NONE)
    with FlopCounterMode(display=False) as counter:
        plain.step(torch.zeros(8, 3, 32, 32), torch.arange(8))
    assert found["gflop_per_image"] == pytest.approx(counter.get_total_flops() / 8e9, rel=1e-6)
    run = Run(None, Path(), "finished", record={"throughput": found, "ledger": trained.step_times})  # type: ignore[arg-type]
    assert run.value("s_per_kimg") == pytest.approx(1000 / found["images_per_s"])
    assert trained.step_times is not None
    assert run.value("share_backbone") == 100 * trained.step_times["shares"]["backbone"]
    assert run.contended == trained.step_times["contended"]
    old = Run(None, Path(), "finished", record={"throughput": {"images_per_s": 8.0}})  # type: ignore[arg-type]
    assert old.value("share_backbone") is None and old.why_missing("share_rest") == "not recorded"
    assert run.value("warmup_s") == trained.warmup_seconds > 0
    session = trained.step_times["session"]
    assert run.value("checkpoint_s") == session["checkpoint_s"] > 0
    assert run.value("unexplained_s") == session["rest_s"]
    assert old.value("unexplained_s") is None and old.why_missing("warmup_s") == "not recorded"
    assert not old.contended and old.value("s_per_kimg") == 125 and old.value("peak_share") is None
