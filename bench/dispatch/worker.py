"""One run in a process of its own: `python -m bench.dispatch.worker RUN_DIR DATA_DIR [force]`.

What happens is reported on standard output as one JSON list a line, [event, argument, ...]; the
process that started the worker shows it. The run itself is `bench.run.runner.execute`, as
everywhere.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.dispatch.inprocess import outcome
from bench.run import retry
from bench.run.progress import Progress
from bench.run.stop import Stop
from projgan.errors import UserError

AGAIN = 75  # exit status of a run that belongs back in the queue (EX_TEMPFAIL)
EVERY_SECONDS = 0.5  # at most one line of training in so many seconds


class Reporter(Progress):
    """Passes on what happens in a run."""

    def __init__(self, spec: RunSpec, out: TextIO):
        super().__init__([spec])
        self.out = out
        self.reported = 0.0  # when training was reported last

    def report(self, event: str, *arguments: object) -> None:
        try:
            self.out.write(json.dumps([event, *arguments]) + "\n")
            self.out.flush()
        except BrokenPipeError:
            # Nobody listens any more. That asks the run to end, by `stop_when_asked`; not here, in
            # the middle of a step that the checkpoint should hold.
            self.out = io.StringIO()

    def data(self, done: int, total: int) -> None:
        self.report("data", done, total)

    def train(self, nimg: int) -> None:
        if time.monotonic() - self.reported > EVERY_SECONDS:
            self.reported = time.monotonic()
            self.report("train", nimg)

    def evaluate(self, nimg: int) -> None:
        self.report("evaluate", nimg)

    def line(self, text: str) -> None:
        self.report("line", text)


def open_channel() -> TextIO:
    """Standard output for the reporter alone; all else that is printed goes to the log."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries in C write to the number, not to sys.stdout
    return out


def stop_when_asked() -> Stop:
    """Stops, checkpoint written and lease given back, when asked to or when the parent is gone."""
    stop = Stop()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop.on_signal)
    _when_the_parent_is_gone(lambda: os.kill(os.getpid(), signal.SIGTERM))
    return stop


def leave_stopping_to_the_first() -> None:
    """Ignore who asks this process to end: of several the first one stops them all.

    Without a parent this process ends at once.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    _when_the_parent_is_gone(lambda: os._exit(1))


def _when_the_parent_is_gone(act: Callable[[], None]) -> None:
    def watch() -> None:
        while os.read(0, 1):  # the parent writes nothing, and closes the pipe by dying
            pass
        act()

    threading.Thread(target=watch, daemon=True).start()


def main(run_dir: str, data_dir: str, force: str = "") -> int:
    """Does one run, or a part of it beside the first of several processes."""
    paths = RunPaths(Path(run_dir))
    reporter = Reporter(RunSpec.read(paths.spec), open_channel())
    if int(os.environ.get("RANK", "0")) > 0:
        return beside_the_first(paths, Path(data_dir), reporter)
    return do_run(paths, Path(data_dir), reporter, force == "force")


def do_run(paths: RunPaths, data_dir: Path, reporter: Reporter, force: bool) -> int:
    """Does a run; the exit status is 0 wherever the record tells how it ended."""
    from bench.run.runner import execute
    from projgan.parallel import join

    try:
        stop = stop_when_asked()
        join()
        record = execute(paths.dir, data_dir, reporter, force, stop)
    except retry.StorageFull as error:
        reporter.report("full", str(error))
    except retry.NeighbourLeft as error:
        reporter.report("left", error.start, error.nimg)
        return AGAIN
    except retry.TryAgain as error:
        reporter.report("again", str(error), isinstance(error, retry.NodeFault))
        return AGAIN  # which ends the processes beside this one too
    except UserError as error:
        reporter.report("end", f"left alone: {error}")
    except KeyboardInterrupt:
        return 130
    else:
        reporter.report("end", outcome(record))
    return 0


def beside_the_first(paths: RunPaths, data_dir: Path, reporter: Reporter) -> int:
    """Trains along with the first process; reports why, should this one fail."""
    from bench.run.runner import train_along
    from projgan.parallel import join

    nimg = 0

    def on_images(now: int) -> None:
        nonlocal nimg
        nimg = now

    leave_stopping_to_the_first()
    try:
        join()
        train_along(paths.dir, data_dir, on_images)
    except Exception as error:
        if retry.is_of_a_neighbour(error):
            sys.stderr.write(f"Process {os.environ['RANK']}: another one has left\n")
            return AGAIN
        kind = retry.kind_of(error)
        if kind != "diverged":  # which all of them see in the same step; the first reports it
            reporter.report("fault", kind, retry.one_line(error), nimg)
        raise
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
