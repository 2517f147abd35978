"""do=watch: how far every run of a grid is, on a terminal again and again until all is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.config.metrics import METRICS
from bench.config.paths import RunPaths
from bench.config.spec import Grid, RunSpec
from bench.config.terminal import aligned
from bench.dispatch import slurm_queue
from bench.run.progress import duration
from bench.store import record as records
from bench.store.record import RunState
from projgan.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

TICK, QUEUED_TICK = 2.0, 15.0  # seconds between two looks; a scheduler is asked less often
BAR = 12  # signs of a progress bar
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "hung": "red",
           "damaged": "red", "queued": "yellow", "stopped": "yellow"}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A run at one look."""

    spec: RunSpec
    at: RunState
    left: float | None  # seconds that its training and measuring will take. None = not known

    @property
    def share(self) -> float:
        return min(1.0, self.at.nimg / self.spec.total_images)


class Watch:
    """Looks at a grid's runs, and remembers how fast they move."""

    def __init__(
        self, grid: Grid, runs_dir: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.grid, self.runs_dir, self.clock = grid, runs_dir, clock
        self.first: dict[str, tuple[float, int]] = {}  # run id -> time and images at first sight

    def look(self) -> list[Line]:
        """Where every run stands, and what each that runs has left."""
        now = self.clock()
        at = slurm_queue.run_states(self.grid.runs, self.runs_dir)
        usual = self._usual()
        lines = []
        for spec, standing in zip(self.grid.runs, at, strict=True):
            left = None
            if standing.settled:
                left = 0.0
            elif (pace := self._pace(spec, standing, now) or usual) is not None:
                left = pace * (spec.total_images - standing.nimg)
            lines.append(Line(spec, standing, left))
        return lines

    def _pace(self, spec: RunSpec, at: RunState, now: float) -> float | None:
        """Seconds per image of a run since it was first seen moving."""
        if at.state != "running":
            self.first.pop(spec.run_id, None)
            return None
        then, images = self.first.setdefault(spec.run_id, (now, at.nimg))
        if at.nimg > images and now > then:
            return (now - then) / (at.nimg - images)
        return None

    def _usual(self) -> float | None:
        """Seconds per image of this grid's runs so far, evaluations included."""
        paces = []
        for spec in self.grid.runs:
            try:
                record = records.load(RunPaths(self.runs_dir / spec.run_id).record)
            except UserError:
                continue
            if record and record["snapshots"] and (seconds := record["time"]["total_s"]):
                paces.append(seconds / record["snapshots"][-1]["nimg"])
        return median(paces) if paces else None


def rows(grid: Grid, lines: Sequence[Line]) -> list[list[str]]:
    """The table's texts, its head first."""
    metric = grid.report.rank_by or ""
    header = METRICS[metric].header if metric in METRICS else "latest"
    found = [["run", "row", "state", "progress", "kimg", header, "left", "note"]]
    for line in lines:
        metrics = line.at.metrics or {}
        value = metrics.get(metric)
        full = round(line.share * BAR)
        left = "" if line.at.settled else duration(line.left)
        found.append(
            [
                line.spec.run_id,
                line.spec.name if len(grid.seeds) > 1 else line.spec.label,
                line.at.state,
                f"{'█' * full}{'·' * (BAR - full)} {line.share:4.0%}",
                f"{line.at.nimg / 1000:g}/{line.spec.total_images / 1000:g}",
                "" if value is None else f"{value:.4g}",
                left,
                line.at.note,
            ]
        )
    return found


def summary(lines: Sequence[Line]) -> str:
    """How many runs stand where, and when all will be done at the present number at a time."""
    states = [line.at.state for line in lines]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    left = [line.left for line in lines if not line.at.settled]
    known = [seconds for seconds in left if seconds is not None]
    text = f"{len(lines)} runs: {counts}"
    if not left:
        return text
    if not known:
        return f"{text}; time left not known yet"
    at_once = max(states.count("running"), 1)
    seconds = max(max(known), sum(known) / at_once * len(left) / len(known))
    return f"{text}; about {duration(seconds)} left with {at_once} at a time"


def watch(grid: Grid, runs_dir: Path, echo: Callable[[str], None]) -> bool:
    """Shows the table until every run is settled or the user ends it; once where no one looks.

    Returns:
        Whether no run failed.
    """
    eye = Watch(grid, runs_dir)
    lines = eye.look()
    if not sys.stdout.isatty():
        echo("\n".join(aligned(rows(grid, lines))))
        echo(summary(lines))
        return _good(lines)
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        with Live(_table(grid, lines), console=console, auto_refresh=False) as live:
            while not all(line.at.settled for line in lines):
                queued = any(line.at.state == "queued" for line in lines)
                time.sleep(QUEUED_TICK if queued else TICK)
                lines = eye.look()
                live.update(_table(grid, lines), refresh=True)
    except KeyboardInterrupt:  # the runs go on; only the watching ends
        pass
    echo(summary(lines))
    return _good(lines)


def _good(lines: Sequence[Line]) -> bool:
    return not any(line.at.state == "failed" for line in lines)


def _table(grid: Grid, lines: Sequence[Line]) -> Table:
    from rich.table import Table as RichTable
    from rich.text import Text

    head, *texts = rows(grid, lines)
    table = RichTable(title=f"{grid.name} ({grid.scale})", caption=summary(lines), box=None)
    for name in head:
        right: Any = "right" if name in ("kimg", "left", head[5]) else "left"
        table.add_column(name, justify=right, no_wrap=name in ("run", "progress", "state"))
    for text, line in zip(texts, lines, strict=True):
        colour = COLOURS.get(line.at.state, "")
        table.add_row(*(Text(part, style=colour if i == 2 else "") for i, part in enumerate(text)))
    return table
