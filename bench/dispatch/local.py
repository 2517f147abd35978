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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.paths import ROOT, RunPaths
from bench.config.spec import RunSpec
from bench.run import retry
from bench.run.progress import Progress
from bench.store import record as records
from bench.store.lease import last_holder, leased
from projgan.errors import UserError

STOP_SECONDS = 30.0  # a worker that is asked to stop has so long for its step and its checkpoint

Slot = str | None  # the GPU of a worker, as CUDA_VISIBLE_DEVICES names it. None = a CPU core
Event = list[Any]  # its name, then its arguments; see `bench.dispatch.worker.Reporter`


@dataclass(frozen=True)
class Fault:
    """Failure of a process: a kind of `bench.run.retry`, in words, and after how many images."""

    kind: str
    line: str
    nimg: int


@dataclass
class Worker:
    """A process at work on a run, or torchrun with several.

    Attributes:
        ended: whether it reported how the run ended.
        fault: of a process beside the first, and what the first did not report.
        left: images when it began and when it ended, without a reason.
    """

    run: RunSpec
    slots: list[Slot]
    process: subprocess.Popen[str]
    ended: bool = False
    fault: Fault | None = None
    left: tuple[int, int] | None = None


Events = queue.SimpleQueue[tuple[Worker, Event]]


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
    free = deque(places)
    _Pool(free, gpus_per_run, threads, runs_dir, data_dir, progress, hand_over).work(runs, force)


@dataclass
class _Pool:
    """Worker processes on slots, and the runs that wait for one.

    Attributes:
        shared: whether what all runs share is there.
    """

    free: deque[Slot]
    slots_per_run: int
    threads: int  # of each worker
    runs_dir: Path
    data_dir: Path
    progress: Progress
    hand_over: Callable[[RunSpec], None] | None
    events: Events = field(default_factory=queue.SimpleQueue)
    waiting: deque[RunSpec] = field(default_factory=deque)
    workers: list[Worker] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    shared: bool = False

    def work(self, runs: Sequence[RunSpec], force: bool) -> None:
        """Does the runs; whatever happens, no worker is left behind."""
        self.waiting.extend(runs)
        try:
            while self.waiting or self.workers:
                while self.can_start():
                    self.start(self.waiting.popleft(), force)
                worker, (event, *arguments) = self.events.get()
                if not worker.ended:
                    self.progress.select(worker.run)
                self.handle(worker, event, arguments)
        finally:
            _stop(self.workers)

    def can_start(self) -> bool:
        enough = len(self.free) >= self.slots_per_run
        return bool(self.waiting) and enough and (self.shared or not self.workers)

    def start(self, run: RunSpec, force: bool) -> None:
        first = run.run_id not in self.begun
        if first:
            self.begun.add(run.run_id)
            self.progress.begin(run)
        taken = [self.free.popleft() for _ in range(self.slots_per_run)]
        command = _command(run, taken, self.runs_dir, self.data_dir, force and first)
        log = RunPaths(self.runs_dir / run.run_id).log
        self.workers.append(_start(run, taken, command, log, self.threads, self.events))

    def handle(self, worker: Worker, event: str, arguments: list[Any]) -> None:
        """Act on what a worker reported, or on its end."""
        if event == "full":
            raise UserError(arguments[0])
        elif event == "exit":
            self.remove(worker, arguments[0])
        elif event == "again":
            worker.ended = True
            self.queue_again(worker.run, *arguments)
        elif event == "fault":
            if worker.fault is None or worker.fault.kind == "node":
                worker.fault = Fault(*arguments)
        elif event == "left":
            worker.left = arguments[0], arguments[1]
        elif event == "end":
            worker.ended = True
            self.progress.end(arguments[0])
        else:
            self.shared = self.shared or event == "train"
            getattr(self.progress, event)(*arguments)

    def remove(self, worker: Worker, status: int) -> None:
        """Frees the slots of a worker that has ended."""
        if not worker.ended:
            reason, kind = note_death(worker, self.runs_dir, status)
            if kind is not None:
                self.queue_again(worker.run, reason, kind == "node")
            else:
                self.progress.end(reason)
        self.workers.remove(worker)
        self.free.extend(worker.slots)
        self.shared = True

    def queue_again(self, run: RunSpec, reason: str, machine: bool) -> None:
        """Puts a run behind the others, or hands it over where the machine failed it."""
        if machine and self.hand_over is not None:
            self.hand_over(run)
            self.progress.end(f"left to another machine: {reason}")
        else:
            self.waiting.append(run)
            self.progress.line(f"{run.name}: {reason}; tried again later")


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
    """Context in which processes are started that SLURM's warning does not reach.

    It goes to every process of a job and would kill those that do not expect it; the job's own
    first process is the one that answers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _command(
    run: RunSpec, taken: Sequence[Slot], runs_dir: Path, data_dir: Path, force: bool
) -> list[str]:
    launcher: list[str] = []
    if len(taken) > 1:
        count = f"--nproc-per-node={len(taken)}"
        launcher = ["torch.distributed.run", "--standalone", count, "-m"]
    folders = [str((runs_dir / run.run_id).absolute()), str(data_dir.absolute())]
    module = [*launcher, "bench.dispatch.worker"]
    return [sys.executable, "-m", *module, *folders, *(["force"] if force else [])]


def _start(
    run: RunSpec,
    taken: list[Slot],
    command: Sequence[str],
    log: Path,
    threads: int,
    events: Events,
) -> Worker:
    """Starts a worker, whose reports and end are put into `events`."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    if devices := [slot for slot in taken if slot is not None]:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    with log.open("a", encoding="utf-8") as errors, _unwarned():
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.PIPE,  # nothing is written: its end tells the worker that we died
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        worker = Worker(run, taken, process)
        # A thread inherits that it is not warned.
        threading.Thread(target=_listen, args=(worker, events), daemon=True).start()
    return worker


def _listen(worker: Worker, events: Events) -> None:
    process = worker.process
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdout as lines:
            for line in lines:
                if (event := _event(line)) is not None:
                    events.put((worker, event))
    finally:  # whatever happened: who waits for the exit must hear of it
        status = process.wait()
        process.stdin.close()
        events.put((worker, ["exit", status]))


EVENTS = ("data", "train", "evaluate", "line", "end", "again", "full", "fault", "left")


def _event(line: str) -> Event | None:
    """Return what a worker reported. None = the line is something else."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, list) and event and event[0] in EVENTS else None


def note_death(worker: Worker, runs_dir: Path, status: int) -> tuple[str, str | None]:
    """Notes in a run's record why nobody works on it any more.

    A worker that a signal killed is a fault of the machine, and so is the end of several that
    train together where none of them says why. Such a run goes back to the queue, unless that has
    happened again and again without its getting on.

    Args:
        status: of the process; a negative one is the number of a signal.

    Returns:
        One line, and the kind of the failure where the run is to be tried again.
    """
    paths, fault = RunPaths(runs_dir / worker.run.run_id), worker.fault
    reason = _how_it_ended(status) if fault is None else f"process beside the first: {fault.line}"
    again = None
    last = last_holder(paths.lease)
    start, nimg = worker.left or ((last.start, last.nimg) if last else (0, 0))
    # What cannot be read stays as it is; another process may have taken the run meanwhile.
    with contextlib.suppress(UserError, OSError), leased(paths.lease):
        record = records.load(paths.record) or records.new(worker.run, records.now())
        if record["status"] == "running":
            record["error"] = reason
            failure, train = retry.Failure("node", reason, start), None
            if fault is not None and fault.kind != "node":
                failure = retry.Failure(fault.kind, reason, max(fault.nimg, nimg))
                train = worker.run.config.train
            processes = len(worker.slots)
            if fault is not None or status < 0 or processes > 1:
                if retry.settle(record, failure, train, processes):
                    again = failure.kind
                else:
                    record["ended"] = records.now()
            records.save(paths.record, record)
    return f"{reason}; see {paths.log}", again


def _how_it_ended(status: int) -> str:
    how = f"killed by signal {-status}" if status < 0 else f"status {status}"
    if status == -signal.SIGKILL:
        how += ", perhaps for want of memory"
    return f"the worker died ({how})"


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
