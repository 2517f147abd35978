"""Runs in a scheduler's queue: which job has which run, and what SLURM says of it now.

`job.json` in a run's folder is written before the job is submitted and names it by a word of our
own, so that nothing is lost between the submission and its answer. What the queue says is asked of
squeue; how a job ended is asked of sacct, where there is accounting.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.store.lease import HEARTBEAT_SECONDS, holder
from bench.store.record import RunState, run_state
from bench.store.record import load as load_record
from projgan.errors import UserError
from projgan.files import write_json_atomic

ASK_SECONDS = 30.0  # a controller that is away keeps squeue waiting for about ten
_SEPARATOR = "|"
_RUN_ID = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class QueuedJob:
    """The job that a run was given to."""

    name: str  # of the submission: one word, never used twice
    index: int  # among the jobs of that submission
    id: str | None  # as SLURM calls it: 123, or 123_4 in an array. None = not known yet
    runs: tuple[str, ...]  # ids of all runs in this job
    submitted: str  # date and time
    log: str  # below the runs' folder
    cancelled: str | None = None  # when the user cancelled it

    @property
    def called(self) -> str:
        return f"job {self.id or self.name}"

    def save(self, runs_dir: Path) -> None:
        """Notes the job in the folders of its runs."""
        for id in self.runs:
            write_json_atomic(RunPaths(runs_dir / id).job, dataclasses.asdict(self))


@dataclass(frozen=True)
class Entry:
    """A line of squeue about a job."""

    id: str
    state: str  # PENDING, RUNNING, COMPLETING, …
    reason: str
    nodes: str


@dataclass(frozen=True)
class Queue:
    """All that is queued and running. `fault`: why that is not known; empty = it is."""

    entries: dict[tuple[str, int], Entry]
    fault: str = ""

    def find(self, job: QueuedJob) -> Entry | None:
        return self.entries.get((job.name, job.index))


def load(run: RunPaths) -> QueuedJob | None:
    """The job of a run. None = it was never submitted, or the file tells nothing."""
    try:
        found = json.loads(run.job.read_text(encoding="utf-8"))
        job = QueuedJob(**found | {"runs": tuple(found["runs"])})
        # They become names of folders, and words of a command.
        safe = all(_RUN_ID.fullmatch(id) for id in job.runs) and _NAME.fullmatch(job.name)
        return job if safe and isinstance(job.index, int) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def ask_queue(jobs: Iterable[QueuedJob]) -> Queue:
    """Asks squeue about jobs, by the names of their submissions; nothing is asked for no job."""
    names = sorted({job.name for job in jobs})
    if not names:
        return Queue({})
    wanted = _SEPARATOR.join(["%j", "%K", "%i", "%T", "%N", "%r"])
    try:
        lines = ask("squeue", "--noheader", "--all", "--array", f"--name={','.join(names)}",
                     f"--format={wanted}")  # fmt: skip
    except UserError as error:
        return Queue({}, str(error))
    entries = {}
    for line in lines:
        words = line.split(_SEPARATOR, 5)
        if len(words) < 6:
            return Queue({}, f"squeue says {line!r}, which tells nothing")
        name, index, id, state, nodes, reason = words
        entries[name, int(index) if index.isdecimal() else 0] = Entry(id, state, reason, nodes)
    return Queue(entries)


def ask_accounting(ids: Iterable[str]) -> dict[str, str]:
    """Return how jobs ended, by sacct: id -> state. Empty where there is no accounting."""
    arrays = sorted({id.partition("_")[0] for id in ids})
    if not arrays or shutil.which("sacct") is None:
        return {}
    try:
        lines = ask("sacct", "--noheader", "--parsable2", "--allocations",
                     "--format=JobID,State", f"--jobs={','.join(arrays)}")  # fmt: skip
    except UserError:
        return {}
    return dict(line.split(_SEPARATOR, 1) for line in lines if _SEPARATOR in line)


def run_states(runs: Sequence[RunSpec], runs_dir: Path) -> list[RunState]:
    """Return the states of runs, by their records, their leases and the queue."""
    at = [run_state(spec, runs_dir) for spec in runs]
    paths = [RunPaths(runs_dir / spec.run_id) for spec in runs]
    # Of runs that are done the queue could say nothing that matters.
    loaded = {i: load(run) for i, run in enumerate(paths) if not at[i].settled}
    jobs = {i: job for i, job in loaded.items() if job}
    queue = ask_queue(jobs.values())
    gone = [job for job in jobs.values() if not queue.fault and not queue.find(job)]
    ended = ask_accounting(job.id for job in gone if job.id)
    for i, job in jobs.items():
        at[i] = _in_queue(at[i], job, queue, ended, paths[i])
    return at


def _in_queue(
    now: RunState, job: QueuedJob, queue: Queue, ended: dict[str, str], run: RunPaths
) -> RunState:
    """Return a state by the files, with what the queue says of its job."""
    entry = queue.find(job)
    if queue.fault:
        if now.state in ("running", "hung"):
            return now
        return dataclasses.replace(now, state="queued", note=f"{job.called}; {queue.fault}")
    if entry is None:
        return _left(now, job, ended, run)
    if now.state in ("running", "hung"):
        return dataclasses.replace(now, note=f"job {entry.id} on {entry.nodes}; {now.note}")
    if entry.state == "PENDING":
        note = f"job {entry.id} waits ({entry.reason})"
        if "held" in entry.reason.lower():
            note += f"; scontrol release {entry.id} lets it go on"
    else:
        note = f"job {entry.id} is {entry.state.lower()} on {entry.nodes}, not yet with this run"
    return dataclasses.replace(now, state="queued", note=note)


def _left(now: RunState, job: QueuedJob, ended: dict[str, str], run: RunPaths) -> RunState:
    """Return the state of a run whose job has left the queue."""
    if now.state in ("running", "hung"):
        owner = holder(run.lease)
        # A process that lives on without its job keeps the run; so does one that is no job's.
        if owner is None or owner.job != job.id or owner.here:
            return now
        if time.time() - owner.time < 4 * HEARTBEAT_SECONDS:
            return now
        now = dataclasses.replace(now, state="stopped", note="")
    how = ended.get(job.id or "", "").lower()
    if job.cancelled:
        how = "cancelled"
    note = f"{job.called} " + (f"ended as {how}" if how else "has left the queue")
    if not now.note and (now.state != "missing" or how or job.id):
        now = dataclasses.replace(now, note=f"{note}; its log is {job.log}" if job.id else note)
    return now


def cancel(runs: Sequence[RunSpec], runs_dir: Path, now: str) -> tuple[list[str], list[str]]:
    """Cancels the jobs of these runs, and no job that has another run still to do.

    Returns:
        The ids of the jobs that were cancelled, and a line about each that was left alone.

    Raises:
        UserError: SLURM does not answer, or refuses.
    """
    chosen = {spec.run_id for spec in runs}
    jobs = {
        (job.name, job.index): job
        for spec in runs
        if (job := load(RunPaths(runs_dir / spec.run_id)))
    }
    queue = ask_queue(jobs.values())
    if queue.fault:
        raise UserError(f"nothing is cancelled: {queue.fault}")
    ended, kept = [], []
    for key, entry in queue.entries.items():
        if (job := jobs.get(key)) is None:
            continue
        others = [id for id in job.runs if id not in chosen and not _is_done(runs_dir, id)]
        if others:
            kept.append(
                f"job {entry.id} is left alone: it also does {', '.join(others)}, which you did "
                f"not name; scancel {entry.id} ends all of it"
            )
        else:
            ended.append(dataclasses.replace(job, id=entry.id, cancelled=now))
    if ended:
        ask("scancel", *(str(job.id) for job in ended))
    for job in ended:
        job.save(runs_dir)
    return [str(job.id) for job in ended], kept


def _is_done(runs_dir: Path, run_id: str) -> bool:
    try:
        record = load_record(RunPaths(runs_dir / run_id).record)
    except UserError:
        return False
    return record is not None and record["status"] in ("finished", "failed")


def ask(*command: str) -> list[str]:
    """Lines that a command of SLURM prints; UserError where it is not here or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
    except OSError:
        raise UserError(f"{command[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} does not answer") from None
    if done.returncode:
        words = re.sub(r"\s+", " ", done.stderr).strip()
        raise UserError(f"{command[0]} fails ({words[-200:] or done.returncode})")
    return [line for line in done.stdout.splitlines() if line.strip()]
