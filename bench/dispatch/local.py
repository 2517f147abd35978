"""Several runs at once on this machine: one worker process per slot.

A slot is a GPU, or a CPU core where there is none: small networks use two cores better as two runs
of one thread each than as one run of two threads.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.paths import ROOT, RunPaths
from bench.progress import Progress
from bench.spec import RunSpec
from projgan.errors import UserError

STOP_SECONDS = 10.0  # a worker that is asked to stop has so long


@dataclass
class Worker:
    """A process at work on a run."""

    run: RunSpec
    slot: int
    process: subprocess.Popen[str]
    told_end: bool = False


def dispatch(
    runs: Sequence[RunSpec], runs_dir: Path, data_dir: Path, progress: Progress, force: bool
) -> None:
    """Does the runs, as many at a time as there are slots.

    The first run has the machine for itself until it trains: what all runs share (rendered images,
    the real side of the metrics) is then made once and not once per slot.

    Args:
        runs: each with its spec.json already in `runs_dir`/<run id>.
        force: forget what was done of them before.

    Raises:
        StorageFull: nothing can be written any more.
    """
    waiting, free = deque(runs), deque(range(slots()))
    events: queue.SimpleQueue[tuple[Worker, list[object]]] = queue.SimpleQueue()
    workers: list[Worker] = []
    shared = False
    try:
        while waiting or workers:
            while waiting and free and (shared or not workers):
                run = waiting.popleft()
                progress.begin(run)
                workers.append(_start(run, free.popleft(), runs_dir, data_dir, force, events))
            worker, (event, *arguments) = events.get()
            if event == "full":
                raise UserError(str(arguments[0]))
            if not worker.told_end:
                progress.select(worker.run)
            if event == "exit":
                if not worker.told_end:
                    log = RunPaths(runs_dir / worker.run.run_id).log
                    progress.end(f"the worker died (status {arguments[0]}); see {log}")
                workers.remove(worker)
                free.append(worker.slot)
                shared = True
            elif event == "end":
                worker.told_end = True
                progress.end(str(arguments[0]))
            else:
                shared = shared or event == "train"
                getattr(progress, str(event))(*arguments)
    finally:
        _stop(workers)


def slots() -> int:
    """GPUs of this machine, or the CPU cores this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = len([device for device in visible.split(",") if device.strip()])
    else:
        found = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return found or cores()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(
    run: RunSpec,
    slot: int,
    runs_dir: Path,
    data_dir: Path,
    force: bool,
    events: queue.SimpleQueue[tuple[Worker, list[object]]],
) -> Worker:
    run_dir = runs_dir / run.run_id
    threads = str(max(1, cores() // slots()))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    if slots() != cores():
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot] if devices != [""] else str(slot)
    arguments = [str(run_dir.absolute()), str(data_dir.absolute()), *(["force"] if force else [])]
    with RunPaths(run_dir).log.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
    worker = Worker(run, slot, process)

    def listen() -> None:
        assert process.stdout is not None
        with process.stdout as told:
            for line in told:
                events.put((worker, json.loads(line)))
        events.put((worker, ["exit", process.wait()]))

    threading.Thread(target=listen, daemon=True).start()
    return worker


def _stop(workers: Sequence[Worker]) -> None:
    """Ends what still works; every run keeps its last checkpoint."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
