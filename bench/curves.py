"""Metric against images and against training time, one line per cell, the same bytes each time."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench import fonts
from bench.aggregate import Cell, Stat
from bench.lines import COLOURS, Line, axis_csv, data_csv, line, standing, wide
from bench.tables import Column, decimals

DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "os^Dv<>pPX*h"
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
    "grid.color": "#e3e3e3",
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
    at = standing(cells)
    lines = [found for cell, i in zip(cells, at, strict=True) if (found := line(cell, metric, i))]
    if not any(len(x.images) > 1 for x in lines):
        return {}
    return {
        **_saved(
            f"curves/{metric}",
            lambda: _figure(lines, column, lower_is_better, log_x, targets),
            [x.name for x in lines],
            pdf,
        ),
        f"curves/{metric}.csv": data_csv(cells, metric).encode(),
    }


def draw_axis(
    cells: Sequence[Cell],
    metric: str,
    column: Column,
    axis: str,
    places: Sequence[float],
    pdf: bool = False,
) -> dict[str, bytes]:
    """Draws the last value of a metric against an axis of the grid (Figure 4 right: subsets).

    Args:
        cells: One point each; those of a row make a line.
        metric: Key of the metric in the records.
        column: Its header and unit.
        axis: Dotted key of the axis.
        places: Where each cell stands on it.
        pdf: Write that form too.

    Returns:
        `curves/<metric>_by_<axis>.png`, `.svg` and `.csv`; empty where no row has two points.
    """
    rows: dict[str, list[tuple[float, Stat]]] = {}
    for cell, place in zip(cells, places, strict=True):
        if stat := cell.stat(metric):
            rows.setdefault(cell.row, []).append((place, stat))
    if not any(len(points) > 1 for points in rows.values()):
        return {}
    short = axis.split(".")[-1]
    order = list(dict.fromkeys(cell.row for cell in cells))
    name = f"curves/{metric}_by_{short}"
    return {
        **_saved(name, lambda: _axis_figure(rows, order, column, axis), order, pdf),
        f"{name}.csv": axis_csv(cells, metric, axis, places).encode(),
    }


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
    rows: Mapping[str, Sequence[tuple[float, Stat]]],
    order: Sequence[str],
    column: Column,
    axis: str,
) -> Figure:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in rows.items():
        points = sorted(points, key=lambda point: point[0])
        at, stats = [p for p, _ in points], [stat for _, stat in points]
        look = _look(order.index(name), None)
        axes.plot(at, [stat.mean for stat in stats], label=name, **look)
        low, high = [stat.min for stat in stats], [stat.max for stat in stats]
        axes.fill_between(at, low, high, color=look["color"], alpha=0.15, lw=0)
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
    _legend(figure, loc="outside upper center", ncols=min(len(rows), 3))
    return figure


def _look(row: int, variant: int | None) -> dict[str, Any]:
    """Colour, dashes and marker of the line of a row at a choice of axis values."""
    dash = row // len(COLOURS) if variant is None else variant
    return {
        "color": COLOURS[row % len(COLOURS)],
        "linestyle": DASHES[dash % len(DASHES)],
        "marker": MARKERS[row % len(MARKERS)],
    }


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
    left_out, lines = len(lines) - len(order), order
    height = max(4.2, 1.0 + 0.23 * len(lines))
    figure = Figure(figsize=(10.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    by_images, by_time = figure.subplots(1, 2, sharey=True)
    longest = max(x.seconds[-1] for x in lines)
    unit, scale = ("hours", 3600.0) if longest > 7200 else ("seconds", 1.0)
    if 600 < longest <= 7200:
        unit, scale = "minutes", 60.0

    places = decimals(x.mean[-1] for x in lines)
    sizes = {x.n for x in lines}
    faint = min(0.18, 0.9 / len(lines))  # many bands lie over each other
    for x in order:
        n = f"  (n={x.n})" if len(sizes) > 1 else ""
        look = _look(*x.stands) | {"label": f"{x.name}  {x.mean[-1]:.{places}f}{n}"}
        kimg = [n / 1000 for n in x.images]
        hours = [s / scale for s in x.seconds]
        for axes, at in ((by_images, kimg), (by_time, hours)):
            axes.plot(at, x.mean, **look)
            if x.n > 1:
                axes.fill_between(at, x.low, x.high, color=look["color"], alpha=faint, lw=0)

    for value in targets:
        label = f"target  {value:.{places}f}"
        for axes in (by_images, by_time):
            axes.axhline(value, color="#555555", linestyle=(0, (2, 2)), lw=1.0, label=label)
            axes.update_datalim([(axes.dataLim.x0, value)])  # not on the frame
            axes.autoscale_view()

    by_images.set_xlabel("images shown to the discriminator (thousands)")
    by_time.set_xlabel(f"training time ({unit})")
    by_images.set_ylabel(_title(column))
    images = [n for x in lines for n in x.images]
    if log_x or (log_x is None and wide(images)):
        _log(by_images, "x", [n / 1000 for n in images])
        _log(by_time, "x", [s / scale for x in lines for s in x.seconds])
    if wide([v for x in lines for v in x.low]):
        _log(by_images, "y", [v for x in lines for v in x.mean])
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
