"""Progress of a grid: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.config.spec import RunSpec

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PLAIN_SECONDS = 10.0  # at most one plain line of progress in so many seconds


Show = Callable[[str, int, int], None]  # what is counted, done, in all


@dataclass
class RunInProgress:
    """A run that is being done."""

    number: int  # in the order of their beginnings, from 1
    name: str
    total: int  # images
    nimg: int = 0
    start_nimg: int = 0  # where this session found it
    started: float | None = None  # when its first step ended

    def spent(self, now: float) -> tuple[float, int]:
        """Seconds and images of this session."""
        if self.started is None:
            return 0.0, 0
        return now - self.started, self.nimg - self.start_nimg


class Progress:
    """Keeps count of a grid's runs and estimates what remains; shows nothing by itself.

    Work is counted in images. The rate of a running run includes its evaluations; runs that are
    still to come are expected to take as long per image as those so far, and to be done as many at
    a time as now. What is reported is of the selected run, which `begin` or `select` named last.
    """

    def __init__(self, runs: Sequence[RunSpec], clock: Callable[[], float] = time.monotonic):
        self.count = len(runs)
        self.begun = 0
        self.waiting = sum(run.total_images for run in runs)  # images of runs that have not begun
        self.running: dict[str, RunInProgress] = {}
        self.selected = RunInProgress(0, "", 0)
        self.clock = clock
        self.seconds = 0.0  # spent on ended runs
        self.images = 0  # made in ended runs
        self.with_seed = len({run.config.train.seed for run in runs}) > 1

    def begin(self, run: RunSpec) -> None:
        name = run.name if self.with_seed else run.label
        self.waiting -= run.total_images
        self.begun += 1
        self.selected = RunInProgress(self.begun, name, run.total_images)
        self.running[run.run_id] = self.selected
        self.show("starts")

    def select(self, run: RunSpec) -> None:
        """Select a run that has begun: what is reported from here on is about it."""
        self.selected = self.running[run.run_id]

    def data(self, done: int, total: int) -> None:
        """Images are being rendered or packed."""
        self.show(f"data: {done}/{total} images")

    def train(self, nimg: int) -> None:
        """A step ended after `nimg` images."""
        run = self.selected
        if run.started is None:  # the first step tells where a resumed run stood, and warms up
            run.started, run.start_nimg = self.clock(), nimg
        run.nimg = nimg
        self.show("training")

    def evaluate(self, nimg: int) -> None:
        self.selected.nimg = nimg
        self.show("evaluating")

    def end(self, outcome: str) -> None:
        """The run ended: `outcome` is one line."""
        seconds, images = self.selected.spent(self.clock())
        self.seconds += seconds
        self.images += images
        self.running = {k: p for k, p in self.running.items() if p is not self.selected}
        self.line(f"{self.title()}: {outcome}")

    def title(self) -> str:
        """The selected run and its number among all."""
        return f"[{self.selected.number}/{self.count}] {self.selected.name}"

    def remaining(self) -> tuple[float | None, float | None]:
        """Seconds until the selected run and the whole grid end; None = not known yet."""
        clock = self.clock()
        spent = [p.spent(clock) for p in self.running.values()]
        images = self.images + sum(made for _, made in spent)
        if not images:
            return None, None
        usual = (self.seconds + sum(seconds for seconds, _ in spent)) / images
        seconds, made = self.selected.spent(clock)
        run = (seconds / made if made else usual) * (self.selected.total - self.selected.nimg)
        others = sum(p.total - p.nimg for p in self.running.values() if p is not self.selected)
        grid = (run + usual * (others + self.waiting)) / max(len(self.running), 1)
        return run, max(run, grid)

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
        self.echo(f"{self.title()}: {stage}{self._position()}")

    def line(self, text: str) -> None:
        self.echo(text)

    def _position(self) -> str:
        now = self.selected
        if not now.nimg:
            return ""
        run, grid = self.remaining()
        where = f", {now.nimg / 1000:.2f} of {now.total / 1000:.2f} kimg"
        return where + f", {duration(run)} left (grid {duration(grid)})"


class BarProgress(Progress):
    """A bar for each run in progress, and one for the grid."""

    def __init__(self, runs: Sequence[RunSpec], bars: Bars):
        super().__init__(runs)
        self.bars = bars
        self.all_images = self.waiting
        self.run_bars: dict[int, TaskID] = {}  # by the run's number
        self.grid_bar = bars.add_task("grid", total=max(self.all_images, 1), left="")

    def show(self, stage: str) -> None:
        run, grid = self.remaining()
        now = self.selected
        if now.number not in self.run_bars:
            self.run_bars[now.number] = self.bars.add_task("", total=1, left="")
        self.bars.update(
            self.run_bars[now.number],
            description=f"{self.title()}: {stage}",
            total=now.total,
            completed=now.nimg,
            left=duration(run),
        )
        rest = self.waiting + sum(p.total - p.nimg for p in self.running.values())
        self.bars.update(self.grid_bar, completed=self.all_images - rest, left=duration(grid))

    def end(self, outcome: str) -> None:
        super().end(outcome)
        if (bar := self.run_bars.pop(self.selected.number, None)) is not None:
            self.bars.remove_task(bar)

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
        TextColumn("{task.description}", markup=False),  # a label's brackets are its own
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]} left"),
    ]
    with Bars(*columns, transient=True) as bars:
        yield BarProgress(runs, bars)


@contextmanager
def counter_for(echo: Callable[[str], None]) -> Iterator[Show]:
    """Counts what is done before or without runs: a bar, or a line now and then."""
    if not sys.stdout.isatty():
        shown = time.monotonic()

        def line(what: str, done: int, total: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > PLAIN_SECONDS:
                shown = time.monotonic()
                echo(f"{what}: {done}/{total}")

        yield line
        return
    from rich.progress import Progress as Bars

    with Bars(transient=True) as bars:
        task = bars.add_task("", total=None)

        def bar(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield bar


def duration(seconds: float | None) -> str:
    """`4:05`, `1:02:03`; `?` where it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
