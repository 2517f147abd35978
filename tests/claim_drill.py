"""Many processes over one grid, each killed now and then: argv is folder, processes, runs, seed.

Every process goes through the runs until all are finished: claims one, goes on with its steps where
the record stands, writes the record after each. It kills itself at random, also while it writes.
The first process starts another for each that was killed. Free of torch, so that many fit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from killed_processes import together

from bench.store.lease import Lease, RunIsTaken
from projgan.files import fenced, remove_leftovers, replacing

STEPS = 5


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def steps_of(record: Path) -> list[int]:
    return list(json.loads(record.read_text())) if record.exists() else []


def work(runs: list[Path], draw: random.Random, finished: Path) -> None:
    while True:
        left = [run for run in runs if len(steps_of(run / "record.json")) < STEPS]
        if not left:
            return
        run = draw.choice(left)
        try:
            with Lease(run / "claim.json") as claim, fenced(run, claim.fence):
                do(run, draw, finished)
        except RunIsTaken:
            time.sleep(0.002)


def do(run: Path, draw: random.Random, finished: Path) -> None:
    remove_leftovers(run)
    steps = steps_of(run / "record.json")
    while len(steps) < STEPS:
        if draw.random() < 0.06:
            crash()
        steps.append(len(steps))
        with replacing(run / "record.json") as file:
            text = json.dumps(steps).encode()
            if draw.random() < 0.06:
                file.write(text[: draw.randrange(len(text))])
                file.flush()
                crash()
            file.write(text)
        with (run / "log.txt").open("a") as log:
            log.write(f"{steps[-1]}\n")
        if len(steps) == STEPS:
            with finished.open("a") as log:
                log.write(f"{run.name}\n")


def main(folder: Path, processes: int, count: int, seed: int) -> int:
    """Prints how many processes there were and how many of them were killed."""
    runs = [folder / f"run{i}" for i in range(count)]
    return together(
        processes,
        lambda n: work(runs, random.Random(seed * 10_000 + n), folder / "finished.txt"),
    )


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
