"""Texts around a table: its caption, the notes under it and remarks on single rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.analysis import feature_overlap, metric_agreement, paper_numbers, row_tests
from bench.analysis.cells import AVERAGED, Cell, Run
from bench.analysis.stats import kendall, spearman
from bench.config import columns as vocabulary
from bench.config.metrics import METRICS
from bench.config.spec import STATISTICS, Grid, changed
from bench.report import manifest
from bench.store.record import protocol

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.facts import Facts

BEST_NOTE = (
    "Best: the snapshot is chosen on one generated sample and measured on a fresh one; gap: what "
    "the fresh sample adds to the value that was best."
)


def caption(facts: Facts) -> str:
    """Return the data, the budget and the protocol of a grid in words, from its records."""
    grid, cells, runs = facts.grid, facts.cells, facts.finished
    data = _varying(map(_data, runs))
    budget = _varying(f"{r.points[-1].nimg / 1000:.3g}" for r in runs)
    batch = _varying(str(r.spec.config.train.batch) for r in runs)
    ends = [r.points[-1].eval for r in runs if not r.incomparable]
    fake = _varying(str(e.get("fake", "?")) for e in ends)
    real = _varying(str(e.get("real", "?")) for e in ends)
    several = any(len(cell.finished) > 1 for cell in cells)
    about = grid.about.rstrip(".")
    parts = [
        f"{about[:1].upper()}{about[1:]}.",
        f"Scale {grid.scale}: {data}.",
        f"{budget} thousand images shown to the discriminator (batch {batch}).",
        f"Last snapshot; {fake} generated against {real} real images.",
    ]
    if grid.report.rank_by and grid.report.statistic != "last":
        name = vocabulary.column(grid.report.rank_by).header
        parts.append(f"{name}: {STATISTICS[grid.report.statistic]}.")
    if grid.overrides:
        changes = ", ".join(
            f"{key}={value}" for key, value in manifest.public(grid.overrides).items()
        )
        parts.append(f"Changed on the command line: {changes}.")
    if several:
        counts = sorted({len(cell.finished) for cell in cells} - {0})
        n = f"n = {counts[0]}" if len(counts) == 1 else "n"
        parts.append(f"Mean ± standard deviation over {n} runs.")
    shown = vocabulary.expand(grid.report.columns)
    levels = [k for k in shown if "fd_l1" in k]
    if levels:
        network = _varying(str(e.get("levels", "?")) for e in ends)
        parts.append(f"FD-L1 to FD-L4: feature levels of {network}, shallow to deep.")
    if any(key in METRICS and METRICS[key].extractor in ("lab", "levels") for key in shown):
        parts.append(
            "Lab distances use the project's own small networks: they are not FID and compare "
            "with nothing outside this project."
        )
    if grid.report.paper:
        parts.append("Columns marked paper are the published numbers at the paper's own scale.")
    return " ".join(parts)


def notes(facts: Facts) -> list[str]:
    """The lines under a grid's table."""
    grid, cells, report = facts.grid, facts.cells, facts.grid.report
    compared = [column for column in facts.comparisons.values() if column]
    panel = facts.agreement
    found = [
        rank_line(facts),
        *_leakage(grid),
        metric_agreement.conclusion(panel, report.rank_by) if panel else "",
        _accuracy_kind(cells) if "accuracy" in report.columns else "",
        row_tests.note(grid, compared) if compared else "",
        BEST_NOTE if any(c.startswith("best:") for c in report.columns) else "",
        certificate_line(facts, vocabulary.expand(report.columns)),
        *_counts(facts),
        floor_line(facts, vocabulary.expand(report.columns)),
        *signal_lines(facts),
        *report.notes,
    ]
    return [note for note in found if note]


def signal_lines(facts: Facts) -> list[str]:
    """Signal to noise of the ranking metric, and what the tests of the claims would find."""
    signal, metric = facts.signal, facts.grid.report.rank_by
    if signal is None or metric is None:
        return []
    without = f" ({signal.others.ratio:.2f} without {signal.worst})" if signal.others else ""
    spread = f"coefficient of variation within a row {signal.rows.variation:.0%}"
    name = vocabulary.column(metric).header
    lines = [f"Signal to noise of {name}: {signal.rows.ratio:.2f}{without}; {spread}."]
    effects = {claim.id: finding.smallest_effect for claim, finding in facts.findings}
    found = [f"{name} {x:.2f}" for name, x in effects.items() if x and math.isfinite(x)]
    never = [name for name, x in effects.items() if x and math.isinf(x)]
    parts = [", ".join(found), f"none with so few seeds: {', '.join(never)}" if never else ""]
    if found or never:
        lines.append(
            "Smallest effect that the paired test of a claim finds at 5 % with 80 % power, as a "
            f"ratio of means: {'; '.join(part for part in parts if part)}."
        )
    return lines


def floor_line(facts: Facts, shown: Sequence[str]) -> str:
    """Return the distance of real images to others; empty = none is shown, or not alike."""
    floors = [floor for run in facts.finished if (floor := (run.record or {}).get("floor"))]
    if not floors or any(floor != floors[0] for floor in floors):
        return ""
    values = {key: floors[0]["metrics"].get(key) for key in shown}
    said = [f"{METRICS[k].header} {v:.3g}" for k, v in values.items() if v is not None]
    if not said:
        return ""
    less = "" if floors[0]["whole"] else " (of more images, which a measurement has, it is lower)"
    return (
        f"Floor, {floors[0]['fake']} real images against {floors[0]['real']} others{less}: "
        f"{', '.join(said)}."
    )


def remarks(facts: Facts, cell: Cell) -> list[str]:
    """Return the remarks on a cell's ranking value: another protocol, or that it did not learn."""
    metric = facts.grid.report.rank_by
    if metric is None:
        return []
    found = [
        f"measured with {name}={run.points[-1].eval.get(name)} where the grid has {wanted}"
        for run in cell.finished
        if not run.incomparable
        for name, wanted in protocol(run.spec).items()
        if run.points[-1].eval.get(name) != wanted
    ]
    ours, control = cell.stat(metric), _control(facts, cell)
    if ours and vocabulary.lower_is_better(metric):
        ratio, theirs = cell.progress(metric), control.stat(metric) if control else None
        if ratio and ratio.mean >= 0.5:
            found.append(f"ends at {ratio.mean:.2f} of its own value at 1 kimg, not below half")
        if theirs and ours.mean >= theirs.mean:
            found.append("not below its control with random weights")
    return list(dict.fromkeys(found))


def _control(facts: Facts, cell: Cell) -> Cell | None:
    """The cell that has random weights and all else in common; None = there is none."""

    def rest(one: Cell) -> dict[str, Any]:
        fields = changed(one.spec.config)
        return {k: v for k, v in fields.items() if k not in ("backbone.weights", *AVERAGED)}

    random = (c for c in facts.cells if c.spec.config.backbone.weights == "random")
    return next((c for c in random if c is not cell and rest(c) == rest(cell)), None)


def rank_line(facts: Facts) -> str:
    """Return the rank correlation with the paper in words; empty = fewer than three rows."""
    both, ranking, name = facts.beside_paper, facts.ranking, facts.grid.report.paper
    if ranking is None or name is None or len(both) < 3:
        return ""
    relative = paper_numbers.main_column(name) == "paper_rel_fid"
    rho, tau = _correlations(both, ranking.sign)
    line = (
        f"Spearman rank correlation with the paper's {'relative FID' if relative else 'FID'} over "
        f"{len(both)} rows: {rho} (Kendall's tau {tau}; our ranking by {ranking.metric})."
    )
    sure = both[~both["confidence"].str.startswith("memory")]
    if 3 <= len(sure) < len(both):
        line += (
            f" Without the paper's numbers from memory, over {len(sure)} rows: "
            f"{_correlations(sure, ranking.sign)[0]}."
        )
    return line


def certificate_line(facts: Facts, keys: Iterable[str]) -> str:
    """Return the largest gap between two routes to a distance; empty = none was certified."""
    shown = {vocabulary.metric_of(key) for key in keys}
    finals = [run.final for run in facts.finished if run.final and not run.incomparable]
    gaps = [gap for final in finals for key, gap in final.certificates.items() if key in shown]
    if not gaps:
        return ""
    return (
        f"{len(gaps)} distances were computed by two independent routes, which differ by "
        f"{max(gaps):.0e} at most."
    )


def usual_accuracy(cells: Sequence[Cell]) -> str:
    """Return the kind of accuracy that most rows have; empty = none has. Others get a footnote."""
    kinds = [kind for cell in cells if (kind := accuracy_kind(cell))]
    return max(dict.fromkeys(kinds), key=kinds.count, default="")


def accuracy_kind(cell: Cell) -> str:
    """Return the kind of a row's accuracy, such as `top-1, %`; empty = it has none."""
    kinds = (
        ((run.record or {}).get("backbone") or {}).get("accuracy_kind", "")
        for run in cell.finished
        if run.value("accuracy") is not None
    )
    return next(kinds, "")


def _accuracy_kind(cells: Sequence[Cell]) -> str:
    kind = usual_accuracy(cells)
    return f"Accuracy: of a network in its own pretraining ({kind})." if kind else ""


def _leakage(grid: Grid) -> list[str]:
    """Return the reason that a flagged metric ranks, and the flag of the paper's own numbers."""
    report, notes = grid.report, []
    if report.rank_by and feature_overlap.shared_by(grid.runs, report.rank_by):
        name = vocabulary.column(report.rank_by).header
        notes.append(f"Ranked by {name} in spite of leakage: {report.rank_despite_leakage}")
    if any(key in vocabulary.PAPER and "fid" in key for key in report.columns):
        notes.append(
            "Leakage in the paper's FID: Inception-v3 learned from ImageNet-1k as the paper's "
            "feature networks did, R50-CLIP apart."
        )
    return notes


def _counts(facts: Facts) -> list[str]:
    if not facts.unfinished:
        return []
    kinds = Counter(run.status for _, run in facts.unfinished)
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return [f"{len(facts.finished)} of {len(facts.runs)} runs finished ({counts})."]


def _correlations(both: pd.DataFrame, sign: int) -> tuple[str, str]:
    """Spearman's rho and Kendall's tau of our values and the paper's."""
    ours, theirs = (sign * both["ours"]).tolist(), both["paper"].tolist()
    found = spearman(ours, theirs), kendall(ours, theirs)
    rho, tau = ("undefined" if x is None else f"{x:.2f}" for x in found)
    return rho, tau


def _data(run: Run) -> str:
    found = (run.record or {}).get("data") or {}
    name = found.get("name", run.spec.config.data.name)
    images = found.get("trained_on", found.get("images", "?"))
    return f"{name} at {run.spec.config.data.resolution} px ({images} images)"


def _varying(values: Iterable[str]) -> str:
    """The one value, or all of them: `6` or `3, 6`."""
    return ", ".join(dict.fromkeys(values))
