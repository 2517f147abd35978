"""Many processes do a grid's runs, and are killed now and then: argv is folder, processes, seed.

Every process goes through the runs until none is left, each by `bench.run.runner.execute`; training
and measuring are made up (fake_training.py). It kills itself at random: in a step, while measuring,
and while it writes a file. The first process starts another for each that was killed, and forks
them all, so that torch is imported once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fake_training
import pytest
import torch
from fake_training import Engine
from killed_processes import together

import bench.run.measuring
import bench.run.runner
import projgan.files
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.run.runner import execute
from bench.store import record as records
from bench.store.lease import RunIsTaken, holder
from projgan.config import Backbone, Config, Data, Discriminator, Generator, Train
from projgan.files import write_json_atomic

RUNS, BATCH, TOTAL, EVERY = 24, 50, 400, 200
IN_A_STEP, IN_MEASURING, IN_WRITING = 0.05, 0.1, 0.05  # how often a process dies there


def grid(folder: Path) -> list[RunSpec]:
    """The runs, each with its folder."""
    specs = []
    for seed in range(RUNS):
        config = Config(
            data=Data(name="clevr", resolution=32, images=64),
            backbone=Backbone(zoo="lab"),
            discriminator=Discriminator(base=4),
            generator=Generator(width=4),
            train=Train(batch=BATCH, total_kimg=TOTAL / 1000, seed=seed),
        )
        spec = RunSpec(
            "made", "One", {}, "lab", config, EvalSpec(("fd_lab",), EVERY / 1000, fake=8)
        )
        write_json_atomic(RunPaths(folder / spec.run_id).spec, spec.to_json())
        specs.append(spec)
    return specs


def die(share: float, draw: random.Random) -> None:
    if draw.random() < share:
        os.kill(os.getpid(), signal.SIGKILL)


def arm(engine: Engine, draw: random.Random) -> None:
    """Lets this process die at random, and note each step with the claim that it was done under."""
    whole_train, whole_evaluate, replacing = engine.train, engine.evaluate, projgan.files.replacing

    def train(cfg: Config, run_dir: Path, *rest: Any, **options: Any) -> Any:
        def step(cfg: Config, nimg: int) -> None:
            owner = holder(RunPaths(run_dir).lease)
            assert owner is not None and owner.pid == os.getpid(), "works on another's run"
            with (run_dir / "steps.txt").open("a") as log:
                log.write(f"{owner.number} {nimg}\n")
            die(IN_A_STEP, draw)

        engine.fail = step
        return whole_train(cfg, run_dir, *rest, **options)

    def evaluate(*arguments: Any, **options: Any) -> Any:
        die(IN_MEASURING, draw)
        return whole_evaluate(*arguments, **options)

    @contextmanager
    def torn(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
        with replacing(path, keep) as file:
            yield file
            die(IN_WRITING, draw)

    files: Any = projgan.files
    runner: Any = bench.run.runner
    measuring: Any = bench.run.measuring
    files.replacing, runner.train, measuring.evaluate = torn, train, evaluate


def work(specs: list[RunSpec], folder: Path, engine: Engine, draw: random.Random) -> None:
    arm(engine, draw)
    while left := [s for s in specs if records.run_state(s, folder).state != "finished"]:
        run = folder / draw.choice(left).run_id
        try:
            execute(run, folder / "data")
        except RunIsTaken:
            time.sleep(0.01)


def main(folder: Path, processes: int, seed: int) -> int:
    """Prints how many processes there were and how many of them were killed."""
    torch.set_num_threads(1)
    engine = fake_training.install(pytest.MonkeyPatch())
    specs = grid(folder)
    return together(
        processes, lambda n: work(specs, folder, engine, random.Random(seed * 10_000 + n))
    )


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
