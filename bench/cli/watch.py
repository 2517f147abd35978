"""do=watch: the progress of every run of a grid, on a terminal again and again until the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.config.metrics import METRICS
from bench.config.paths import RunPaths
from bench.config.spec import Grid, RunSpec
from bench.config.terminal import aligned
from bench.dispatch import slurm_queue
from bench.run.progress import duration
from bench.store import record as records
from bench.store.eta import seconds_per_image
from bench.store.record import RunState
from projgan.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

TICK, QUEUED_TICK = 2.0, 15.0  # seconds between two readings; a scheduler is asked less often
BAR = 12  # signs of a progress bar
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "hung": "red",
           "damaged": "red", "queued": "yellow", "stopped": "yellow"}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A run at one moment."""

    spec: RunSpec
    state: RunState
    left: float | None  # seconds that its training and measuring will take. None = not known

    @property
    def share(self) -> float:
        return min(1.0, self.state.nimg / self.spec.total_images)


class Watch:
    """Reads the states of a grid's runs, and remembers how fast they get on."""

    def __init__(
        self, grid: Grid, runs_dir: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.grid, self.runs_dir, self.clock = grid, runs_dir, clock
        self.first: dict[str, tuple[float, int]] = {}  # run id -> time and images at first sight

    def lines(self) -> list[Line]:
        """The state of every run now, and what each has left."""
        now, usual = self.clock(), self._usual_pace()
        lines = []
        states = slurm_queue.run_states(self.grid.runs, self.runs_dir)
        for spec, state in zip(self.grid.runs, states, strict=True):
            pace = self._pace(spec, state, now) or usual
            left = None if pace is None else pace * (spec.total_images - state.nimg)
            lines.append(Line(spec, state, 0.0 if state.settled else left))
        return lines

    def _pace(self, spec: RunSpec, state: RunState, now: float) -> float | None:
        """Seconds per image of a run since it was first seen running."""
        if state.state != "running":
            self.first.pop(spec.run_id, None)
            return None
        then, images = self.first.setdefault(spec.run_id, (now, state.nimg))
        if state.nimg > images and now > then:
            return (now - then) / (state.nimg - images)
        return None

    def _usual_pace(self) -> float | None:
        """Seconds per image of this grid's runs so far, evaluations included."""
        paces = []
        for spec in self.grid.runs:
            with suppress(UserError):
                record = records.load(RunPaths(self.runs_dir / spec.run_id).record)
                paces.append(seconds_per_image(record) if record else None)
        known = [pace for pace in paces if pace is not None]
        return median(known) if known else None


def rows(grid: Grid, lines: Sequence[Line]) -> list[list[str]]:
    """The table's texts, its head first."""
    metric = grid.report.rank_by or ""
    header = METRICS[metric].header if metric in METRICS else "latest"
    found = [["run", "row", "state", "progress", "kimg", header, "left", "note"]]
    for line in lines:
        state = line.state
        value = (state.metrics or {}).get(metric)
        full = round(line.share * BAR)
        found.append([
            line.spec.run_id,
            line.spec.name if len(grid.seeds) > 1 else line.spec.label,
            state.state,
            f"{'█' * full}{'·' * (BAR - full)} {line.share:4.0%}",
            f"{state.nimg / 1000:g}/{line.spec.total_images / 1000:g}",
            "" if value is None else f"{value:.4g}",
            "" if state.settled else duration(line.left),
            state.note,
        ])  # fmt: skip
    return found


def summary(lines: Sequence[Line]) -> str:
    """Runs by state, and the time until all are done with as many at a time as now."""
    states = Counter(line.state.state for line in lines)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    left = [line.left for line in lines if not line.state.settled]
    known = [seconds for seconds in left if seconds is not None]
    text = f"{len(lines)} runs: {counts}"
    if not left:
        return text
    if not known:
        return f"{text}; time left not known yet"
    at_once = max(states["running"], 1)
    seconds = max(max(known), sum(known) / at_once * len(left) / len(known))
    return f"{text}; about {duration(seconds)} left with {at_once} at a time"


def watch(grid: Grid, runs_dir: Path, echo: Callable[[str], None]) -> bool:
    """Shows the table until every run is settled or the user ends it; once without a terminal.

    Returns:
        Whether no run failed.
    """
    watched = Watch(grid, runs_dir)
    lines = watched.lines()
    if not sys.stdout.isatty():
        echo("\n".join(aligned(rows(grid, lines))))
        echo(summary(lines))
        return _none_failed(lines)
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        with Live(_table(grid, lines), console=console, auto_refresh=False) as live:
            while not all(line.state.settled for line in lines):
                queued = any(line.state.state == "queued" for line in lines)
                time.sleep(QUEUED_TICK if queued else TICK)
                lines = watched.lines()
                live.update(_table(grid, lines), refresh=True)
    except KeyboardInterrupt:  # the runs go on; only the watching ends
        pass
    echo(summary(lines))
    return _none_failed(lines)


def _none_failed(lines: Sequence[Line]) -> bool:
    return not any(line.state.state == "failed" for line in lines)


def _table(grid: Grid, lines: Sequence[Line]) -> Table:
    from rich.table import Table as RichTable
    from rich.text import Text

    head, *texts = rows(grid, lines)
    table = RichTable(title=f"{grid.name} ({grid.scale})", caption=summary(lines), box=None)
    for number, name in enumerate(head):
        is_number = number in (4, 5, 6)
        table.add_column(
            name, justify="right" if is_number else "left", no_wrap=number in (0, 2, 3)
        )
    for text, line in zip(texts, lines, strict=True):
        cells = [Text(part) for part in text]  # a label's brackets are its own
        cells[2].stylize(COLOURS.get(line.state.state, ""))
        table.add_row(*cells)
    return table
