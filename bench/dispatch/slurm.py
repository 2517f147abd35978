"""Runs as SLURM jobs, through submitit: submitted in arrays, and left to the cluster.

Each job runs `Job` on a node, from a frozen copy of the source: the same pool of worker processes
as on one machine, on what the job was given. A warning (before the time limit or a preemption)
makes the workers write their checkpoints; then the job is requeued and goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bench.config.paths import RunPaths
from bench.config.schema import SlurmFile
from bench.config.spec import RunSpec
from bench.dispatch import elsewhere, local, slurm_queue
from bench.dispatch.code_snapshot import freeze
from bench.run.progress import PlainProgress
from bench.store import record as records
from bench.store.lease import job_here, owning
from projgan.errors import DataError, UserError

if TYPE_CHECKING:
    import submitit
    from submitit.helpers import DelayedSubmission

MAX_ARRAY = 1001  # of SLURM as it comes
IDLE_SESSIONS = 3  # a job that used up its time so often without any progress is given up
EARLY_SECONDS = 120.0  # a warning that comes so early may be that of the time limit
KILL_SECONDS = 3600.0  # SLURM, having asked a job to end, has so long to end it
REQUEUE_SECONDS = 10.0  # between attempts to reach the controller
PRIVATE = 0o700

Pack = tuple[RunSpec, ...]  # the runs of one job


def submit(
    grid: str,
    runs: Sequence[RunSpec],
    runs_dir: Path,
    data_dir: Path,
    settings: Callable[[RunSpec], SlurmFile],
    echo: Callable[[str], None],
    anew: bool = False,
) -> None:
    """Submits the runs as job arrays and returns.

    Args:
        grid: its name, which the jobs begin with.
        runs: each with its spec.json already in `runs_dir`/<run id>.
        settings: what a run asks of the cluster.
        echo: is told what was submitted.
        anew: forget what was done of them before.

    Raises:
        UserError: SLURM is not here or refuses; what was submitted before stays submitted.
    """
    if shutil.which("sbatch") is None:
        raise UserError("dispatch=slurm: sbatch is not on this machine; submit from a login node")
    split = list(arrays(runs, settings))
    for part, wanted in split:
        for pack in part:
            for run in pack:
                gpus, batch = share(wanted.gpus, len(pack)), run.config.train.batch
                if batch % gpus:
                    raise UserError(
                        f"{run.name}: train.batch={batch} cannot be shared by {gpus} GPUs; "
                        "give other dispatch.gpus= or resources"
                    )
    private = _private(runs_dir / ".slurm")
    source = freeze(runs_dir)
    for run in runs:
        _reopen(RunPaths(runs_dir / run.run_id), anew)
    for part, wanted in split:
        name = f"{grid}-{uuid.uuid4().hex[:8]}"
        folder = _private(private / name)
        given = [
            slurm_queue.Job(name, i, None, tuple(run.run_id for run in pack), _now(), "")
            for i, pack in enumerate(part)
        ]
        # Noted before they are submitted: whatever happens now, they can be found by their name.
        for job in given:
            for id in job.runs:
                slurm_queue.save(RunPaths(runs_dir / id), job)
        executor = _executor(folder, name, source, wanted)
        try:
            # submitit prints what sbatch says; here that is a line of the error.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                submitted = [
                    executor.submit(Job(job.runs, str(runs_dir.absolute()),
                                        str(data_dir.absolute()), wanted.gpus, wanted.time,
                                        wanted.warning))
                    for job in given
                ]  # fmt: skip
        except Exception as error:
            # A controller that answers too late may have taken the jobs all the same.
            queue = slurm_queue.ask_queue(given)
            if queue.fault or queue.entries:
                raise UserError(
                    f"sbatch fails: {_words(error)}; do=status shows whether the jobs are queued"
                ) from error
            for job in given:
                for id in job.runs:
                    RunPaths(runs_dir / id).job.unlink(missing_ok=True)
            raise UserError(f"sbatch refuses: {_words(error)}") from error
        for job, at in zip(given, submitted, strict=True):
            log = os.path.relpath(at.paths.stdout, runs_dir.absolute())
            done = dataclasses.replace(job, id=at.job_id, log=log)
            for id in job.runs:
                slurm_queue.save(RunPaths(runs_dir / id), done)
        count, first = len(part), submitted[0].job_id.partition("_")[0]
        several = f" as an array of {count}" if count > 1 else ""
        has = sum(map(len, part))
        echo(f"submitted job {first}{several}: {has} run{'s' if has > 1 else ''}, {name}")


def scripts(
    grid: str,
    runs: Sequence[RunSpec],
    runs_dir: Path,
    settings: Callable[[RunSpec], SlurmFile],
) -> list[str]:
    """What sbatch would be given, for a dry run; nothing is written."""
    folder = runs_dir.absolute() / ".slurm" / f"{grid}-dry-run"
    source = runs_dir.absolute() / ".slurm" / "source" / "dry-run"
    out = []
    for part, wanted in arrays(runs, settings):
        executor = _executor(folder, folder.name, source, wanted, make=False)
        if len(part) > 1:
            executor.parameters["map_count"] = len(part)
        out.append(executor._make_submission_file_text(executor._submitit_command_str, ""))
    return out


def arrays(
    runs: Sequence[RunSpec], settings: Callable[[RunSpec], SlurmFile]
) -> Iterator[tuple[list[Pack], SlurmFile]]:
    """Runs as jobs, and jobs as arrays of one kind that the cluster accepts."""
    alike: dict[str, list[RunSpec]] = {}
    wanted: dict[str, SlurmFile] = {}
    for run in runs:
        asked = settings(run)
        key = repr(asked)
        wanted[key] = asked
        alike.setdefault(key, []).append(run)
    for key, group in alike.items():
        size = wanted[key].runs_per_job
        packs = [tuple(group[i : i + size]) for i in range(0, len(group), size)]
        most = wanted[key].max_array or _max_array()
        for i in range(0, len(packs), most):
            yield packs[i : i + most], wanted[key]


def share(gpus: int, runs: int) -> int:
    """GPUs that each of the runs of a job trains on; without a GPU, a slot."""
    return max(gpus // runs, 1)


@dataclass
class Job:
    """What a job does on its node: its runs, in a pool on the slots it was given."""

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
        left = [spec for spec in self.specs() if records.standing(spec, runs_dir).state not in
                ("finished", "failed")]  # fmt: skip
        if not self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a node may have some that are not ours
        progress = PlainProgress(left, lambda text: print(text, flush=True))
        lost: list[RunSpec] = []
        with _Signals() as signals:
            try:
                local.dispatch(
                    left, runs_dir, Path(self.data_dir), progress, False, self.share, lost.append
                )
                if lost:
                    signals.move()
            except _Asked:
                signals.follow()
        failed = [
            at.note
            for spec in self.specs()
            if (at := records.standing(spec, runs_dir)).state in ("failed", "stopped")
        ]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(self.runs)} runs failed: {failed[0]}")

    @property
    def share(self) -> int:
        """GPUs of each run."""
        return share(self.gpus, len(self.runs))

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
            with contextlib.suppress(DataError, OSError, UserError), owning(paths.claim):
                record = records.load(paths.record) or records.new(spec, _now())
                if record["status"] == "running":
                    records.save(paths.record, record | {"error": reason})

    def specs(self) -> list[RunSpec]:
        return [RunSpec.read(RunPaths(Path(self.runs_dir) / id).spec) for id in self.runs]

    def done(self) -> tuple[object, ...]:
        """What the runs have to show; it changes when any of them gets on."""
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


class _Asked(BaseException):
    """SLURM asked the job to end."""


class _Signals:
    """Within, SLURM's requests interrupt the main thread, once.

    submitit's own handler of the warning requeues the job; here it runs after the workers have
    stopped and not before.
    """

    WARNING = signal.SIGUSR2

    def __init__(self) -> None:
        self.asked = self.warned = False

    def __enter__(self) -> _Signals:
        self.answer: Any = signal.getsignal(self.WARNING)
        for number in (self.WARNING, signal.SIGTERM):
            signal.signal(number, self.on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        """The process ends soon; the handlers stay."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.warned = self.warned or number == self.WARNING
        first, self.asked = not self.asked, True
        if first:  # nothing may interrupt the tidying up
            raise _Asked

    def follow(self) -> None:
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

    def move(self) -> None:
        """The node failed runs of this job: requeue for another one, as at a warning."""
        self.asked = True  # by ourselves
        job, node = job_here(), os.environ.get("SLURMD_NODENAME", "")
        nodes = elsewhere.to_avoid(job, node)
        try:
            self.requeue()
        except SystemExit:  # requeued; SLURM ends this process in a moment
            agreed = nodes is not None and elsewhere.avoid(job, nodes)
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
                self.answer(self.WARNING, None)
                return
            except subprocess.SubprocessError as error:  # the controller is away
                if time.monotonic() > deadline:
                    raise
                print(f"cannot requeue yet: {error}", flush=True)
                time.sleep(REQUEUE_SECONDS)


def _executor(
    folder: Path, name: str, source: Path, wanted: SlurmFile, make: bool = True
) -> submitit.SlurmExecutor:
    import submitit

    options = {name: _option(text) for name, text in wanted.options.items()}
    left_out = {name for name, value in options.items() if value is False}

    class Executor(submitit.SlurmExecutor):
        def _make_submission_file_text(self, command: str, uid: str) -> str:
            """The script without what the user leaves out of it, such as submitit's wckey."""
            lines = super()._make_submission_file_text(command, uid).split("\n")
            named = (re.match(r"#SBATCH --([a-z-]+)", line) for line in lines)
            kept = (not (name and name[1] in left_out) for name in named)
            return "\n".join(itertools.compress(lines, kept))

        @classmethod
        def affinity(cls) -> int:  # a dry run needs no cluster
            return 1

    if make:
        folder.mkdir(parents=True, exist_ok=True)
    executor = Executor(folder, max_num_timeout=10**9)  # our own count, see Job.checkpoint
    where = {
        key: value
        for key in ("partition", "account", "qos", "constraint")
        if (value := getattr(wanted, key)) is not None
    }
    kind = f"{wanted.gpu_type}:" if wanted.gpu_type else ""
    memory = {} if wanted.mem_gb is None else {"mem": f"{round(wanted.mem_gb * 1024)}M"}
    executor.update_parameters(
        job_name=name,
        time=wanted.time,
        cpus_per_task=wanted.cpus,
        **({"gpus_per_node": f"{kind}{wanted.gpus}"} if wanted.gpus else {}),
        **where,
        signal_delay_s=wanted.warning,
        array_parallelism=wanted.parallel,
        stderr_to_stdout=True,
        # Since SLURM 22.05 srun no longer takes the job's own number of cores.
        srun_args=[f"--cpus-per-task={wanted.cpus}"],
        setup=[*wanted.setup, *_environment(source)],
        additional_parameters={"requeue": True, **memory, **options},
    )
    return executor


def _option(text: str) -> str | bool:
    """The value of an option of sbatch: true = it has none, false = it is left out."""
    words = {"": True, "true": True, "yes": True, "on": True,
             "false": False, "no": False, "off": False}  # fmt: skip
    return words.get(text.lower(), text)


def _environment(source: Path) -> list[str]:
    """The frozen source before everything else, and never what lies in the working folder."""
    return [
        "export PYTHONSAFEPATH=1",
        f"export PYTHONPATH={shlex.quote(str(source))}${{PYTHONPATH:+:$PYTHONPATH}}",
    ]


def _max_array() -> int:
    """The most jobs of an array that the cluster accepts."""
    command = ["scontrol", "show", "config"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=slurm_queue.ASK_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return MAX_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(int(found[1]), 1) if found else MAX_ARRAY


def _reopen(run: RunPaths, anew: bool) -> None:
    """Makes a run one that is to be done: requeued jobs leave alone what has ended."""
    from bench.run.runner import forget

    with owning(run.claim) as claim:
        if anew:
            forget(run, claim)
        with contextlib.suppress(DataError):  # a damaged one is the run's own affair
            record = records.load(run.record)
            if record and record["status"] == "failed":
                records.save(
                    run.record, record | {"status": "running", "error": None, "failures": []}
                )


def _private(folder: Path) -> Path:
    """A folder of our own that nobody else can write to: what jobs unpickle lies in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    stat = folder.stat()
    if stat.st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user; give a runs_dir= of your own")
    if stat.st_mode & 0o777 != PRIVATE:
        folder.chmod(PRIVATE)
    return folder


def _words(error: BaseException) -> str:
    """What sbatch said, in one line."""
    said = [line for line in str(error).splitlines() if "sbatch: error" in line]
    text = "; ".join(line.partition("sbatch: error: ")[2] for line in said) or str(error)
    return " ".join(text.split())[-300:]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
