"""Heat maps: feature distances by level and projection, and how alike the metrics rank."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis import feature_overlap, metric_agreement
from bench.analysis.cells import Cell
from bench.analysis.table import Row, Table
from bench.config import columns as vocabulary
from bench.report import tables
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

LEVELS = ("fd_l1", "fd_l2", "fd_l3", "fd_l4")


@dataclass(frozen=True)
class Heat:
    """Numbers on a ground whose colour says how far they are from a reference."""

    title: str
    about: str
    heads: list[str]
    rows: list[tuple[str, list[HeatField]]]


@dataclass(frozen=True)
class HeatField:
    """One place of a heat map."""

    text: str
    under: str = ""  # second line
    step: int | None = None  # -4 to 4; None = no colour
    flag: str = ""
    opens: str = ""  # key of its evidence


def heats(facts: Facts, table: Table) -> list[Heat]:
    """Feature distances by row and level, and by projection and level of the discriminators."""
    found = []
    if all(any(c.stat(key) for c in facts.cells) for key in LEVELS):
        found.append(_by_level(facts, table))
    if by_projection := _by_projection(facts, table):
        found.append(by_projection)
    return found


def _by_level(facts: Facts, table: Table) -> Heat:
    grid, cells = facts.grid, facts.cells
    keys = [*LEVELS, *([facts.ranking.metric] if facts.ranking else [])]
    base = next((c for c in cells if c.row == grid.report.baseline and c.finished), None)
    heads = [vocabulary.column(key).header for key in keys]
    references = []
    for key in keys:
        stat = base.stat(key) if base else None
        means = [s.mean for c in cells if (s := c.stat(key))]
        references.append(stat.mean if stat else statistics.median(means) if means else None)
    shown = {c.key: i for i, c in enumerate(table.columns)}
    unit = _unit(
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
                fields.append(_without(cell))
                continue
            ratio = stat.mean / reference
            step = _step(ratio, unit)
            sign = 1 if vocabulary.lower_is_better(key) else -1
            paper = _paper_level(row, shown, key)
            under = f"paper {paper:.2f}" if paper is not None else f"{brief(stat.mean)}"
            flag = feature_overlap.of_cell(cell, key).reason
            opens = f"{cell.name}/{key}"
            fields.append(HeatField(f"×{ratio:.2f}", under, sign * step, flag, opens))
        rows.append((cell.name, fields))
    what = f"row {base.name}" if base else "median of its column"
    about = (
        f"Each mean over the {what}: ×1 is as far from the real images, ×0.5 half as far. Blue is "
        f"nearer, orange farther, darkest at ×{2 ** (-4 * unit):.2g} and ×{2 ** (4 * unit):.2g}; "
        "below it " + ("the paper's ratio." if _has_paper(shown) else "the value itself.")
    )
    return Heat("Feature distances by level", about, heads, rows)


def _without(cell: Cell) -> HeatField:
    """A place without a number: that of a run that failed or is missing says so."""
    return HeatField(tables.MISSING if cell.finished else cell.unfinished[0].status)


def _has_paper(shown: Mapping[str, int]) -> bool:
    return "paper_rel_fd_l1" in shown


def _paper_level(row: Row, shown: Mapping[str, int], key: str) -> float | None:
    name = f"paper_rel_{key}" if key in LEVELS else "paper_rel_fid"
    return row.entries[shown[name]].value if name in shown else None


def _by_projection(facts: Facts, table: Table) -> Heat | None:
    """Projection down, levels with a discriminator across (Table 1's two choices)."""
    if facts.ranking is None:
        return None
    grid, cells, metric = facts.grid, facts.cells, facts.ranking.metric
    kinds = {"none": "no projection", "ccm": "CCM", "ccm_csm": "CCM + CSM"}
    at: dict[tuple[str, str], tuple[Cell, Row]] = {}
    base = next((c for c in cells if c.row == grid.report.baseline), None)
    for cell, row in zip(cells, table.rows, strict=True):
        chosen = cell.spec.config.discriminator
        if chosen.on_images:
            continue
        levels = "perceptual"
        if chosen.kind == "projected":
            levels = "-".join(f"L{i}" for i in sorted({min(chosen.layers), max(chosen.layers)}))
        place = (cell.spec.config.projection.kind, levels)
        if place in at:  # the grid varies something else
            return None
        at[place] = cell, row
    down = [kind for kind in kinds if any(k == kind for k, _ in at)]
    across = list(dict.fromkeys(level for _, level in at))
    if len(down) < 2 or len(across) < 2:
        return None
    known = [s.mean for c, _ in at.values() if (s := c.stat(metric))]
    if not known:
        return None
    shown = {c.key: i for i, c in enumerate(table.columns)}
    stat = base.stat(metric) if base else None
    reference = stat.mean if stat else statistics.median(known)
    sign = 1 if vocabulary.lower_is_better(metric) else -1
    unit = _unit([mean / reference for mean in known])
    rows = []
    for kind in down:
        fields = []
        for level in across:
            if (kind, level) not in at:
                fields.append(HeatField(""))
                continue
            here, line = at[kind, level]
            mean = here.stat(metric)
            if mean is None:
                fields.append(_without(here))
                continue
            step = sign * _step(mean.mean / reference, unit)
            paper = _paper_level(line, shown, metric)
            under = f"paper {paper:.2f}" if paper is not None else f"{brief(mean.mean)}"
            flag, opens = feature_overlap.of_cell(here, metric).reason, f"{here.name}/{metric}"
            fields.append(HeatField(f"×{mean.mean / reference:.2f}", under, step, flag, opens))
        rows.append((kinds[kind], fields))
    header = vocabulary.column(metric).header
    over = base.name if base and stat else "the median"
    about = f"{header} over that of {over}, by projection (down) and discriminators (across)."
    about += " Empty: not in the grid."
    if _has_paper(shown):
        about += " Below it the paper's ratio of FIDs."
    return Heat(f"{header} by projection and level", about, across, rows)


def tau_matrix(panel: metric_agreement.Panel) -> Heat:
    """Kendall's tau of each two metrics, coloured by its size."""
    heads = [vocabulary.column(m).header for m in panel.metrics]
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
        rows.append((vocabulary.column(one).header, fields))
    about = (
        f"Kendall's tau over {len(panel.rows)} rows: 1 (blue) is the same order, -1 (orange) the "
        "reverse. Under it the 95 % interval that the seeds give."
    )
    return Heat("Agreement of the metrics", about, heads, rows)


def _unit(ratios: Sequence[float]) -> float:
    """Octaves of one step, such that the farthest of the ratios has the darkest ground."""
    farthest = max((abs(math.log2(ratio)) for ratio in ratios if ratio > 0), default=0.0)
    return next((unit for unit in (0.125, 0.25, 0.5) if farthest <= 4.4 * unit), 1.0)


def _step(ratio: float, unit: float) -> int:
    """-4 to 4: how many units a ratio is from 1."""
    return max(-4, min(4, round(math.log2(ratio) / unit))) if ratio > 0 else -4
