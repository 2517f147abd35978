"""Charts as plain geometry: scales, ticks and paths that a template writes as inline SVG.

Each chart is laid out for a width in pixels, once for a wide and once for a narrow screen, so that
letters keep their size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.aggregate import Cell, Stat
from bench.lines import COLOURS, Line, standing, wide
from bench.tables import brief, decimals

DASHES = ("", "7 3", "2 3", "9 3 2 3")
SHAPES = ("circle", "square", "triangle", "diamond")
MOST_NAMES = 60  # beside the points of a chart
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


def look(row: int, variant: int | None = None) -> Look:
    """The look of a row's line at a choice of axis values, as `bench.lines.standing` counts them.

    A row keeps its colour and its shape; the dashes are of the axis values, where there are any.
    """
    again = row // len(COLOURS)
    return Look(
        row % len(COLOURS),
        DASHES[(again if variant is None else variant) % len(DASHES)],
        SHAPES[(again + (variant or 0) // len(DASHES)) % len(SHAPES)],
    )


def looks(cells: Sequence[Cell]) -> dict[str, Look]:
    """A look for each cell."""
    at = standing(cells)
    return {cell.name: look(*where) for cell, where in zip(cells, at, strict=True)}


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
    levels: list[Level] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    hover: list[tuple[float, float]] = field(default_factory=list)  # pixel and value of each x


@dataclass(frozen=True)
class Level:
    """A target: a line across the chart, and its name where it hides least."""

    y: float
    text: str
    label: tuple[float, float, str]  # place and anchor


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
    leader: tuple[float, float] | None  # where a line from the point to its name ends
    title: str


def curves(
    lines: Sequence[tuple[Line, Look]],
    by_time: bool,
    width: int,
    height: int,
    y_title: str,
    targets: Sequence[float] = (),
    x_title: str = "thousand images shown to the discriminator",
    factor: float = 1000.0,
) -> Chart:
    """Metric against images shown, or against seconds of training; bands from low to high.

    Args:
        lines: with their looks.
        by_time: against the lines' seconds in a fitting unit, else against their images.
        width: in pixels.
        height: in pixels.
        y_title: beside it.
        targets: values of the metric that are marked.
        x_title: under it, where it is not time.
        factor: what the lines' images are divided by.
    """
    left, right, top, bottom = 52.0, width - 14.0, 14.0, height - 46.0
    if by_time:
        factor, unit = _time_unit([line for line, _ in lines])
        x_title = f"training time ({unit})"

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
    d, inside = decimals(targets), (left, top, right, bottom)
    levels = [_level(y.at(value), f"target {value:.{d}f}", paths, inside) for value in targets]
    return Chart(
        width, height, left, right, top, bottom, x.ticks(5 if width < 500 else 8), y.ticks(7),
        x_title, y_title, paths, levels,
        hover=[] if by_time else [(x.at(v), v * factor) for v in sorted(set(every))],
    )  # fmt: skip


def _level(y: float, text: str, paths: Sequence[Path], inside: Box) -> Level:
    """A target's line, with its name at the end and on the side where the fewest curves pass."""
    length = len(text) * LETTER
    places: list[tuple[int, int, Label]] = []
    for end, anchor in ((inside[2], "end"), (inside[0], "start")):
        for base in (y - 5, y + 14):
            start = end - length if anchor == "end" else end
            box = (start, base - 11, start + length, base + 3)
            if box[1] >= inside[1] and box[3] <= inside[3]:
                hidden = sum(_meet(box, part) for path in paths for part in _parts(path))
                places.append((hidden, len(places), (end, round(base, 1), anchor)))
    return Level(y, text, min(places)[2] if places else (inside[2], y - 5, "end"))


def _parts(path: Path) -> list[Box]:
    """A curve as small boxes that lie along it."""
    found = []
    for (ax, ay), (bx, by) in itertools.pairwise(path.dots):
        steps = max(1, round(abs(bx - ax) / 8))
        for i in range(steps + 1):
            x, y = ax + (bx - ax) * i / steps, ay + (by - ay) * i / steps
            found.append((x - 3, y - 3, x + 3, y + 3))
    return found


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
    inside = (left, top - 8, right + 10, bottom)
    taken = [(x.at(p[2]) - 6, y.at(p[3]) - 6, x.at(p[2]) + 6, y.at(p[3]) + 6) for p in points]
    ranges = [
        (x.at(px) - 2, y.at(stat.max), x.at(px) + 2, y.at(stat.min))
        for *_, px, _, stat in points
        if stat
    ]
    places = [(x.at(p[2]), y.at(p[3])) for p in points]
    labels = _labels([p[0] for p in points], places, taken, ranges, inside)
    marks = []
    for (name, how, px, py, stat), at, label in zip(points, places, labels, strict=True):
        low, high = (y.at(stat.min), y.at(stat.max)) if stat else (at[1], at[1])
        end = _nearest(label, len(name) * LETTER, at) if label else at
        leader = end if math.dist(end, at) > 14 else None
        title = f"{name}: {px:.3g}, {py:.3g}"
        marks.append(Mark(name, how, *at, low, high, label, leader, title))
    return Chart(
        width, height, left, right, top, bottom, x.ticks(5), y.ticks(6), x_title, y_title,
        marks=marks,
    )  # fmt: skip


Box = tuple[float, float, float, float]  # left, top, right, bottom


Label = tuple[float, float, str]  # x, y of the base line, anchor


def _labels(
    names: Sequence[str],
    places: Sequence[tuple[float, float]],
    taken: Sequence[Box],
    ranges: Sequence[Box],
    inside: Box,
) -> list[Label | None]:
    """A place for each name; of a few orders to give them out in, that which serves them best.

    Among very many points no name could be read: there the pointer alone tells them.
    """
    if len(names) > MOST_NAMES:
        return [None] * len(names)
    by_x = sorted(range(len(names)), key=lambda i: places[i])
    by_y = sorted(range(len(names)), key=lambda i: places[i][::-1])
    by_need: list[int] = []
    orders = [by_x, by_x[::-1], by_y, by_y[::-1]] if len(names) <= 24 else [by_x]
    best: tuple[float, list[Label | None]] | None = None
    while orders:
        order = orders.pop(0)
        found: list[Label | None] = [None] * len(names)
        boxes, total = list(taken), 0.0
        for i in order:
            length = len(names[i]) * LETTER
            cost, label = _free(places[i], length, boxes, ranges, inside)
            total += cost
            if label:
                found[i] = label
                boxes.append(_box(label, length))
        if best is None or total < best[0]:
            best = total, found
        if not orders and order is not by_need and None in best[1]:
            had = best[1]
            by_need = [i for i in order if had[i] is None] + [i for i in order if had[i]]
            orders.append(by_need)  # those that had none choose first
    return best[1] if best else []


def _free(
    at: tuple[float, float],
    length: float,
    taken: Sequence[Box],
    ranges: Sequence[Box],
    inside: Box,
) -> tuple[float, Label | None]:
    """The best place for a name by its point, and what it costs; None = it would hide something.

    Near is better than far and level better than not; to stand on a range costs as much as to be 20
    pixels off, and a leader across a point or a name more.
    """
    best: tuple[float, Label | None] = (1000.0, None)
    for away, turn in itertools.product((9, 16, 26, 38, 52, 68), range(16)):
        angle = turn * math.pi / 8
        dx, dy = away * math.cos(angle), away * math.sin(angle)
        anchor = "middle" if turn % 8 == 4 else "start" if dx > 0 else "end"
        label = (round(at[0] + dx, 1), round(at[1] + dy + 4, 1), anchor)
        box, end = _box(label, length), _nearest(label, length, at)
        cost = math.dist(end, at) + (4 if turn % 8 else 0)
        if cost >= best[0]:
            continue
        if box[0] < inside[0] or box[2] > inside[2] or box[1] < inside[1] or box[3] > inside[3]:
            continue
        if any(_meet(box, other) for other in taken):
            continue
        cost += 20 * sum(_meet(box, other) for other in ranges)
        cost += 60 * sum(_crosses(at, end, other) for other in taken)
        if cost < best[0]:
            best = cost, label
    return best


def _crosses(at: tuple[float, float], end: tuple[float, float], other: Box) -> bool:
    """Whether a leader passes over something, other than where it begins."""
    for i in range(1, 13):
        x, y = at[0] + (end[0] - at[0]) * i / 12, at[1] + (end[1] - at[1]) * i / 12
        if math.dist((x, y), at) > 12 and _meet((x - 1, y - 1, x + 1, y + 1), other):
            return True
    return False


def _box(label: Label, length: float) -> Box:
    x, y, anchor = label
    start = x + {"start": 0.0, "end": -length, "middle": -length / 2}[anchor]
    return (start, y - 11, start + length, y + 3)


def _nearest(label: Label, length: float, at: tuple[float, float]) -> tuple[float, float]:
    """The place of a name that is nearest to its point: where a leader ends."""
    left, top, right, bottom = _box(label, length)
    return min(max(at[0], left), right), min(max(at[1], top), bottom)


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
        lines.append((name, how, a, b, left, f"{brief(value)}  {name}"))
    return Slope(width, int(step * len(rows) + 20), room, width - room, tuple(lines))


def heat_unit(ratios: Sequence[float]) -> float:
    """Octaves of one step, such that the farthest of the ratios has the darkest ground."""
    farthest = max((abs(math.log2(ratio)) for ratio in ratios if ratio > 0), default=0.0)
    return next((unit for unit in (0.125, 0.25, 0.5) if farthest <= 4.4 * unit), 1.0)


def heat_step(ratio: float, unit: float) -> int:
    """-4 to 4: how many units a ratio is from 1."""
    return max(-4, min(4, round(math.log2(ratio) / unit))) if ratio > 0 else -4
