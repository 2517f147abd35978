"""Every figure, for files and for the page: metrics over training, against an axis, against size.

The same records give the same bytes. On the page a figure is SVG in the text of the page itself,
with the page's colours, the links to its rows and the values as titles.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from bench.analysis.cells import Cell, Stat
from bench.config.columns import Column
from bench.report import fonts
from bench.report.lines import (
    COLOURS,
    Line,
    axis_points,
    curve_points,
    lines_of,
    looks_of,
    place,
    to_csv,
    wide,
)
from bench.report.tables import brief, decimals

DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "os^Dv<>pPX*h"
MOST_NAMES = 60  # beside the points of a chart
LETTER = 6.6  # pixels of a letter on the page, about
RULE, SOFT = "#e3e3e3", "#555555"  # lines of the ground, and what is no curve
MOST = 40  # lines of a figure; of more, none could be told from the others

NO_DATE = {"CreationDate": None, "Creator": None, "Producer": None}

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "projgan",  # ids of clip paths would else be random
    "svg.fonttype": "path",  # letters as outlines: looks the same without our fonts
    "pdf.fonttype": 42,  # letters stay letters, of a TrueType font that the file holds
    "text.parse_math": False,  # a dollar sign of a label is one
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}


def draw(
    cells: Sequence[Cell],
    metric: str,
    column: Column,
    lower_is_better: bool = True,
    log_x: bool | None = None,
    targets: Sequence[float] = (),
    pdf: bool = False,
) -> dict[str, bytes]:
    """Draws one metric of a grid.

    Args:
        cells: One line each, coloured by their place.
        metric: Key of the metric in the records.
        column: Its header and unit.
        lower_is_better: Which end of the ranking the legend begins with, and which lines are drawn
            where there are more than `MOST`; the page beside the figure draws all.
        log_x: Logarithmic axis of images. None = where its ends differ much (`lines.wide`).
        targets: Values to reach, each drawn as a level line.
        pdf: Write that form too; it takes as long as the other two together.

    Returns:
        `curves/<metric>.png`, `.svg` and `.csv` (every point drawn, run by run); empty
        where no run has two snapshots with the metric.
    """
    lines = lines_of(cells, metric)
    if not any(len(x.images) > 1 for x in lines):
        return {}
    return {
        **_saved(
            f"curves/{metric}",
            lambda: _figure(lines, column, lower_is_better, log_x, targets),
            [x.name for x in lines],
            pdf,
        ),
        f"curves/{metric}.csv": to_csv(curve_points(cells, metric)).encode(),
    }


def draw_axis(
    cells: Sequence[Cell],
    metric: str,
    column: Column,
    axis: str,
    pdf: bool = False,
) -> dict[str, bytes]:
    """Draws the last value of a metric against an axis of the grid (Figure 4 right: subsets).

    Args:
        cells: One point each; those of a row make a line.
        metric: Key of the metric in the records.
        column: Its header and unit.
        axis: Dotted key of the axis.
        pdf: Write that form too.

    Returns:
        `curves/<metric>_by_<axis>.png`, `.svg` and `.csv`; empty where `by_axis` is.
    """
    rows = by_axis(cells, metric, axis)
    if not rows:
        return {}
    name = f"curves/{metric}_by_{axis.split('.')[-1]}"
    return {
        **_saved(name, lambda: _axis_figure(rows, column, axis), list(rows), pdf),
        f"{name}.csv": to_csv(axis_points(cells, metric, axis)).encode(),
    }


def by_axis(cells: Sequence[Cell], metric: str, axis: str) -> dict[str, list[tuple[float, Stat]]]:
    """The last values of a metric by row: place on the axis, smallest first, and its runs' values.

    Empty = the axis is not one of numbers, or no row has two points.
    """
    rows: dict[str, list[tuple[float, Stat]]] = {cell.row: [] for cell in cells}
    for cell in cells:
        if (where := place(cell, axis)) is None:
            return {}
        if stat := cell.stat(metric):
            rows[cell.row].append((where, stat))
    ordered = {row: sorted(points, key=lambda point: point[0]) for row, points in rows.items()}
    return ordered if any(len(points) > 1 for points in rows.values()) else {}


def _saved(
    name: str, build: Callable[[], Figure], labels: Sequence[str], pdf: bool
) -> dict[str, bytes]:
    """A figure as PNG, SVG and perhaps PDF, whatever style the user's matplotlib has."""
    forms = {kind: io.BytesIO() for kind in ("png", "svg", *(["pdf"] if pdf else []))}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"font.family": fonts.families(labels)})
        figure = build()
        figure.savefig(forms["png"], format="png", dpi=160, metadata={"Software": None})
        figure.set_layout_engine("none")  # as the first one laid it out
        figure.savefig(forms["svg"], format="svg", metadata={"Date": None, "Creator": None})
        if pdf:
            figure.savefig(forms["pdf"], format="pdf", metadata=NO_DATE)
    return {f"{name}.{kind}": form.getvalue() for kind, form in forms.items()}


def _axis_figure(
    rows: Mapping[str, Sequence[tuple[float, Stat]]], column: Column, axis: str
) -> Figure:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    _against_axis(figure.subplots(), rows, column, axis)
    _legend(figure, loc="outside upper center", ncols=min(len(rows), 3))
    return figure


def _against_axis(
    axes: Any, rows: Mapping[str, Sequence[tuple[float, Stat]]], column: Column, axis: str
) -> None:
    for i, (name, points) in enumerate(rows.items()):
        at, stats = [p for p, _ in points], [stat for _, stat in points]
        how = look(i, None)
        axes.plot(at, [stat.mean for stat in stats], label=name, clip_on=False, **how)
        low, high = [stat.min for stat in stats], [stat.max for stat in stats]
        axes.fill_between(at, low, high, color=how["color"], alpha=0.15, lw=0, clip_on=False)
    axes.set_xlabel("training images" if axis == "data.subset" else axis)
    axes.set_ylabel(_title(column))
    places = sorted({p for points in rows.values() for p, _ in points})
    if wide(places):
        _log(axes, "x", places)
    axes.set_xticks(places, [f"{p:g}" for p in places])
    axes.minorticks_off()
    values = [v for points in rows.values() for _, stat in points for v in stat.points]
    if wide(values):
        _log(axes, "y", values)


def look(row: int, variant: int | None) -> dict[str, Any]:
    """Colour, dashes and marker of the line of a row at a choice of axis values."""
    dash = row // len(COLOURS) if variant is None else variant
    return {
        "color": COLOURS[row % len(COLOURS)],
        "linestyle": DASHES[dash % len(DASHES)],
        "marker": MARKERS[row % len(MARKERS)],
    }


def looks(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """The look of each cell by its name."""
    return {c.name: look(*at) for c, at in zip(cells, looks_of(cells), strict=True)}


def _title(column: Column) -> str:
    return f"{column.header} ({column.unit})" if column.unit else column.header


def _figure(
    lines: Sequence[Line],
    column: Column,
    lower_is_better: bool,
    log_x: bool | None,
    targets: Sequence[float],
) -> Figure:
    # Best at the end first: the legend reads as the ranking.
    order = sorted(lines, key=lambda x: x.mean[-1], reverse=not lower_is_better)[:MOST]
    left_out = len(lines) - len(order)
    figure = Figure(figsize=(10.5, max(4.2, 1.0 + 0.23 * len(order))), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, by_time in zip(both, (False, True), strict=True):
        _over_training(axes, order, column, by_time, log_x, targets)
    both[1].set_ylabel("")
    places = decimals(x.mean[-1] for x in order)
    sizes = {x.n for x in order}
    for drawn, x in zip(both[0].lines, order, strict=False):
        n = f"  (n={x.n})" if len(sizes) > 1 else ""
        drawn.set_label(f"{x.name}  {x.mean[-1]:.{places}f}{n}")
    for drawn, value in zip(both[0].lines[len(order) :], targets, strict=True):
        drawn.set_label(f"target  {value:.{places}f}")
    which = f"best {len(order)} of {left_out + len(order)}" if left_out else "best first"
    head = f"at the end, {which}"
    if max(sizes) > 1:
        head = f"mean at the end, {which}\nband: lowest to highest run"
        head += f" (n={max(sizes)})" if len(sizes) == 1 else ""
    _legend(
        figure, loc="outside right center", title=head, alignment="left",
        handlelength=3.6,  # long enough for dashes
    )  # fmt: skip
    return figure


def _over_training(
    axes: Any,
    lines: Sequence[Line],
    column: Column,
    by_time: bool,
    log_x: bool | None,
    targets: Sequence[float],
) -> float:
    """One panel: a metric against thousand images, or against time; what an image's place is."""
    unit, scale = _time_unit(lines) if by_time else ("", 1000.0)
    faint = min(0.18, 0.9 / len(lines))  # many bands lie over each other
    for i, x in enumerate(lines):
        at = [v / scale for v in (x.seconds if by_time else x.images)]
        how = look(*x.look) | {"gid": f"series:{i}", "clip_on": False}
        axes.plot(at, x.mean, **how)
        if x.n > 1:
            axes.fill_between(at, x.low, x.high, color=how["color"], alpha=faint, lw=0,
                              gid=how["gid"], clip_on=False)  # fmt: skip
    for value in targets:
        axes.axhline(value, color=SOFT, linestyle=(0, (2, 2)), lw=1.0, gid="target:0")
        axes.update_datalim([(axes.dataLim.x0, value)])  # not on the frame
        axes.autoscale_view()
    what = "images shown to the discriminator (thousands)"
    axes.set_xlabel(f"training time ({unit})" if by_time else what)
    axes.set_ylabel(_title(column))
    if log_x or (log_x is None and wide([n for x in lines for n in x.images])):
        _log(axes, "x", [v / scale for x in lines for v in (x.seconds if by_time else x.images)])
    if wide([v for x in lines for v in x.low]):
        _log(axes, "y", [v for x in lines for v in x.mean])
    return scale


def _time_unit(lines: Sequence[Line]) -> tuple[str, float]:
    longest = max(x.seconds[-1] for x in lines)
    if longest > 7200:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest > 600 else ("seconds", 1.0)


def _legend(figure: Figure, **how: Any) -> None:
    """The lines of the first axes by name: matplotlib alone leaves out those that begin with _."""
    lines = list(figure.axes[0].lines)
    legend = figure.legend(lines, [""] * len(lines), frameon=False, **how)
    used = matplotlib.rcParams["font.family"]
    for text, drawn in zip(legend.get_texts(), lines, strict=True):
        text.set_text(fonts.legible(str(drawn.get_label()), used))


def _log(axes: Any, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    positive = [v for v in values if v > 0]
    decades = math.log10(max(positive) / min(positive)) if positive else 0
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def page_curves(
    lines: Sequence[Line], column: Column, by_time: bool, targets: Sequence[float]
) -> Markup:
    """A metric over training, as the page shows it: `lines` are its series 0, 1, …"""
    with _page_style():
        figure, axes = _page_figure(760, 430)
        scale = _over_training(axes, lines, column, by_time, None, targets)
        figure.draw_without_rendering()
        d, pixels = decimals(targets), axes.transData.transform
        for value in targets:  # named at the end from which the curves keep away
            level = pixels((1.0, value))[1]
            left, right = (
                min(abs(pixels((1.0, x.mean[end]))[1] - level) for x in lines) for end in (0, -1)
            )
            axes.annotate(
                f"target {value:.{d}f}", (float(right > left), value), (0, 3),
                ha="right" if right > left else "left",
                xycoords=("axes fraction", "data"), textcoords="offset points",
            )  # fmt: skip
        hover = []
        if not by_time:
            images = sorted({n for x in lines for n in x.images})
            hover = [(round(float(pixels((n / scale, 1.0))[0]), 1), n) for n in images]
        label = f"{_title(column)} against {axes.get_xlabel()}, {len(lines)} lines"
        return _inline(figure, label, hover=hover)


def page_axis(
    rows: Mapping[str, Sequence[tuple[float, Stat]]], column: Column, axis: str
) -> Markup:
    """The last values of each row over a numeric axis of the grid."""
    with _page_style():
        figure, axes = _page_figure(640, 380)
        _against_axis(axes, rows, column, axis)
        return _inline(figure, f"{_title(column)} against {axes.get_xlabel()}")


def page_scatter(
    points: Sequence[tuple[str, Mapping[str, Any], float, float, Stat | None, str]],
    x_title: str,
    y_title: str,
) -> Markup:
    """Named points with the range of their runs: name, look, x, y, its runs, anchor of its row."""
    with _page_style():
        figure, axes = _page_figure(520, 360)
        titles = {}
        for i, (name, how, x, y, stat, anchor) in enumerate(points):
            titles[f"series:{i}"] = f"{name}: {x:.3g}, {y:.3g}"
            same = {"color": how["color"], "gid": f"series:{i}", "url": f"#{anchor}"}
            if stat:
                axes.plot([x, x], [stat.min, stat.max], lw=1.2, **same)
            axes.plot([x], [y], marker=how["marker"], ms=8, ls="", **same)
        for side, values in (("x", [p[2] for p in points]), ("y", [p[3] for p in points])):
            if wide(values):
                _log(axes, side, values)
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        axes.margins(0.1)
        figure.draw_without_rendering()
        if len(points) <= MOST_NAMES:  # of more, none could be read
            _name(axes, points)
        label = f"{y_title} against {x_title}: {'; '.join(titles.values())}"
        return _inline(figure, label, titles)


def _name(axes: Any, points: Sequence[Any]) -> None:
    """Write each name near its point, where it hides no point and no other name, if there is room.

    To stand on the range of a row's runs costs as much as to be 20 pixels off.
    """
    to_pixels, frame = axes.transData.transform, axes.bbox
    at = [to_pixels((p[2], p[3])) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    ranges = [
        (x - 2, to_pixels((p[2], p[4].min))[1], x + 2, to_pixels((p[2], p[4].max))[1])
        for p, (x, _) in zip(points, at, strict=True)
        if p[4]
    ]
    for i in sorted(range(len(points)), key=lambda i: tuple(at[i])):
        (x, y), length = at[i], LETTER * len(points[i][0])
        free = []
        for away, turn in itertools.product((9, 16, 26, 38, 52, 68), range(16)):
            angle, to_left = turn * math.pi / 8, 4 < turn < 12
            end, base = x + away * math.cos(angle), y + away * math.sin(angle) - 4
            left = end - length if to_left else end
            box = (left, base - 3, left + length, base + 11)
            inside = box[0] > frame.x0 and box[2] < frame.x1 + 14 and frame.y0 < box[1]
            if inside and box[3] < frame.y1 + 8 and not any(_meet(box, b) for b in taken):
                near = math.dist((x, y), (min(max(x, left), box[2]), min(max(y, box[1]), box[3])))
                cost = near + 4 * (turn % 8 > 0) + 20 * sum(_meet(box, r) for r in ranges)
                free.append((cost, near, end, base, "right" if to_left else "left", box))
        if free:
            _, near, end, base, side, box = min(free)
            taken.append(box)
            axes.annotate(
                points[i][0], (x, y), (end, base), xycoords="figure pixels", ha=side,
                textcoords="figure pixels", url=f"#{points[i][5]}", va="baseline",
                arrowprops={"arrowstyle": "-", "color": SOFT, "lw": 0.8} if near > 14 else None,
            )  # fmt: skip


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def page_slope(
    rows: Sequence[tuple[str, Mapping[str, Any], float, float, str]], sign: int
) -> Markup:
    """Ranks by the paper (left) and by ours (right): name, look, both values, anchor of its row."""
    with _page_style():
        figure = Figure(figsize=(640 / 72, (24 * len(rows) + 20) / 72), dpi=72)
        axes = figure.add_axes((0.3, 0.0, 0.4, 1.0), frameon=False, xticks=[], yticks=[])
        axes.set(xlim=(-0.04, 1.04), ylim=(len(rows), -1))
        theirs = sorted(rows, key=lambda row: row[2])
        ours = sorted(rows, key=lambda row: sign * row[3])
        titles = {}
        for i, row in enumerate(rows):
            name, how, paper, value, anchor = row
            a, b = theirs.index(row), ours.index(row)
            left, right = f"{name}  {paper:g}", f"{brief(value)}  {name}"
            titles[f"series:{i}"] = f"{left} in the paper, {right} here"
            axes.plot([0, 1], [a, b], gid=f"series:{i}", url=f"#{anchor}", clip_on=False,
                      **{**how, "linestyle": "-"})  # fmt: skip
            for x, y, text, side in ((0, a, left, "right"), (1, b, right, "left")):
                axes.annotate(text, (x, y), (10 if x else -10, 0), ha=side, va="center",
                              textcoords="offset points", url=f"#{anchor}")  # fmt: skip
        return _inline(figure, "The paper's order and ours", titles)


def page_key(how: Mapping[str, Any]) -> Markup:
    """What a line looks like, for a legend."""
    with _page_style():
        figure = Figure(figsize=(36 / 72, 12 / 72), dpi=72)
        axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0.02, 0.5, 0.98], [0.5] * 3, markevery=[1], clip_on=False, **how)
        return _inline(figure, "", classes="key")


def _page_style() -> Any:
    page = {"font.size": 12, "svg.fonttype": "none", "font.family": ["sans-serif"],
            "figure.facecolor": "none", "axes.facecolor": "none"}  # fmt: skip
    return matplotlib.rc_context(dict(matplotlib.rcParamsDefault) | STYLE | page)


def _page_figure(width: int, height: int) -> tuple[Figure, Any]:
    """A figure of pixels with room for the titles of its axes."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.subplots_adjust(56 / width, 46 / height, 1 - 16 / width, 1 - 14 / height)
    return figure, figure.subplots()


def _inline(
    figure: Figure,
    label: str,
    titles: Mapping[str, str] | None = None,
    classes: str = "",
    hover: Sequence[tuple[float, float]] = (),
) -> Markup:
    """A figure as SVG within HTML, in the page's colours.

    Args:
        figure: laid out in pixels.
        label: what it shows, for who cannot see it.
        titles: shown at the pointer, by the gid of an artist: `series:0`, …
        classes: of the element.
        hover: pixel and images of each place where the page shows the values.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    left_out = r'<metadata>.*?</metadata>|<!--.*?-->|<clipPath.*?</clipPath>| clip-path="[^"]*"'
    text = re.sub(left_out, "", text, flags=re.DOTALL)
    text = text[re.search(r"<svg[^>]*>", text).end() : text.rindex("</svg>")]  # type: ignore[union-attr]
    for i, colour in enumerate(COLOURS):
        text = text.replace(colour.lower(), f"var(--c{i})")
    text = text.replace(RULE, "var(--rule)").replace(SOFT, "var(--soft)")

    def named(match: re.Match[str]) -> str:
        kind, number = match[1], match[2]
        title = (titles or {}).get(f"{kind}:{number}", "")
        data = f' data-series="{number}"' if kind == "series" else ""
        return f'<g class="{kind}"{data}>' + (f"<title>{escape(title)}</title>" if title else "")

    text = re.sub(r'<g id="(series|target):(\d+)">', named, text)
    text = text.replace("xlink:href=", "href=")
    # Markers are drawn by reference; one page holds many figures, so their ids bear a mark.
    own = set(re.findall(r' id="([^"]*)"', text)) & set(re.findall(r'href="#([^"]+)"', text))
    mark = hashlib.sha256(f"{label}{text}".encode()).hexdigest()[:8]
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{mark}-{m[1]}"' if m[1] in own else "", text)
    text = re.sub(
        r'href="#([^"]+)"', lambda m: f'href="#{mark}-{m[1]}"' if m[1] in own else m[0], text
    )
    text = re.sub(r"\n\s*", "\n", text)
    width, height = figure.bbox.width, figure.bbox.height
    more = f' role="img" aria-label="{escape(label)}"' if label else ' aria-hidden="true"'
    if hover:
        more += f' tabindex="0" data-x="{[list(pair) for pair in hover]}"'
        text += '<path class="cursor" d=""/>'
    return Markup(
        f'<svg class="{classes or "still"} chart" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"{more}>{text}</svg>'
    )
