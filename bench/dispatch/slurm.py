"""Runs as SLURM jobs, through submitit: submitted in arrays, and left to the cluster.

Each job runs `bench.dispatch.slurm_job.Job` on a node, from a frozen copy of the source.
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
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.config.paths import RunPaths
from bench.config.schema import SlurmFile
from bench.config.spec import RunSpec
from bench.dispatch import slurm_queue
from bench.dispatch.code_snapshot import freeze
from bench.dispatch.slurm_job import Job, share
from bench.dispatch.slurm_queue import QueuedJob
from bench.store import record as records
from bench.store.lease import leased
from projgan.errors import DataError, UserError

if TYPE_CHECKING:
    import submitit

MAX_ARRAY = 1001  # of SLURM as it comes
PRIVATE = 0o700

Settings = Callable[[RunSpec], SlurmFile]  # what a run asks of the cluster


class Array(NamedTuple):
    """Jobs that ask for the same, submitted as one."""

    packs: tuple[tuple[RunSpec, ...], ...]  # the runs of each job
    asked: SlurmFile

    @property
    def runs(self) -> list[RunSpec]:
        return list(itertools.chain(*self.packs))


def submit(
    grid: str,
    runs: Sequence[RunSpec],
    runs_dir: Path,
    data_dir: Path,
    settings: Settings,
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
    for array in split:
        _check_shares(array)
    private = _private(runs_dir / ".slurm")
    source = freeze(runs_dir)
    for run in runs:
        _reopen(RunPaths(runs_dir / run.run_id), anew)
    for array in split:
        name = f"{grid}-{uuid.uuid4().hex[:8]}"
        executor = _executor(_private(private / name), name, source, array.asked)
        id = _submit_array(array, name, executor, runs_dir, data_dir)
        count, has = len(array.packs), len(array.runs)
        several = f" as an array of {count}" if count > 1 else ""
        echo(f"submitted job {id}{several}: {has} run{'s' if has > 1 else ''}, {name}")


def _check_shares(array: Array) -> None:
    """Raises UserError where the GPUs of a job cannot share a run's batch."""
    for pack in array.packs:
        gpus = share(array.asked.gpus, len(pack))
        for run in pack:
            if (batch := run.config.train.batch) % gpus:
                raise UserError(
                    f"{run.name}: train.batch={batch} cannot be shared by {gpus} GPUs; "
                    "give other dispatch.gpus= or resources"
                )


def _submit_array(
    array: Array, name: str, executor: submitit.SlurmExecutor, runs_dir: Path, data_dir: Path
) -> str:
    """Submits jobs under a name that nothing else has, and notes which run is in which.

    Returns:
        The id that SLURM gave the array, or its only job.
    """
    given = [
        QueuedJob(name, i, None, tuple(run.run_id for run in pack), records.now(), "")
        for i, pack in enumerate(array.packs)
    ]
    asked, folders = array.asked, (str(runs_dir.absolute()), str(data_dir.absolute()))
    jobs = [Job(job.runs, *folders, asked.gpus, asked.time, asked.warning) for job in given]
    # Noted before they are submitted: whatever happens now, they can be found by their name.
    for job in given:
        job.save(runs_dir)
    try:
        # submitit prints what sbatch says; here that is a line of the error.
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except Exception as error:
        # A controller that answers too late may have taken the jobs all the same.
        queue = slurm_queue.ask_queue(given)
        if queue.fault or queue.entries:
            raise UserError(
                f"sbatch fails: {_error_of_sbatch(error)}; do=status shows whether the jobs are "
                "queued"
            ) from error
        for run in array.runs:
            RunPaths(runs_dir / run.run_id).job.unlink(missing_ok=True)
        raise UserError(f"sbatch refuses: {_error_of_sbatch(error)}") from error
    for job, at in zip(given, submitted, strict=True):
        log = os.path.relpath(at.paths.stdout, runs_dir.absolute())
        dataclasses.replace(job, id=at.job_id, log=log).save(runs_dir)
    return str(submitted[0].job_id).partition("_")[0]


def scripts(grid: str, runs: Sequence[RunSpec], runs_dir: Path, settings: Settings) -> list[str]:
    """Return the scripts that sbatch would be given, for a dry run; nothing is written."""
    folder = runs_dir.absolute() / ".slurm" / f"{grid}-dry-run"
    source = runs_dir.absolute() / ".slurm" / "source" / "dry-run"
    out = []
    for array in arrays(runs, settings):
        executor = _executor(folder, folder.name, source, array.asked)
        if len(array.packs) > 1:
            executor.parameters["map_count"] = len(array.packs)
        out.append(executor._make_submission_file_text(executor._submitit_command_str, ""))
    return out


def arrays(runs: Sequence[RunSpec], settings: Settings) -> Iterator[Array]:
    """Runs as jobs, and jobs as arrays of one kind that the cluster accepts."""
    alike: dict[str, tuple[SlurmFile, list[RunSpec]]] = {}
    for run in runs:
        asked = settings(run)
        alike.setdefault(repr(asked), (asked, []))[1].append(run)
    for asked, group in alike.values():
        size, most = asked.runs_per_job, asked.max_array or max_array()
        packs = [tuple(group[i : i + size]) for i in range(0, len(group), size)]
        for i in range(0, len(packs), most):
            yield Array(tuple(packs[i : i + most]), asked)


def _executor(folder: Path, name: str, source: Path, asked: SlurmFile) -> submitit.SlurmExecutor:
    import submitit

    options = {name: _option(text) for name, text in asked.options.items()}
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

    executor = Executor(folder, max_num_timeout=10**9)  # our own count, see Job.checkpoint
    kind = f"{asked.gpu_type}:" if asked.gpu_type else ""
    memory = {} if asked.mem_gb is None else {"mem": f"{round(asked.mem_gb * 1024)}M"}
    executor.update_parameters(
        job_name=name,
        time=asked.time,
        cpus_per_task=asked.cpus,
        gpus_per_node=f"{kind}{asked.gpus}" if asked.gpus else None,
        partition=asked.partition,
        account=asked.account,
        qos=asked.qos,
        constraint=asked.constraint,
        signal_delay_s=asked.warning,
        array_parallelism=asked.parallel,
        stderr_to_stdout=True,
        # Since SLURM 22.05 srun no longer takes the job's own number of cores.
        srun_args=[f"--cpus-per-task={asked.cpus}"],
        setup=[*asked.setup, *_environment(source)],
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


def max_array() -> int:
    """The most jobs of an array that the cluster accepts."""
    try:
        lines = slurm_queue.ask("scontrol", "show", "config")
    except UserError:
        return MAX_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", "\n".join(lines), re.MULTILINE)
    return max(int(found[1]), 1) if found else MAX_ARRAY


def _reopen(run: RunPaths, anew: bool) -> None:
    """Makes a run one that is to be done: requeued jobs leave alone what has ended."""
    from bench.run.runner import forget

    with leased(run.lease) as lease:
        if anew:
            forget(run, lease)
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


def _error_of_sbatch(error: BaseException) -> str:
    """Return why sbatch refused, in one line."""
    errors = re.findall("sbatch: error: (.*)", str(error))
    text = "; ".join(errors) or str(error)
    return " ".join(text.split())[-300:]
