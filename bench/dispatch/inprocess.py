"""One run after the other in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from bench.config.spec import RunSpec
from bench.run.progress import Progress, duration
from bench.run.retry import NodeFault, StorageFull
from bench.store.record import Record
from projgan.errors import UserError, reason


def dispatch(
    runs: Sequence[RunSpec],
    runs_dir: Path,
    data_dir: Path,
    progress: Progress,
    force: bool,
    gpus_per_run: int = 1,
) -> None:
    """Does every run; one that fails leaves a record that says so, and the others go on.

    Args:
        runs: each with its spec.json already in `runs_dir`/<run id>.
        force: forget what was done of them before.
        gpus_per_run: one, as this is one process.

    Raises:
        StorageFull: nothing can be written any more.
        UserError: several GPUs are asked for.
    """
    if gpus_per_run != 1:
        raise UserError(f"gpus_per_run={gpus_per_run} needs dispatch=local, which starts torchrun")
    from bench.run.runner import execute

    waiting, begun = deque(runs), set[str]()
    while waiting:
        run = waiting.popleft()
        if run.run_id in begun:
            progress.select(run)
        else:
            progress.begin(run)
        try:
            record = execute(
                runs_dir / run.run_id, data_dir, progress, force and run.run_id not in begun
            )
        except StorageFull:
            raise
        except NodeFault as error:
            begun.add(run.run_id)
            waiting.append(run)
            progress.line(f"{run.name}: the machine failed ({reason(error)}); tried again later")
        except UserError as error:  # another process has it, or its record is not ours to touch
            progress.end(f"left alone: {error}")
        else:
            progress.end(outcome(record))


def outcome(record: Record) -> str:
    """Return how a run ended, in one line."""
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    last = record["snapshots"][-1]
    values = ", ".join(f"{key} {value:.4g}" for key, value in list(last["metrics"].items())[:3])
    return f"finished in {duration(record['time']['total_s'])}" + (f": {values}" if values else "")
