"""Published judgements of people, real or generated, beside the paper's FID of the same methods.

The shares are computed from the data of dgm-eval (Stein et al., NeurIPS 2023); nothing here was
asked anew. experiments/paper/human_realism.csv holds them with their source.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.analysis import paper_numbers


@dataclass(frozen=True)
class Judged:
    """Judgement of people on the images of one method."""

    dataset: str
    method: str
    share: float  # of its images that were taken for real, per cent
    low: float  # 95 % interval over people
    high: float
    people: int
    source: str
    fid: float | None  # the paper's Table 3, where it has the method on this set


def judgements() -> list[Judged]:
    """Return all of them, by data set and the most often taken for real first."""
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
    """Return two methods on every data set on which people and the paper's FID judged both."""
    of = {(one.method, one.dataset): one for one in judgements() if one.fid is not None}
    return [(of[these, one.dataset], one) for one in of.values()
            if one.method == than and (these, one.dataset) in of]  # fmt: skip
