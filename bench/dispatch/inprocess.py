"""One run after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.progress import Progress, duration
from bench.record import Record
from bench.spec import RunSpec
from projgan.errors import UserError


def dispatch(
    runs: Sequence[RunSpec], runs_dir: Path, data_dir: Path, progress: Progress, force: bool
) -> None:
    """Does every run; one that fails leaves a record that says so, and the others go on.

    Args:
        runs: each with its spec.json already in `runs_dir`/<run id>.
        force: forget what was done of them before.

    Raises:
        StorageFull: nothing can be written any more.
    """
    from bench.execute import StorageFull, execute

    for run in runs:
        progress.begin(run)
        try:
            record = execute(runs_dir / run.run_id, data_dir, progress, force)
        except StorageFull:
            raise
        except UserError as error:  # another process has it, or its record is not ours to touch
            progress.end(f"left alone: {error}")
        else:
            progress.end(outcome(record))


def outcome(record: Record) -> str:
    """How a run ended, in one line."""
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    last = record["snapshots"][-1]
    values = ", ".join(f"{key} {value:.4g}" for key, value in list(last["metrics"].items())[:3])
    return f"finished in {duration(record['time']['total_s'])}" + (f": {values}" if values else "")
