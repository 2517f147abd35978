"""Heat maps: feature distances by level and projection, and how alike the metrics rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.analysis import feature_overlap, metric_agreement
from bench.analysis.cells import Cell
from bench.config import columns as vocabulary
from bench.report import tables
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

LEVELS = ("fd_l1", "fd_l2", "fd_l3", "fd_l4")
PROJECTIONS: dict[str, str] = {"none": "no projection", "ccm": "CCM", "ccm_csm": "CCM + CSM"}


@dataclass(frozen=True)
class HeatField:
    """One place of a heat map."""

    text: str
    under: str = ""  # second line
    step: int | None = None  # -4 to 4; None = no colour
    flag: str = ""
    opens: str = ""  # key of its evidence


@dataclass(frozen=True)
class Heat:
    """Numbers on a ground whose colour says how far they are from a reference."""

    title: str
    about: str
    heads: list[str]
    rows: list[tuple[str, list[HeatField]]]


@dataclass(frozen=True)
class Ratios:
    """Means over a reference: that of the baseline row, or the median of the cells without it."""

    facts: Facts
    values: pd.DataFrame  # cell × key
    unit: float  # octaves of one step of the colours

    @classmethod
    def of(cls, facts: Facts, cells: Sequence[Cell], keys: Sequence[str]) -> Ratios:
        means = facts.means.reindex(columns=list(keys))
        ours = means.reindex([cell.name for cell in cells])
        base = baseline(facts)
        reference = ours.median()
        if base:
            reference = means.T[base.name].fillna(reference)
        values = (ours / reference).where((ours > 0) & (reference > 0))
        # Such that the farthest of the ratios has the darkest ground.
        farthest = np.nanmax(np.abs(np.log2(values.to_numpy())), initial=0.0)
        return cls(facts, values, next((u for u in (0.125, 0.25, 0.5) if farthest <= 4.4 * u), 1.0))

    def field(self, cell: Cell, key: str) -> HeatField:
        """The ratio of a cell; the state of its run where that failed or is missing."""
        ratio = float(self.values[key][cell.name])
        if math.isnan(ratio):
            return HeatField(tables.MISSING if cell.finished else cell.unfinished[0].status)
        step = max(-4, min(4, round(math.log2(ratio) / self.unit)))
        sign = 1 if vocabulary.lower_is_better(key) else -1
        name = f"paper_rel_{key}" if key in LEVELS else "paper_rel_fid"
        shown = name in self.facts.grid.report.columns
        number = self.facts.paper.get(cell.name, {}).get(name) if shown else None
        under = brief(self.facts.means[key][cell.name])
        if number and number.value is not None:
            under = f"paper {number.value:.2f}"
        flag = feature_overlap.of_cell(cell, key).reason
        return HeatField(f"×{ratio:.2f}", under, sign * step, flag, f"{cell.name}/{key}")


def baseline(facts: Facts) -> Cell | None:
    """The first cell of the baseline row that has a finished run."""
    row = facts.grid.report.baseline
    return next((cell for cell in facts.cells if cell.row == row and cell.finished), None)


def heats(facts: Facts) -> list[Heat]:
    """Feature distances by row and level, and by projection and level of the discriminators."""
    return [found for found in (_by_level(facts), _by_projection(facts)) if found]


def _by_level(facts: Facts) -> Heat | None:
    if not set(LEVELS) <= set(facts.means):
        return None
    keys = [*LEVELS, *([facts.ranking.metric] if facts.ranking else [])]
    ratios, base = Ratios.of(facts, facts.cells, keys), baseline(facts)
    what = f"row {base.name}" if base else "median of its column"
    paper = "paper_rel_fd_l1" in facts.grid.report.columns
    darkest = 4 * ratios.unit
    about = (
        f"Each mean over the {what}: ×1 is as far from the real images, ×0.5 half as far. Blue is "
        f"nearer, orange farther, darkest at ×{2**-darkest:.2g} and ×{2**darkest:.2g}; "
        "below it " + ("the paper's ratio." if paper else "the value itself.")
    )
    heads = [vocabulary.column(key).header for key in keys]
    rows = [(cell.name, [ratios.field(cell, key) for key in keys]) for cell in facts.cells]
    return Heat("Feature distances by level", about, heads, rows)


def _by_projection(facts: Facts) -> Heat | None:
    """Projection down, levels with a discriminator across (Table 1's two choices)."""
    if facts.ranking is None:
        return None
    metric, header = facts.ranking.metric, facts.ranking.header
    places = [(cell.spec.config.projection.kind, _levels(cell), cell) for cell in facts.cells]
    at: dict[tuple[str, str], Cell] = {}
    at |= {(kind, levels): cell for kind, levels, cell in places if levels}
    down = [kind for kind in PROJECTIONS if any(k == kind for k, _ in at)]
    across = list(dict.fromkeys(levels for _, levels in at))
    several = len(at) < sum(bool(levels) for _, levels, _ in places)  # the grid varies more
    if several or len(down) < 2 or len(across) < 2 or not any(c.stat(metric) for c in at.values()):
        return None
    ratios, base = Ratios.of(facts, list(at.values()), [metric]), baseline(facts)
    rows = [
        (
            PROJECTIONS[kind],
            [
                ratios.field(at[kind, levels], metric) if (kind, levels) in at else HeatField("")
                for levels in across
            ],
        )
        for kind in down
    ]
    over = base.name if base and base.stat(metric) else "the median"
    about = f"{header} over that of {over}, by projection (down) and discriminators (across)."
    about += " Empty: not in the grid."
    if "paper_rel_fd_l1" in facts.grid.report.columns:
        about += " Below it the paper's ratio of FIDs."
    return Heat(f"{header} by projection and level", about, across, rows)


def _levels(cell: Cell) -> str:
    """The levels that have a discriminator: `L1-L4`; empty = it sees images, not features."""
    chosen = cell.spec.config.discriminator
    if chosen.on_images:
        return ""
    if chosen.kind != "projected":
        return "perceptual"
    return "-".join(f"L{i}" for i in sorted({min(chosen.layers), max(chosen.layers)}))


def tau_matrix(panel: metric_agreement.Panel) -> Heat:
    """Kendall's tau of each two metrics, coloured by its size."""

    def field(one: str, other: str) -> HeatField:
        if one == other:
            return HeatField("1")
        tau = panel.tau(one, other)
        if tau.value is None:
            return HeatField(tables.MISSING)
        span = f"{tau.low:.2f} to {tau.high:.2f}" if tau.low is not None else ""
        return HeatField(f"{tau.value:.2f}", span, round(-4 * tau.value))

    headers = {metric: vocabulary.column(metric).header for metric in panel.metrics}
    about = (
        f"Kendall's tau over {len(panel.rows)} rows: 1 (blue) is the same order, -1 (orange) the "
        "reverse. Under it the 95 % interval that the seeds give."
    )
    rows = [(head, [field(one, other) for other in headers]) for one, head in headers.items()]
    return Heat("Agreement of the metrics", about, list(headers.values()), rows)
