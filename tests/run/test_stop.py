"""Asked to end: at once where nothing is lost, between two steps where something would be."""

from __future__ import annotations

import signal
from pathlib import Path

import fake_training
import pytest
from fake_training import Engine

from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.run.runner import execute
from bench.run.stop import Stop
from bench.store import record as records
from projgan.config import Backbone, Config, Data, Discriminator, Generator, Train
from projgan.files import write_json_atomic


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return fake_training.install(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    config = Config(
        data=Data(name="clevr", resolution=32, images=64),
        backbone=Backbone(zoo="lab"),
        discriminator=Discriminator(base=4),
        generator=Generator(width=4),
        train=Train(batch=32, total_kimg=0.128),
    )
    spec = RunSpec("made", "One", {}, "lab", config, EvalSpec(("fd_lab",), 0.064, fake=8))
    paths = RunPaths(tmp_path / spec.run_id)
    write_json_atomic(paths.spec, spec.to_json())
    return paths


def test_anywhere_it_interrupts_at_once_and_once() -> None:
    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        stop.on_signal(signal.SIGTERM, None)
    stop.on_signal(signal.SIGTERM, None)  # tidying up is not interrupted
    assert stop.asked()


def test_between_steps_it_waits() -> None:
    stop = Stop()
    stop.defer()
    stop.on_signal(signal.SIGTERM, None)
    assert stop.asked()
    with pytest.raises(KeyboardInterrupt):
        stop.interrupt_at_once()


@pytest.mark.parametrize("at", [0, 32, 64, 96])
def test_a_step_that_was_begun_is_kept(run: RunPaths, engine: Engine, at: int) -> None:
    stop = Stop()

    def ask(cfg: Config, nimg: int) -> None:
        if nimg == at:
            stop.on_signal(signal.SIGTERM, None)

    engine.fail = ask
    with pytest.raises(KeyboardInterrupt):
        execute(run.dir, run.dir, stop=stop)
    # In the first step of a session there is nothing to lose, and nothing is waited for.
    kept = at + 32 if at in (32, 96) else at
    assert (run.checkpoint.exists() and fake_training.load(run.checkpoint)["nimg"]) == kept
    assert not run.lease.exists()
    record = records.load(run.record)
    assert record is not None and (record["status"], record["error"]) == ("running", None)

    engine.fail = lambda cfg, nimg: None
    engine.trained.clear()
    assert execute(run.dir, run.dir)["status"] == "finished"
    assert [n for _, n in engine.trained] == list(range(kept + 32, 160, 32))[: (128 - kept) // 32]
    assert len({n for n, _ in engine.measured}) == 1 and len(engine.measured) == 2
