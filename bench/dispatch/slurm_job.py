"""A job of SLURM on its node: the same pool of worker processes as on one machine.

A warning (before the time limit or a preemption) makes the workers write their checkpoints; then
the job is requeued and goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.dispatch import local
from bench.dispatch.slurm_queue import ask
from bench.run.progress import PlainProgress
from bench.store import record as records
from bench.store.lease import job_here, leased
from projgan.errors import DataError, UserError

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

IDLE_SESSIONS = 3  # a job that used up its time so often without any progress is given up
EARLY_SECONDS = 120.0  # a warning that comes so early may be that of the time limit
KILL_SECONDS = 3600.0  # SLURM, having asked a job to end, has so long to end it
REQUEUE_SECONDS = 10.0  # between attempts to reach the controller
TRIES, PAUSE_SECONDS = 5, 0.2  # SLURM's request to end may hit a command too


def share(gpus: int, runs: int) -> int:
    """GPUs that each of the runs of a job trains on; without a GPU, a slot."""
    return max(gpus // runs, 1)


@dataclass
class Job:
    """The work of a job on its node: its runs, in a pool on the slots it was given."""

    runs: tuple[str, ...]  # ids
    runs_dir: str
    data_dir: str
    gpus: int
    minutes: float  # the time limit
    warning: float  # seconds before it
    idle: int = 0  # sessions in a row that used up their time without progress
    before: tuple[object, ...] = field(default=(), repr=False)  # what was done when it began
    began: float = 0.0

    def __call__(self) -> None:
        """Does what is left of the runs.

        Raises:
            RuntimeError: a run failed, so that SLURM shows the job as failed too.
            SystemExit: the job is requeued.
        """
        runs_dir = Path(self.runs_dir)
        self.before, self.began = self.done(), time.monotonic()
        left = [spec for spec in self.specs() if not records.run_state(spec, runs_dir).settled]
        if not self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a node may have some that are not ours
        progress = PlainProgress(left, lambda text: print(text, flush=True))
        lost: list[RunSpec] = []
        requests = _Requests()
        try:
            requests.listen()
            each = share(self.gpus, len(self.runs))
            local.dispatch(left, runs_dir, Path(self.data_dir), progress, False, each, lost.append)
            if lost:
                requests.move_to_another_node()
        except _AskedToEnd:
            requests.obey()
        at = [records.run_state(spec, runs_dir) for spec in self.specs()]
        if failed := [now.note for now in at if now.state in ("failed", "stopped")]:
            raise RuntimeError(f"{len(failed)} of {len(self.runs)} runs failed: {failed[0]}")

    def checkpoint(self) -> DelayedSubmission | None:
        """Called by submitit after a warning, the workers gone: the job to requeue.

        Returns:
            None where going on would be of no use.
        """
        from submitit.core.job_environment import JobEnvironment
        from submitit.helpers import DelayedSubmission

        # SLURM warns up to a minute early, and Python took its time to start.
        used_up = time.monotonic() - self.began > 60 * self.minutes - self.warning - EARLY_SECONDS
        idle = self.idle
        if self.done() != self.before:
            idle = 0
        elif used_up:  # a preemption may come at any time and tells nothing
            idle += 1
        if idle >= IDLE_SESSIONS:
            self.give_up()
            return None
        # Left by a kill in the midst of writing it, this file would keep submitit from going on.
        pickled = JobEnvironment().paths.submitted_pickle
        pickled.with_suffix(f"{pickled.suffix}.save_tmp").unlink(missing_ok=True)
        return DelayedSubmission(dataclasses.replace(self, idle=idle, before=(), began=0.0))

    def give_up(self) -> None:
        """Notes why in the records; the runs have not failed, and can go on with more time."""
        reason = (
            f"no progress in {IDLE_SESSIONS} sessions of {self.minutes:g} minutes; "
            "give more with dispatch.time="
        )
        for spec in self.specs():
            paths = RunPaths(Path(self.runs_dir) / spec.run_id)
            with contextlib.suppress(DataError, OSError, UserError), leased(paths.lease):
                record = records.load(paths.record) or records.new(spec, records.now())
                if record["status"] == "running":
                    records.save(paths.record, record | {"error": reason})

    def specs(self) -> list[RunSpec]:
        return [RunSpec.read(RunPaths(Path(self.runs_dir) / id).spec) for id in self.runs]

    def done(self) -> tuple[object, ...]:
        """Return a fingerprint of what the runs have done; it changes when any of them gets on."""
        shown: list[object] = []
        for id in self.runs:
            run = RunPaths(Path(self.runs_dir) / id)
            with contextlib.suppress(OSError):
                stat = run.checkpoint.stat()
                shown += [stat.st_mtime_ns, stat.st_size]
            with contextlib.suppress(UserError):
                record = records.load(run.record)
                shown += [(s["nimg"], *s["metrics"]) for s in (record or {}).get("snapshots", ())]
        return tuple(shown)


class _AskedToEnd(BaseException):
    """SLURM asked the job to end."""


class _Requests:
    """SLURM's requests to end, and what is done about them.

    submitit's own handler of the warning requeues the job; here it runs after the workers have
    stopped and not before.
    """

    WARNING = signal.SIGUSR2

    def __init__(self) -> None:
        self.asked = self.warned = False
        self.submitit: Any = None  # its handler of the warning

    def listen(self) -> None:
        """From here on the first request interrupts the main thread.

        The handlers stay: the process ends soon, and nothing may interrupt the tidying up.
        """
        self.submitit = signal.getsignal(self.WARNING)
        for number in (self.WARNING, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.warned = self.warned or number == self.WARNING
        first, self.asked = not self.asked, True
        if first:
            raise _AskedToEnd

    def obey(self) -> None:
        """The workers have stopped: requeue after a warning, else wait for what SLURM does.

        A request without a warning comes from scancel, from `scontrol requeue` or from a
        preemption; only SLURM knows which, and it ends or requeues the job itself. Leaving now
        could make a job to be requeued one that has ended.
        """
        deadline = time.monotonic() + KILL_SECONDS
        while not self.warned:
            if time.monotonic() > deadline:
                raise RuntimeError("asked to end by a signal that SLURM did not follow up")
            time.sleep(0.2)
        self.requeue()

    def move_to_another_node(self) -> None:
        """The node failed runs of this job: requeue for another one, as at a warning."""
        self.asked = True  # by ourselves
        job, node = job_here(), os.environ.get("SLURMD_NODENAME", "")
        nodes = nodes_to_avoid(job, node)
        try:
            self.requeue()
        except SystemExit:  # requeued; SLURM ends this process in a moment
            agreed = nodes is not None and avoid_nodes(job, nodes)
            then = f"the job avoids {nodes}" if agreed else "there is no other for the job"
            print(f"{node} failed; {then}", flush=True)
            raise

    def requeue(self) -> None:
        """Has submitit requeue the job.

        Raises:
            SystemExit: it is requeued.
        """
        deadline = time.monotonic() + KILL_SECONDS
        while True:
            try:
                self.submitit(self.WARNING, None)
                return
            except subprocess.SubprocessError as error:  # the controller is away
                if time.monotonic() > deadline:
                    raise
                print(f"cannot requeue yet: {error}", flush=True)
                time.sleep(REQUEUE_SECONDS)


def nodes_to_avoid(job: str, node: str) -> str | None:
    """The nodes that a job avoids, and one more.

    Returns:
        As SLURM writes lists of nodes. None = no other node of the job's partition would be left,
        with which the job would wait for ever, or SLURM does not answer.
    """
    try:
        shown = " ".join(ask("scontrol", "show", "job", "--oneliner", job))
        before = re.search(r"\bExcNodeList=(\S+)", shown)
        partition = re.search(r"\bPartition=(\S+)", shown)
        if before is None or partition is None:
            return None
        nodes = [node] if before[1] == "(null)" else [before[1], node]
        avoided = {*ask("scontrol", "show", "hostnames", ",".join(nodes))}
        all_ = ask("sinfo", "--noheader", "--Node", f"--partition={partition[1]}", "--format=%N")
    except UserError:
        return None
    return ",".join(nodes) if {name.strip() for name in all_} - avoided else None


def avoid_nodes(job: str, nodes: str) -> bool:
    """Keeps a job that waits from these nodes; whether SLURM agreed.

    The job stays what it is, with its id and its place in the array. Its list of nodes to avoid
    can be changed only while it waits, so that is done between its requeue and its end.
    """
    command = ["scontrol", "update", f"JobId={job}", f"ExcNodeList={nodes}"]
    for _ in range(TRIES):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return True
        time.sleep(PAUSE_SECONDS)
    return False
