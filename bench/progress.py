"""What the terminal shows while a grid runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bars

PLAIN_SECONDS = 10.0  # at most one plain line of progress in so many seconds


class Progress:
    """Keeps count of a grid's runs and estimates what remains; shows nothing by itself.

    Work is counted in images. The rate of the present run includes its evaluations; runs that are
    still to come are expected to take as long per image as those so far.
    """

    def __init__(self, runs: Sequence[RunSpec], clock: Callable[[], float] = time.monotonic):
        self.todo = [run.total_images for run in runs]  # the present run first
        self.count = len(runs)
        self.number = 0  # of the present run, from 1
        self.name = ""
        self.nimg = self.start_nimg = self.total = 0
        self.clock = clock
        self.started: float | None = None  # when the present run began to train
        self.seconds = 0.0  # spent on earlier runs
        self.images = 0  # made in earlier runs
        self.with_seed = len({run.config.train.seed for run in runs}) > 1

    def begin(self, run: RunSpec) -> None:
        self.number += 1
        self.name = run.name if self.with_seed else run.label
        self.total, self.nimg, self.start_nimg, self.started = run.total_images, 0, 0, None
        self.show("starts")

    def data(self, done: int, total: int) -> None:
        """Images are being rendered or packed."""
        self.show(f"data: {done}/{total} images")

    def train(self, nimg: int) -> None:
        """A step ended after `nimg` images."""
        if self.started is None:  # the first step tells where a resumed run stood, and warms up
            self.started, self.start_nimg = self.clock(), nimg
        self.nimg = nimg
        self.show("training")

    def evaluate(self, nimg: int) -> None:
        self.nimg = nimg
        self.show("evaluating")

    def end(self, outcome: str) -> None:
        """The present run ended: `outcome` is one line."""
        if self.started is not None:
            self.seconds += self.clock() - self.started
            self.images += self.nimg - self.start_nimg
        self.started = None
        self.todo = self.todo[1:]
        self.line(f"[{self.number}/{self.count}] {self.name}: {outcome}")

    def remaining(self) -> tuple[float | None, float | None]:
        """Seconds until the present run and the whole grid end; None = not known yet."""
        spent = self.clock() - self.started if self.started is not None else 0.0
        made = self.nimg - self.start_nimg if self.started is not None else 0
        here = spent / made if made else None
        images = self.images + made
        usual = (self.seconds + spent) / images if images else None
        rate = here if here is not None else usual
        if rate is None or usual is None:
            return None, None
        run = rate * (self.total - self.nimg)
        return run, run + usual * sum(self.todo[1:])

    def show(self, stage: str) -> None:
        """Shows the present state."""

    def line(self, text: str) -> None:
        """Shows a line that stays."""


class PlainProgress(Progress):
    """A line now and then, for logs and pipes."""

    def __init__(
        self,
        runs: Sequence[RunSpec],
        echo: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__(runs, clock)
        self.echo = echo
        self.shown = -PLAIN_SECONDS

    def show(self, stage: str) -> None:
        if self.clock() - self.shown < PLAIN_SECONDS:
            return
        self.shown = self.clock()
        self.echo(f"[{self.number}/{self.count}] {self.name}: {stage}{self._position()}")

    def line(self, text: str) -> None:
        self.echo(text)

    def _position(self) -> str:
        if not self.nimg:
            return ""
        run, grid = self.remaining()
        where = f", {self.nimg / 1000:.2f} of {self.total / 1000:.2f} kimg"
        return where + f", {duration(run)} left (grid {duration(grid)})"


class BarProgress(Progress):
    """Two bars: the present run, and the grid."""

    def __init__(self, runs: Sequence[RunSpec], bars: Bars):
        super().__init__(runs)
        self.bars = bars
        self.all_images = sum(self.todo)
        self.run_bar = bars.add_task("", total=1, left="")
        self.grid_bar = bars.add_task("grid", total=max(self.all_images, 1), left="")

    def show(self, stage: str) -> None:
        run, grid = self.remaining()
        done = self.all_images - sum(self.todo) + self.nimg
        heading = f"[{self.number}/{self.count}] {self.name}: {stage}"
        self.bars.update(
            self.run_bar,
            description=heading.replace("[", r"\["),
            total=self.total,
            completed=self.nimg,
            left=duration(run),
        )
        self.bars.update(self.grid_bar, completed=done, left=duration(grid))

    def line(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)


@contextmanager
def progress_for(runs: Sequence[RunSpec], echo: Callable[[str], None]) -> Iterator[Progress]:
    """The progress display that fits where the output goes."""
    if not sys.stdout.isatty():
        yield PlainProgress(runs, echo)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]} left"),
    ]
    with Bars(*columns, transient=True) as bars:
        yield BarProgress(runs, bars)


def duration(seconds: float | None) -> str:
    """`4:05`, `1:02:03`; `?` where it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
