"""The sections of the page as plain data: what a template needs to write them, and no more."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import agreement, columns, leakage, tables, targets, verdicts
from bench.aggregate import Cell
from bench.lines import line
from bench.page import charts, evidence
from bench.page.answer import Ranked
from bench.spec import Grid
from bench.tables import Column, Entry, Row, Table

NETWORK = ("params_m", "accuracy", "generator_m", "discriminator_m")  # of the networks, not images
LEVELS = ("fd_l1", "fd_l2", "fd_l3", "fd_l4")


@dataclass(frozen=True)
class Head:
    key: str
    text: str
    unit: str = ""
    numeric: bool = True
    group: str = ""  # main, paper, metric, network, machine: what can be hidden together
    hint: str = ""


@dataclass(frozen=True)
class Field:
    text: str
    value: str = ""  # full precision: what is sorted by, and what `verify` reads
    marks: tuple[str, ...] = ()
    bold: bool = False
    flag: str = ""  # why the number is flagged
    opens: str = ""  # key of its evidence
    strip: charts.Strip | None = None
    chip: str = ""  # tone of a verdict


@dataclass(frozen=True)
class Grille:
    """A table as the page shows it."""

    name: str
    heads: list[Head]
    rows: list[list[Field]]
    footnotes: dict[str, str] = field(default_factory=dict)  # mark -> text
    notes: tuple[str, ...] = ()
    caption: str = ""


def looks(cells: Sequence[Cell]) -> dict[str, charts.Look]:
    """A look for each cell: the colour of its row, the dash and shape of its axis values."""
    rows = list(dict.fromkeys(cell.row for cell in cells))
    variants = list(dict.fromkeys(repr(sorted(cell.axes.items())) for cell in cells))
    return {
        c.name: charts.look(rows.index(c.row), variants.index(repr(sorted(c.axes.items()))))
        for c in cells
    }


def plain(table: Table) -> Grille:
    """Any of the report's tables, as it is."""
    heads = [Head(c.key, c.header, c.unit, not c.text) for c in table.columns]
    rows = []
    for row, texts in tables.formatted(table):
        rows.append(
            [
                Field(text, _full(e), tuple(m), e.bold, e.leakage)
                for (text, m), e in zip(texts, row.entries, strict=True)
            ]
        )
        if row.span:
            rows[-1][1] = Field(row.span)
    marks = {mark: text for text, mark in table.footnotes.items()}
    return Grille(table.file, heads, rows, marks, table.notes, table.caption)


def main_table(
    grid: Grid,
    cells: Sequence[Cell],
    table: Table,
    order: Ranked | None,
    paper: Mapping[str, targets.PaperRow],
) -> tuple[Grille, dict[str, Any]]:
    """The table of a grid with every run as a dot, and the evidence behind each number.

    Returns:
        The table, and key -> evidence.
    """
    rank_by = order.metric if order else None
    by_key = {c.key: i for i, c in enumerate(table.columns)}
    ranking = rank_by if rank_by in by_key else None
    main_paper = targets.main_column(grid.report.paper) if grid.report.paper else ""
    first = ["label", *([ranking] if ranking else [])]
    papers = [c.key for c in table.columns if c.paper]
    papers.sort(key=lambda key: key != main_paper)
    tail = [k for k in ("verdict",) if k in by_key]
    others = [k for k in by_key if k not in {*first, *papers, *tail}]
    others.sort(key=lambda key: ("metric", "network", "machine").index(_group(key)))
    lead = [*first, *(["=runs", "=span"] if ranking else []), *papers[:1]]
    lead += ["=place"] if papers and ranking else []
    shown = [*lead, *tail, *others, *papers[1:]]

    stats = [cell.stat(rank_by) if rank_by else None for cell in cells]
    dots, at = charts.strips(stats)
    places = _places(cells, order, paper, main_paper)
    heads = []
    for key in shown:
        if key == "=runs":
            heads.append(Head(key, "every run", numeric=True, group="main"))
        elif key == "=span":
            kinds = {s.interval.kind for s in stats if s and s.interval}
            name = "95 % interval" if kinds == {"bootstrap"} else "range of runs"
            heads.append(Head(key, name, numeric=True, group="main"))
        elif key == "=place":
            heads.append(Head(key, "place", "ours / paper", True, "paper"))
        else:
            c = table.columns[by_key[key]]
            heads.append(Head(key, c.header, c.unit, not c.text, _group_of(c, key in lead)))
    marks = table.footnotes
    found: dict[str, Any] = {}
    rows = []
    for r, (cell, (row, texts)) in enumerate(zip(cells, tables.formatted(table), strict=True)):
        line_ = []
        for key in shown:
            if key == "=runs":
                line_.append(_runs_field(dots[r], stats[r]))
                continue
            if key == "=span":
                line_.append(_span_field(stats[r]))
                continue
            if key == "=place":
                line_.append(places.get(cell.name, Field(tables.MISSING)))
                continue
            i = by_key[key]
            (text, noted), entry = texts[i], row.entries[i]
            column = table.columns[i]
            opens = ""
            if entry.value is not None and key != "n":
                opens = f"{r}/{key}"
                found[opens] = evidence.of_cell(grid, cell, column, entry, marks)
            chip = _tone(entry.text) if key == "verdict" else ""
            if row.span and not column.paper and key not in ("label", "verdict"):
                text = row.status if key == ranking else tables.MISSING
            line_.append(
                Field(text, _full(entry), tuple(noted), entry.bold, entry.leakage, opens,
                      chip=chip)
            )  # fmt: skip
        rows.append(line_)
    notes = {mark: text for text, mark in marks.items()}
    if ranking:
        ends = f"{at.low:.3g} to {at.high:.3g}" + (", logarithmic" if at.log else "")
        heads[shown.index("=runs")] = Head("=runs", "every run", "", True, "main", ends)
    return Grille("table", heads, rows, notes, table.notes, table.caption), found


def _group(key: str) -> str:
    if key in (*NETWORK, "kimg", "n"):
        return "network"
    return "machine" if key in columns.MEASURED else "metric"


def _group_of(column: Column, lead: bool) -> str:
    if column.key in ("label", "verdict"):
        return "main"
    if column.paper:
        return "paper"
    return "main" if lead else _group(column.key)


def _runs_field(strip: charts.Strip | None, stat: Any) -> Field:
    if strip is None or stat is None:
        return Field(tables.MISSING)
    said = ", ".join(f"{p:.3g}" for p in stat.points)
    return Field(said, f"{stat.mean:.8g}", strip=strip)


def _span_field(stat: Any) -> Field:
    if stat is None or stat.interval is None:
        return Field(tables.MISSING)
    low, high = stat.interval.low, stat.interval.high
    return Field(f"{low:.3g} – {high:.3g}", f"{low:.8g}")


def _places(
    cells: Sequence[Cell], order: Ranked | None, paper: Mapping[str, targets.PaperRow], key: str
) -> dict[str, Field]:
    """Rank in our order and in the paper's, over the rows that both have."""
    if order is None or not key:
        return {}
    known = {
        c.name: n.value
        for c in order.cells
        if (n := paper.get(c.name, {}).get(key)) and n.value is not None
    }
    ours = [c.name for c in order.cells if c.name in known]
    theirs = sorted(known, key=lambda name: known[name])
    return {
        name: Field(f"{i + 1} / {theirs.index(name) + 1}", str(i + 1))
        for i, name in enumerate(ours)
    }


def _tone(verdict: str) -> str:
    tones = {"reproduced": "yes", "not reproduced": "no", "within seed noise": "open",
             "too few seeds": "open"}  # fmt: skip
    return tones.get(verdict, "plain" if verdict else "")


def _full(entry: Entry) -> str:
    return "" if entry.value is None else f"{entry.value:.8g}"


# Curves


@dataclass(frozen=True)
class Curves:
    """One metric against images and against time, for wide and narrow screens."""

    title: str
    plots: dict[tuple[str, str], charts.Chart]  # (images or time, wide or narrow)
    legend: list[tuple[str, charts.Look, str, int]]  # name, look, value at the end, runs
    values: list[list[list[float]]]  # of each line: images, mean, low, high


def curves(grid: Grid, cells: Sequence[Cell], metric: str, marks: Sequence[float]) -> Curves | None:
    """The curves of a metric, best at the end first; None = no row has two snapshots."""
    how = looks(cells)
    found = [x for i, c in enumerate(cells) if (x := line(c, metric, i)) and len(x.images) > 1]
    if not found:
        return None
    sign = 1 if columns.lower_is_better(metric) else -1
    found.sort(key=lambda x: sign * x.mean[-1])
    column = columns.column(metric)
    title = f"{column.header} ({column.unit})" if column.unit else column.header
    both = [(x, how[x.name]) for x in found]
    drawn = {
        (what, size): charts.curves(both, what == "time", *box, title, marks)
        for what in ("images", "time")
        for size, box in (("wide", (760, 430)), ("narrow", (350, 380)))
    }
    legend = [(x.name, how[x.name], f"{x.mean[-1]:.3g}", x.n) for x in found]
    values = [
        [list(point) for point in zip(x.images, x.mean, x.low, x.high, strict=True)] for x in found
    ]
    return Curves(title, drawn, legend, values)


# Heat maps


@dataclass(frozen=True)
class Heat:
    """Numbers on a ground whose colour says how far they are from a reference."""

    title: str
    about: str
    heads: list[str]
    rows: list[tuple[str, list[HeatField]]]


@dataclass(frozen=True)
class HeatField:
    text: str
    under: str = ""  # second line
    step: int | None = None  # -4 to 4; None = no colour
    flag: str = ""


def heats(grid: Grid, cells: Sequence[Cell], table: Table, rank_by: str | None) -> list[Heat]:
    """Feature distances by row and level, and by projection and level of the discriminators."""
    found = []
    if all(any(c.stat(key) for c in cells) for key in LEVELS):
        found.append(_by_level(grid, cells, table, rank_by))
    if rank_by and (by_projection := _by_projection(grid, cells, rank_by)):
        found.append(by_projection)
    return found


def _by_level(grid: Grid, cells: Sequence[Cell], table: Table, rank_by: str | None) -> Heat:
    keys = [*LEVELS, *([rank_by] if rank_by else [])]
    base = next((c for c in cells if c.row == grid.report.baseline and c.finished), None)
    heads = [columns.column(key).header for key in keys]
    references = []
    for key in keys:
        stat = base.stat(key) if base else None
        means = [s.mean for c in cells if (s := c.stat(key))]
        references.append(stat.mean if stat else statistics.median(means) if means else None)
    shown = {c.key: i for i, c in enumerate(table.columns)}
    unit = charts.heat_unit(
        [
            stat.mean / reference
            for key, reference in zip(keys, references, strict=True)
            for cell in cells
            if reference and (stat := cell.stat(key))
        ]
    )
    rows = []
    for cell, row in zip(cells, table.rows, strict=True):
        fields = []
        for key, reference in zip(keys, references, strict=True):
            stat = cell.stat(key)
            if stat is None or not reference or stat.mean <= 0:
                fields.append(HeatField(tables.MISSING))
                continue
            ratio = stat.mean / reference
            step = charts.heat_step(ratio, unit)
            sign = 1 if columns.lower_is_better(key) else -1
            paper = _paper_level(row, shown, key)
            under = f"paper {paper:.2f}" if paper is not None else f"{stat.mean:.3g}"
            fields.append(
                HeatField(
                    f"×{ratio:.2f}", under, sign * step, leakage.leakage(cell.spec, key).reason
                )
            )
        rows.append((cell.name, fields))
    what = f"row {base.name}" if base else "median of its column"
    about = (
        f"Each mean over the {what}: ×1 is as far from the real images, ×0.5 half as far. Blue is "
        f"nearer, orange farther, darkest at ×{2 ** (-4 * unit):.2g} and ×{2 ** (4 * unit):.2g}; "
        "below it " + ("the paper's ratio." if _has_paper(shown) else "the value itself.")
    )
    return Heat("Feature distances by level", about, heads, rows)


def _has_paper(shown: Mapping[str, int]) -> bool:
    return "paper_rel_fd_l1" in shown


def _paper_level(row: Row, shown: Mapping[str, int], key: str) -> float | None:
    name = f"paper_rel_{key}" if key in LEVELS else "paper_rel_fid"
    return row.entries[shown[name]].value if name in shown else None


def _by_projection(grid: Grid, cells: Sequence[Cell], metric: str) -> Heat | None:
    """Projection down, levels with a discriminator across (Table 1's two choices)."""
    kinds = {"none": "no projection", "ccm": "CCM", "ccm_csm": "CCM + CSM"}
    at: dict[tuple[str, str], Cell] = {}
    base = next((c for c in cells if c.row == grid.report.baseline), None)
    for cell in cells:
        chosen = cell.spec.config.discriminator
        if chosen.on_images or not cell.stat(metric):
            continue
        levels = "perceptual"
        if chosen.kind == "projected":
            levels = "-".join(f"L{i}" for i in sorted({min(chosen.layers), max(chosen.layers)}))
        place = (cell.spec.config.projection.kind, levels)
        if place in at:  # the grid varies something else
            return None
        at[place] = cell
    down = [kind for kind in kinds if any(k == kind for k, _ in at)]
    across = list(dict.fromkeys(level for _, level in at))
    if len(down) < 2 or len(across) < 2:
        return None
    known = [s.mean for c in at.values() if (s := c.stat(metric))]
    stat = base.stat(metric) if base else None
    reference = stat.mean if stat else statistics.median(known)
    sign = 1 if columns.lower_is_better(metric) else -1
    unit = charts.heat_unit([mean / reference for mean in known])
    rows = []
    for kind in down:
        fields = []
        for level in across:
            here = at.get((kind, level))
            mean = here.stat(metric) if here else None
            if mean is None:
                fields.append(HeatField(tables.MISSING))
                continue
            step = sign * charts.heat_step(mean.mean / reference, unit)
            fields.append(HeatField(f"×{mean.mean / reference:.2f}", f"{mean.mean:.3g}", step))
        rows.append((kinds[kind], fields))
    header = columns.column(metric).header
    over = base.name if base and stat else "the median"
    about = f"{header} over that of {over}, by projection (down) and discriminators (across)."
    return Heat(f"{header} by projection and level", about, across, rows)


# Scatters and slopes


@dataclass(frozen=True)
class Scatter:
    title: str
    wide: charts.Chart
    narrow: charts.Chart


def scatters(
    grid: Grid, cells: Sequence[Cell], order: Ranked | None, paper: Mapping[str, targets.PaperRow]
) -> list[Scatter]:
    """Quality against size and against accuracy, ours and the paper's beside it."""
    found: list[Scatter] = []
    if order is None:
        return found
    how = looks(cells)
    main = targets.main_column(grid.report.paper) if grid.report.paper else ""
    for key, theirs, title in (
        ("params_m", "paper_params_m", "parameters of the feature network (M)"),
        ("accuracy", "paper_top1", "accuracy of the feature network (%)"),
    ):
        kind = columns.usual_accuracy(cells)
        ours = [
            (_short(c), how[c.name], x.mean, s.mean, s)
            for c in order.cells
            if (x := c.stat(key))
            and (s := c.stat(order.metric))
            and (key != "accuracy" or columns.accuracy_kind(c) == kind)
        ]
        if len({p[2] for p in ours}) > 2:
            found.append(_scatter(f"Here: {order.header}", ours, title, order.header))
        published = []
        for cell in order.cells:
            at, fid = (paper.get(cell.name, {}).get(k) for k in (theirs, main))
            if at and fid and at.value is not None and fid.value is not None:
                published.append((_short(cell), how[cell.name], at.value, fid.value, None))
        if len({p[2] for p in published}) > 2:
            what = columns.PAPER[main].header
            found.append(_scatter(f"In the paper: {what.removeprefix('paper ')}", published,
                                  title, what.removeprefix("paper ")))  # fmt: skip
    return found


def _short(cell: Cell) -> str:
    """A row's name with the values of its axes alone."""
    values = (part.partition("=")[2] for part in cell.name.split(" · ")[1:])
    return " · ".join([cell.row, *values]) if cell.axes else cell.row


def _scatter(title: str, points: Sequence[Any], x: str, y: str) -> Scatter:
    wide, narrow = (charts.scatter(points, *box, x, y) for box in ((520, 360), (350, 330)))
    return Scatter(title, wide, narrow)


def slopes(
    grid: Grid, cells: Sequence[Cell], order: Ranked | None, paper: Mapping[str, targets.PaperRow]
) -> dict[str, charts.Slope]:
    """The paper's order beside ours, wide and narrow; empty = fewer than three rows have both."""
    if order is None or not grid.report.paper:
        return {}
    key, how = targets.main_column(grid.report.paper), looks(cells)
    rows = []
    for cell in order.cells:
        number = paper.get(cell.name, {}).get(key)
        if number and number.value is not None:
            rows.append((cell.name, how[cell.name], number.value, order.stat(cell).mean))
    if len(rows) < 3:
        return {}
    room = 14 + charts.LETTER * max(len(f"{r[0]}  {r[2]:g}") for r in rows)
    return {
        "wide": charts.slope(rows, 640, room, order.sign),
        "narrow": charts.slope(rows, 350, min(room, 150), order.sign),
    }


# Cost


@dataclass(frozen=True)
class Bar:
    name: str
    text: str
    share: float  # of the longest, in per cent


COSTS = ("images_per_s", "train_s", "eval_s", "peak_mb", "generator_m", "discriminator_m")
ALIKE = 1.05  # what differs by less between the rows is told in words


def costs(cells: Sequence[Cell]) -> list[tuple[str, list[Bar]]]:
    """Speed, time, memory and size as bars, where the rows differ in them."""
    found = []
    for key in COSTS:
        column = columns.MEASURED[key]
        stats = [(c.name, s) for c in cells if (s := c.stat(key))]
        if not stats or _alike([s.mean for _, s in stats]):
            continue
        top = max(s.mean for _, s in stats)
        d = tables.decimals(s.mean for _, s in stats) if column.decimals is None else 0
        bars = [Bar(name, f"{s.mean:.{d}f}", round(100 * s.mean / top, 1)) for name, s in stats]
        found.append((f"{column.header} ({column.unit})", bars))
    return found


def alike(cells: Sequence[Cell]) -> str:
    """What all rows have nearly in common, in words; empty = nothing."""
    said = []
    for key in COSTS:
        column, means = columns.MEASURED[key], [s.mean for c in cells if (s := c.stat(key))]
        if means and _alike(means):
            low, high = f"{min(means):.3g}", f"{max(means):.3g}"
            both = low if low == high else f"{low} to {high}"
            said.append(f"{column.header} {both} {column.unit}")
    return f"Nearly alike in all rows: {', '.join(said)}." if said else ""


def _alike(means: Sequence[float]) -> bool:
    return max(means) <= 0 or max(means) / max(min(means), 1e-9) < ALIKE


@dataclass(frozen=True)
class Ledger:
    """Where the time of a training step goes, row by row."""

    parts: list[str]
    rows: list[tuple[str, list[float]]]  # per cent of the step, in the order of `parts`
    shared: list[str]  # rows whose machine had other work


def ledger(cells: Sequence[Cell]) -> Ledger | None:
    """The mean shares of each row's runs; None = no record keeps any."""
    rows = []
    for cell in cells:
        means = {part: stat.mean for part in columns.SHARES if (stat := cell.stat(f"share_{part}"))}
        if means:
            rows.append((cell, means))
    found = [part for part in columns.SHARES if any(part in means for _, means in rows)]
    if not found:
        return None
    return Ledger(
        found,
        [(cell.name, [round(means.get(part, 0.0), 1) for part in found]) for cell, means in rows],
        [cell.name for cell, _ in rows if any(run.contended for run in cell.finished)],
    )


# Agreement


def tau_matrix(panel: agreement.Panel) -> Heat:
    """Kendall's tau of each two metrics, coloured by its size."""
    heads = [columns.column(m).header for m in panel.metrics]
    rows = []
    for i, one in enumerate(panel.metrics):
        fields = []
        for j, other in enumerate(panel.metrics):
            if j == i:
                fields.append(HeatField("1"))
                continue
            tau = panel.tau(one, other)
            if tau.value is None:
                fields.append(HeatField(tables.MISSING))
                continue
            span = f"{tau.low:.2f} to {tau.high:.2f}" if tau.low is not None else ""
            fields.append(HeatField(f"{tau.value:.2f}", span, round(-4 * tau.value)))
        rows.append((columns.column(one).header, fields))
    about = (
        f"Kendall's tau over {len(panel.rows)} rows: 1 (blue) is the same order, -1 (orange) the "
        "reverse. Under it the 95 % interval that the seeds give."
    )
    return Heat("Agreement of the metrics", about, heads, rows)


def verdict_counts(judged: Mapping[str, Sequence[verdicts.Judged]]) -> list[tuple[str, int]]:
    words = [one.verdict.word for found in judged.values() for one in found]
    return [(word, words.count(word)) for word in dict.fromkeys(words)]
