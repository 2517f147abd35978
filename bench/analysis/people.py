"""Whom people take for real: published judgements beside the paper's FID of the same methods.

The shares are computed from the data of dgm-eval (Stein et al., NeurIPS 2023); nothing here was
asked anew. experiments/paper/human_realism.csv holds them with their source.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.analysis import paper_numbers
from bench.analysis.table import Entry, Row, Table
from bench.config.columns import Column


@dataclass(frozen=True)
class Judged:
    """What people said of the images of one method."""

    dataset: str
    method: str
    share: float  # of its images that were taken for real, per cent
    low: float  # 95 % interval over people
    high: float
    people: int
    source: str
    fid: float | None  # the paper's Table 3, where it has the method on this set


def judgements() -> list[Judged]:
    """All of them, by data set and the most often taken for real first."""
    fids = {(line["dataset"], line["method"]): line["fid"] for line in paper_numbers.read("table3")}
    found = [
        Judged(
            line["dataset"],
            line["method"],
            float(line["taken_for_real_percent"]),
            float(line["low"]),
            float(line["high"]),
            int(line["participants"]),
            line["source"],
            float(fid) if (fid := fids.get((line["dataset"], line["method"]))) else None,
        )
        for line in paper_numbers.read("human_realism")
    ]
    return sorted(found, key=lambda one: (one.dataset, -one.share))


def pairs(these: str, than: str) -> list[tuple[Judged, Judged]]:
    """Two methods on every data set on which people and the paper's FID judged both."""
    of = {(one.method, one.dataset): one for one in judgements() if one.fid is not None}
    return [(of[these, one.dataset], one) for one in of.values()
            if one.method == than and (these, one.dataset) in of]  # fmt: skip


def table(name: str) -> Table:
    """The judgements as a table beside a grid's own; `name` is the grid's."""
    rows = [
        Row((
            Entry(text=one.dataset),
            Entry(text=one.method),
            Entry(one.share),
            Entry(text=f"{one.low:g} to {one.high:g}"),
            Entry(float(one.people)),
            Entry(one.fid, confidence="verified-image" if one.fid is not None else ""),
        ))
        for one in judgements()
    ]  # fmt: skip
    return Table(
        name=f"{name}-people",
        file="people",
        caption="How many generated images people took for real. Published data, not ours.",
        columns=(
            Column("dataset", "data set", text=True),
            Column("method", "method", text=True),
            Column("taken_for_real", "taken for real", "%", decimals=1),
            Column("interval", "95 %", text=True),
            Column("people", "people", decimals=0),
            Column("paper_fid", "FID (paper)", paper=True),
        ),
        rows=tuple(rows),
        notes=(
            *dict.fromkeys(one.source for one in judgements()),
            (
                "Where both judge this method, they disagree: its FID is the lower, and people "
                "take fewer of its images for real. FID ranks snapshots and settings of one "
                "method; it does not say whose images look more real."
            ),
            "People saw published generators, not those of the paper's table.",
        ),
    )
