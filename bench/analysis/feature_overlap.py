"""Overlap of a metric's network with the row's own backbone: data both learned from, or family.

A generator that is trained against features can lower a distance in akin features without better
images; Kynkäänniemi et al. (arXiv 2203.06026) show it for FID and an ImageNet backbone in this
very method. A number of which that cannot be excluded is flagged wherever it stands, and ranks
nothing unless the grid file says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.analysis.verdicts import LeakageWord
from bench.config.extractors import EXTRACTOR_INFO
from bench.config.metrics import METRICS
from projgan.backbones.registry import TOGETHER, describe

if TYPE_CHECKING:
    from bench.analysis.cells import Cell
    from bench.config.spec import RunSpec
    from projgan.config import Backbone

# Data sets that hold others. LVD-142M: Table 15 of the DINOv2 paper (arXiv 2304.07193).
CONTAINS: dict[str, frozenset[str]] = {
    "ImageNet-1k": frozenset(),
    "ImageNet-21k": frozenset({"ImageNet-1k"}),
    "LVD-142M": frozenset({"ImageNet-21k", "ImageNet-1k"}),
    # Gathered like LVD-142M, and mixed with ImageNet itself (arXiv 2508.10104), from memory.
    "LVD-1689M": frozenset({"ImageNet-21k", "ImageNet-1k"}),
    "OpenAI image-text pairs": frozenset(),
    "WebLI": frozenset(),
    "LAION-2B": frozenset(),
    "rendered scenes": frozenset(),
    "rendered scenes of its own": frozenset(),
}


@dataclass(frozen=True)
class Verdict:
    """On one backbone and one metric."""

    kind: LeakageWord
    reason: str = ""  # for a footnote; empty = clear
    own: bool = False  # whether the backbone itself is what measured

    def __bool__(self) -> bool:
        """True if the number must be flagged."""
        return self.kind != "clear"


CLEAR = Verdict("clear")


def leakage(spec: RunSpec, metric: str) -> Verdict:
    """Return why a metric of a run may be low for another reason than its images.

    Args:
        spec: The run; one without a feature network in its discriminator leaks nothing.
        metric: A key of METRICS.
    """
    if spec.config.discriminator.on_images:
        return CLEAR
    return verdict(spec.config.backbone, metric, spec.levels_backbone)


def of_cell(cell: Cell, metric: str) -> Verdict:
    """Return the gravest verdict on the runs of a cell, which may be of several pretrainings."""
    return _gravest(leakage(spec, metric) for spec in cell.networks)


def _gravest(verdicts: Iterable[Verdict]) -> Verdict:
    found = list(dict.fromkeys(verdicts))
    worst = max(found, key=lambda v: (v.kind != "clear", v.kind == "shared", v.own))
    if len(found) == 1:
        return worst
    return replace(worst, reason=f"{worst.reason} in some of its runs")


def verdict(backbone: Backbone, metric: str, judge: Backbone) -> Verdict:
    """Return what a backbone and a metric have in common.

    Args:
        backbone: The feature network inside the discriminator.
        metric: A key of METRICS.
        judge: The reference backbone of `fd_levels`.
    """
    name = METRICS[metric].extractor
    info, ours = EXTRACTOR_INFO[name], describe(backbone)
    if name == "own":
        return Verdict("shared", "leakage: measured by the row's own backbone", own=True)
    if backbone.weights == "random":
        return CLEAR
    label, pretraining, family = info.label, info.pretraining, info.family
    if pretraining is None or family is None:  # made of a backbone: the judge
        theirs = describe(judge)
        label, pretraining, family = theirs.label, theirs.pretraining, theirs.family
        if theirs.zoo == ours.zoo and theirs.weights in ours.weights.split(TOGETHER):
            said = f"leakage: {label}, the row's own network, measured it"
            return Verdict("shared", said, own=True)
    shared = data_sets(ours.pretraining) & data_sets(pretraining)
    kin = set(ours.family.split()) & set(family.split())
    found = [f"learned from {_joined(shared)}"] if shared else []
    found += [f"are of one family ({_joined(kin)})"] if kin else []
    if found:
        both = f"leakage: {label}, which measured it, and the backbone "
        return Verdict("shared", both + " and ".join(found))
    unknown = [x for x in ours.pretraining.split(TOGETHER) if x.startswith("unknown")]
    if pretraining and unknown:
        return Verdict("unknown", f"leakage unknown: {unknown[0].removeprefix('unknown ')}")
    return CLEAR


def shared_by(specs: Iterable[RunSpec], metric: str) -> dict[str, str]:
    """Return why, for each row whose backbone shares pretraining or family with a metric."""
    alike = {
        (spec.row, spec.config.backbone, spec.config.discriminator.kind, spec.eval.levels): spec
        for spec in specs
    }  # whatever their seeds
    found: dict[str, list[Verdict]] = {}
    for spec in alike.values():
        found.setdefault(spec.row, []).append(leakage(spec, metric))
    worst = {row: _gravest(verdicts) for row, verdicts in found.items()}
    return {row: what.reason for row, what in worst.items() if what.kind == "shared"}


def data_sets(pretraining: str) -> frozenset[str]:
    """Return the data sets of a declared pretraining, and those that they hold.

    The form is `ImageNet-21k, then ImageNet-1k, labels`: after the last comma what was learned. Of
    several networks ` + ` stands between.
    """
    each = pretraining.split(TOGETHER)
    names = [name for one in each for name in one.rpartition(", ")[0].split(", then ")]
    return frozenset(n for name in names if name for n in (name, *CONTAINS.get(name, ())))


def _joined(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
