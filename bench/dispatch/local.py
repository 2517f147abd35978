"""Several runs at once on this machine: one worker process per slot.

A slot is a GPU, or a CPU core where there is none: small networks use two cores better as two runs
of one thread each than as one run of two threads. A large run may take several slots: torchrun
then starts a process for each, and they train as one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.config.paths import ROOT, RunPaths
from bench.config.spec import RunSpec
from bench.run import retry
from bench.run.progress import Progress
from bench.store import record as records
from bench.store.lease import last_holder, owning
from projgan.errors import UserError

STOP_SECONDS = 30.0  # a worker that is asked to stop has so long for its step and its checkpoint

Slot = str | None  # the GPU of a worker, as CUDA_VISIBLE_DEVICES names it. None = a CPU core


@dataclass(frozen=True)
class Fault:
    """Why a process failed: a kind of `bench.run.retry`, in words, and after how many images."""

    kind: str
    line: str
    nimg: int


@dataclass
class Worker:
    """A process at work on a run, or torchrun with several."""

    run: RunSpec
    slots: list[Slot]
    process: subprocess.Popen[str]
    told_end: bool = False
    fault: Fault | None = None  # of a process beside the first, and what the first did not tell
    left: tuple[int, int] | None = None  # images when it began and when it ended, without a reason


def dispatch(
    runs: Sequence[RunSpec],
    runs_dir: Path,
    data_dir: Path,
    progress: Progress,
    force: bool,
    gpus_per_run: int = 1,
    hand_over: Callable[[RunSpec], None] | None = None,
) -> None:
    """Does the runs, as many at a time as there are slots.

    The first run has the machine for itself until it trains: what all runs share (rendered images,
    the real side of the metrics) is then made once and not once per slot.

    Args:
        runs: each with its spec.json already in `runs_dir`/<run id>.
        force: forget what was done of them before.
        gpus_per_run: slots that each run takes.
        hand_over: is given a run that this machine failed, for another one. None = it is tried
            again here, after the others.

    Raises:
        StorageFull: nothing can be written any more.
        UserError: a run cannot have so many slots.
    """
    places = slots()
    if gpus_per_run > len(places):
        kind = "CPU cores" if places[0] is None else "GPUs"
        raise UserError(f"gpus_per_run={gpus_per_run}: this machine has {len(places)} {kind}")
    for run in runs:
        if (batch := run.config.train.batch) % gpus_per_run:
            raise UserError(
                f"{run.name}: train.batch={batch} cannot be shared by gpus_per_run={gpus_per_run}"
            )
    threads = max(1, cores() // len(places))
    waiting, free = deque(runs), deque(places)
    events: queue.SimpleQueue[tuple[Worker, list[object]]] = queue.SimpleQueue()
    workers: list[Worker] = []
    begun: set[str] = set()
    shared = False

    def again(run: RunSpec, reason: str, machine: bool) -> None:
        if machine and hand_over is not None:
            hand_over(run)
            progress.end(f"left to another machine: {reason}")
        else:
            waiting.append(run)
            progress.line(f"{run.name}: {reason}; tried again later")

    try:
        while waiting or workers:
            while waiting and len(free) >= gpus_per_run and (shared or not workers):
                run = waiting.popleft()
                anew = force and run.run_id not in begun
                if run.run_id not in begun:
                    begun.add(run.run_id)
                    progress.begin(run)
                taken = [free.popleft() for _ in range(gpus_per_run)]
                workers.append(_start(run, taken, threads, runs_dir, data_dir, anew, events))
            worker, (event, *arguments) = events.get()
            if event == "full":
                raise UserError(str(arguments[0]))
            if not worker.told_end:
                progress.select(worker.run)
            if event == "exit":
                if not worker.told_end:
                    reason, cause = _died(worker, runs_dir, arguments[0])
                    if cause is not None:
                        again(worker.run, reason, cause == "node")
                    else:
                        progress.end(reason)
                workers.remove(worker)
                free.extend(worker.slots)
                shared = True
            elif event == "again":
                worker.told_end = True
                again(worker.run, str(arguments[0]), bool(arguments[1]))
            elif event == "fault":
                if worker.fault is None or worker.fault.kind == "node":
                    worker.fault = Fault(*arguments)  # type: ignore[arg-type]
            elif event == "left":
                worker.left = arguments[0], arguments[1]  # type: ignore[assignment]
            elif event == "end":
                worker.told_end = True
                progress.end(str(arguments[0]))
            else:
                shared = shared or event == "train"
                getattr(progress, str(event))(*arguments)
    finally:
        _stop(workers)


def slots() -> list[Slot]:
    """The GPUs that this process may use, or a slot per CPU core where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [device.strip() for device in visible.split(",")]
        # As CUDA reads it: what follows -1 or an empty name is not visible.
        end = next((i for i, name in enumerate(named) if name in ("", "-1")), len(named))
        devices = named[:end]
    else:
        names = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
        devices = sorted((name for name in names if name.isdecimal()), key=int)
    return [*devices] or [None] * cores()


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPU cores that this process may use: its affinity, and a container's quota where set."""
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    if (given := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():  # of a job's task
        found = min(found, int(given))
    try:
        share, period = quota.read_text().split()
        found = min(found, max(1, int(share) // int(period)))
    except (OSError, ValueError):  # none, or "max"
        pass
    return found


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Within, processes are started that SLURM's warning does not reach.

    It goes to every process of a job and would kill those that do not expect it; the job's own
    first process is the one that answers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@_unwarned()
def _start(
    run: RunSpec,
    taken: list[Slot],
    threads: int,
    runs_dir: Path,
    data_dir: Path,
    force: bool,
    events: queue.SimpleQueue[tuple[Worker, list[object]]],
) -> Worker:
    run_dir = runs_dir / run.run_id
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    if devices := [slot for slot in taken if slot is not None]:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    launcher: list[str] = []
    if len(taken) > 1:
        count = f"--nproc-per-node={len(taken)}"
        launcher = ["torch.distributed.run", "--standalone", count, "-m"]
    arguments = [str(run_dir.absolute()), str(data_dir.absolute()), *(["force"] if force else [])]
    with RunPaths(run_dir).log.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *launcher, "bench.dispatch.worker", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.PIPE,  # nothing is said: its end tells the worker that we died
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
    worker = Worker(run, taken, process)

    def listen() -> None:
        assert process.stdin is not None and process.stdout is not None
        try:
            with process.stdout as told:
                for line in told:
                    if (event := _event(line)) is not None:
                        events.put((worker, event))
        finally:  # whatever happened: who waits for the exit must hear of it
            status = process.wait()
            process.stdin.close()
            events.put((worker, ["exit", status]))

    threading.Thread(target=listen, daemon=True).start()
    return worker


EVENTS = ("data", "train", "evaluate", "line", "end", "again", "full", "fault", "left")


def _event(line: str) -> list[object] | None:
    """What a worker said. None = nothing that it would say."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, list) and event and event[0] in EVENTS else None


def _died(worker: Worker, runs_dir: Path, status: object) -> tuple[str, str | None]:
    """Notes in a run's record why it stands still.

    A worker that a signal killed is a fault of the machine, and so is the end of several that
    train together where none of them says why. Such a run goes back to the queue, unless that has
    happened again and again without its getting on.

    Returns:
        One line, and the kind of the failure where the run is to be tried again.
    """
    run = worker.run
    paths = RunPaths(runs_dir / run.run_id)
    code, processes = status if isinstance(status, int) else 1, len(worker.slots)
    how = f"killed by signal {-code}" if code < 0 else f"status {code}"
    if code == -signal.SIGKILL:
        how += ", perhaps for want of memory"
    reason, again = f"the worker died ({how})", None
    if (fault := worker.fault) is not None:
        reason = f"process beside the first: {fault.line}"
    last = last_holder(paths.claim)
    start, nimg = worker.left or ((last.start, last.nimg) if last else (0, 0))
    kind, at, size = "node", start, None
    # What cannot be read stays as it is; another process may have taken the run meanwhile.
    with contextlib.suppress(UserError, OSError), owning(paths.claim):
        record = records.load(paths.record) or records.new(run, _now())
        if record["status"] == "running":
            record["error"] = reason
            if fault is not None and fault.kind != "node":
                kind, at = fault.kind, max(fault.nimg, nimg)
                size = retry.halved(record, run.config.train, processes)
            if fault is not None or code < 0 or processes > 1:
                if retry.settle(record, kind, reason, at, size):
                    again = kind
                else:
                    record["ended"] = _now()
            records.save(paths.record, record)
    return f"{reason}; see {paths.log}", again


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _stop(workers: Sequence[Worker]) -> None:
    """Ends what still works; every run keeps its last checkpoint."""
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
