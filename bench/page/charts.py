"""Charts as plain geometry: scales, ticks and paths that a template writes as inline SVG.

Each chart is laid out for a width in pixels, once for a wide and once for a narrow screen, so that
letters keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.aggregate import Cell, Stat
from bench.lines import COLOURS, Line, wide
from bench.tables import decimals

DASHES = ("", "7 3", "2 3", "9 3 2 3")
SHAPES = ("circle", "square", "triangle", "diamond")
LETTER = 6.6  # pixels of a letter at the charts' size, about


@dataclass(frozen=True)
class Scale:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        a, b, v = self.low, self.high, value
        if self.log:
            a, b, v = math.log(a), math.log(b), math.log(v)
        share = (v - a) / (b - a) if b > a else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Positions and labels of round values within the scale."""
        values = _log_ticks(self.low, self.high, most) if self.log else []
        values = values if len(values) > 1 else _linear_ticks(self.low, self.high, most)
        return [(self.at(value), f"{value:g}") for value in values]


def scale(values: Sequence[float], start: float, end: float, zero: bool = False) -> Scale:
    """A scale with a little room at both ends, logarithmic where the values differ much."""
    low, high = min(values), max(values)
    if wide(values):
        room = (high / low) ** 0.04
        return Scale(low / room, high * room, start, end, log=True)
    if zero and low >= 0:
        low = 0.0
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(low - (0 if zero and low == 0 else room), high + room, start, end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    found: list[float] = []
    for parts in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fits = [m * 10.0**p for p in powers for m in parts if low <= m * 10.0**p <= high]
        if len(found) >= 3 or len(fits) > most + 2:
            break
        found = fits
    return [float(f"{v:.3g}") for v in found]


@dataclass(frozen=True)
class Look:
    """What tells a row from the others: colour, dash, shape."""

    colour: int  # index of the page's palette
    dash: str
    shape: str


def look(row: int, variant: int = 0) -> Look:
    """The look of the row at a place of the grid, at the `variant`-th choice of axis values."""
    return Look(
        row % len(COLOURS),
        DASHES[(row // len(COLOURS) + variant) % len(DASHES)],
        SHAPES[(row // len(COLOURS) + variant) % len(SHAPES)],
    )


def looks(cells: Sequence[Cell]) -> dict[str, Look]:
    """A look for each cell: the colour of its row, the dash and shape of its axis values."""
    rows = list(dict.fromkeys(cell.row for cell in cells))
    variants = list(dict.fromkeys(repr(sorted(cell.axes.items())) for cell in cells))
    return {
        c.name: look(rows.index(c.row), variants.index(repr(sorted(c.axes.items())))) for c in cells
    }


@dataclass(frozen=True)
class Path:
    """One line of a chart."""

    name: str
    look: Look
    line: str
    band: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A chart with two axes; all places in pixels of its own box."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_title: str
    y_title: str
    paths: list[Path] = field(default_factory=list)
    levels: list[tuple[float, str]] = field(default_factory=list)  # target lines
    marks: list[Mark] = field(default_factory=list)
    hover: list[tuple[float, float]] = field(default_factory=list)  # pixel and value of each x


@dataclass(frozen=True)
class Mark:
    """A named point."""

    name: str
    look: Look
    x: float
    y: float
    low: float
    high: float
    label: tuple[float, float, str] | None  # place and anchor of its name; None = no room
    title: str


def curves(
    lines: Sequence[tuple[Line, Look]],
    by_time: bool,
    width: int,
    height: int,
    y_title: str,
    targets: Sequence[float] = (),
) -> Chart:
    """Metric against images shown, or against seconds of training; bands from low to high."""
    left, right, top, bottom = 52.0, width - 14.0, 14.0, height - 46.0
    factor, unit = _time_unit([line for line, _ in lines]) if by_time else (1000.0, "")

    def places(line: Line) -> list[float]:
        return [v / factor for v in (line.seconds if by_time else line.images)]

    every = [v for line, _ in lines for v in places(line)]
    positive = [v for v in every if v > 0]
    if by_time or len(positive) < len(every):
        x = scale(every, left, right)
    else:  # the axis of the field, however short the run
        room = (max(every) / min(every)) ** 0.03 if max(every) > min(every) else 1.1
        x = Scale(min(every) / room, max(every) * room, left, right, log=True)
    y = scale([v for line, _ in lines for v in (*line.low, *line.high)] + [*targets], bottom, top)
    paths = []
    for line, how in lines:
        dots = [(x.at(v), y.at(m)) for v, m in zip(places(line), line.mean, strict=True)]
        up = [(x.at(v), y.at(m)) for v, m in zip(places(line), line.high, strict=True)]
        down = [(x.at(v), y.at(m)) for v, m in zip(places(line), line.low, strict=True)]
        band = _line([*up, *down[::-1]]) + "Z" if line.n > 1 and len(dots) > 1 else ""
        paths.append(Path(line.name, how, _line(dots), band, tuple(dots)))
    d = decimals(targets)
    return Chart(
        width, height, left, right, top, bottom, x.ticks(5 if width < 500 else 8), y.ticks(7),
        f"training time ({unit})" if by_time else "thousand images shown to the discriminator",
        y_title, paths, [(y.at(value), f"target {value:.{d}f}") for value in targets],
        hover=[] if by_time else [(x.at(v), v * 1000) for v in sorted(set(every))],
    )  # fmt: skip


def _time_unit(lines: Sequence[Line]) -> tuple[float, str]:
    longest = max(line.seconds[-1] for line in lines)
    if longest > 7200:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest > 600 else (1.0, "seconds")


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def scatter(
    points: Sequence[tuple[str, Look, float, float, Stat | None]],
    width: int,
    height: int,
    x_title: str,
    y_title: str,
) -> Chart:
    """Named points, with the range of their runs; names are put where they hide nothing.

    Args:
        points: name, look, x, y and, where y is a mean, what it is the mean of.
        width: of the chart.
        height: of the chart.
        x_title: under it.
        y_title: beside it.
    """
    left, right, top, bottom = 52.0, width - 14.0, 14.0, height - 46.0
    x = scale([p[2] for p in points], left, right)
    ends = [v for *_, y, stat in points for v in ((stat.min, stat.max) if stat else (y, y))]
    y = scale(ends, bottom, top)
    taken = [(x.at(p[2]) - 6, y.at(p[3]) - 6, x.at(p[2]) + 6, y.at(p[3]) + 6) for p in points]
    marks = []
    for name, how, px, py, stat in points:
        at = (x.at(px), y.at(py))
        label = _free(at, len(name) * LETTER, taken, (left, top - 8, right + 10, bottom))
        low, high = (y.at(stat.min), y.at(stat.max)) if stat else (at[1], at[1])
        title = f"{name}: {px:.3g}, {py:.3g}"
        marks.append(Mark(name, how, *at, low, high, label, title))
    return Chart(
        width, height, left, right, top, bottom, x.ticks(5), y.ticks(6), x_title, y_title,
        marks=marks,
    )  # fmt: skip


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _free(
    at: tuple[float, float], length: float, taken: list[Box], inside: Box
) -> tuple[float, float, str] | None:
    """Where a name fits beside its point, which is then taken too; None = nowhere."""
    x, y = at
    for dx, dy, anchor in (
        (9, 4, "start"), (-9, 4, "end"), (0, -10, "middle"), (0, 19, "middle"),
        (8, -8, "start"), (8, 17, "start"), (-8, -8, "end"), (-8, 17, "end"),
        (-4, -20, "start"), (-4, 28, "start"), (4, -20, "end"), (4, 28, "end"),
        (-4, -33, "start"), (4, -33, "end"),
    ):  # fmt: skip
        start = {"start": 0.0, "end": -length, "middle": -length / 2}[anchor]
        box = (x + dx + start, y + dy - 11, x + dx + start + length, y + dy + 3)
        if box[0] < inside[0] or box[2] > inside[2] or box[1] < inside[1] or box[3] > inside[3]:
            continue
        if not any(_meet(box, other) for other in taken):
            taken.append(box)
            return (round(x + dx, 1), round(y + dy, 1), anchor)
    return None


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True)
class Strip:
    """A row's runs on a scale that all rows share."""

    dots: tuple[float, ...]
    low: float
    high: float
    mean: float


def strips(stats: Sequence[Stat | None], width: int = 150) -> tuple[list[Strip | None], Scale]:
    """Every run of every row as a dot on one scale."""
    values = [v for stat in stats if stat for v in stat.points]
    at = scale(values or [0.0, 1.0], 6, width - 6)
    found = [
        Strip(tuple(map(at.at, stat.points)), at.at(stat.min), at.at(stat.max), at.at(stat.mean))
        if stat
        else None
        for stat in stats
    ]
    return found, at


@dataclass(frozen=True)
class Slope:
    """Two orders of the same rows beside each other."""

    width: int
    height: int
    left: float
    right: float
    rows: tuple[tuple[str, Look, float, float, str, str], ...]  # y left, y right, labels


def slope(
    rows: Sequence[tuple[str, Look, float, float]], width: int, room: float, sign: int = 1
) -> Slope:
    """Ranks by the paper (left) and by ours (right); ties share a place's order.

    Args:
        rows: name, look, the paper's value (lower is better) and ours.
        width: of the chart.
        room: for the names at each side.
        sign: 1 = lower is better in ours.
    """
    step = 24.0
    theirs = sorted(range(len(rows)), key=lambda i: rows[i][2])
    ours = sorted(range(len(rows)), key=lambda i: sign * rows[i][3])
    lines = []
    for i, (name, how, paper, value) in enumerate(rows):
        a, b = (18 + step * order.index(i) for order in (theirs, ours))
        left = f"{name}  {paper:g}"
        lines.append((name, how, a, b, left, f"{value:.3g}  {name}"))
    return Slope(width, int(step * len(rows) + 20), room, width - room, tuple(lines))


def heat_unit(ratios: Sequence[float]) -> float:
    """Octaves of one step, such that the farthest of the ratios has the darkest ground."""
    farthest = max((abs(math.log2(ratio)) for ratio in ratios if ratio > 0), default=0.0)
    return next((unit for unit in (0.125, 0.25, 0.5) if farthest <= 4.4 * unit), 1.0)


def heat_step(ratio: float, unit: float) -> int:
    """-4 to 4: how many units a ratio is from 1."""
    return max(-4, min(4, round(math.log2(ratio) / unit))) if ratio > 0 else -4
