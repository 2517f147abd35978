"""Verdicts on the paper's numbers: reproduced or not, and when the question does not arise.

Two numbers can only agree where they were measured alike. So the protocol of each of the paper's
tables lies in experiments/paper/protocols.csv, field by field with its source, and a field that
differs, or that nobody here knows, makes the verdict `protocol differs` whatever the values are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis import paper_numbers
from bench.analysis.cells import Cell, Run, Stat
from bench.analysis.feature_overlap import of_cell
from bench.analysis.stats import mean_interval
from bench.analysis.verdicts import ON_VALUES, NumberWord
from bench.config.metrics import METRICS
from bench.config.spec import Grid, changed
from projgan.config import LIKENESSES

MARGIN = 0.05  # of the paper's number: how near counts as the same

# The paper's column -> what of ours is its counterpart, the nearest protocol first; `rel` is
# relative to the baseline row. A metric without the paper's extractor can only differ.
COUNTERPARTS: dict[str, tuple[str, ...]] = {
    "paper_fid": ("fid_nvlabs", "fid_legacy", "fid", "fd_lab"),
    "paper_rel_fid": ("rel:fid_nvlabs", "rel:fid_legacy", "rel:fid", "rel:fd_lab"),
    **{f"paper_rel_fd_l{i}": (f"rel:fd_l{i}",) for i in (1, 2, 3, 4)},
    "paper_kid": ("kid", "kid_lab"),
    "paper_swav_fid": ("fd_swav",),
    "paper_precision": ("precision", "precision_lab"),
    "paper_recall": ("recall", "recall_lab"),
    "paper_params_m": ("params_m",),
    "paper_top1": ("accuracy",),
}
OF_THE_NETWORK = ("paper_params_m", "paper_top1")  # no images are generated for these
# The paper's column -> whose features it was measured in; others as protocols.csv has it.
EXTRACTORS = {
    **{f"paper_rel_fd_l{i}": "levels: efficientnet_lite1 (imagenet)" for i in (1, 2, 3, 4)},
    "paper_precision": "vgg16",
    "paper_recall": "vgg16",
    "paper_kid": "inception_graph",
    "paper_swav_fid": "swav",
}
# Fields of a configuration that the protocol compares itself; every other one must be as the paper
# has it, which is its default, unless it is what the paper's table varies from row to row.
NOT_RECIPE = {"data.name", "data.path", "data.images", "data.resolution", "train.seed",
              "train.total_kimg", "train.norm_group"}  # fmt: skip
VARIES: dict[str, set[str]] = {
    "table1": {"projection.kind", "discriminator.kind", "discriminator.layers"},
    "table2": {"backbone.name"},
    "figure4": {"data.subset"},
}

# Field -> value; None = not known.
Protocol = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    word: NumberWord
    reason: str = ""  # one line; empty = the word says it all

    @property
    def text(self) -> str:
        return f"{self.word}: {self.reason}" if self.reason else self.word


@dataclass(frozen=True)
class Judged:
    """One of the paper's numbers beside ours."""

    column: str  # key of the paper's column
    paper: paper_numbers.PaperValue
    key: str  # what of ours was compared; "" = nothing was measured
    stat: Stat | None
    verdict: Verdict
    leakage: str = ""  # what the metric's network and the row's backbone share


def verdict(
    points: Sequence[float],
    paper: float | None,
    ours: Protocol,
    theirs: Protocol,
    margin: float = MARGIN,
) -> Verdict:
    """Return whether measurements agree with a number of the paper.

    Args:
        points: one value per seed; none = not run.
        paper: the paper's number; None = unknown.
        ours: how `points` were measured.
        theirs: how the paper's number was. Each of its fields must be known on both sides and
            equal, or nothing can be reproduced.
        margin: as a share of the paper's number.
    """
    if not points:
        return Verdict("not run")
    if paper is None:
        return Verdict("paper's number unknown")
    if apart := differences(ours, theirs):
        return Verdict("protocol differs", "; ".join(apart))
    interval = mean_interval(points)
    if interval is None:
        return Verdict("too few seeds", "one run has no interval")
    near = margin * abs(paper)
    if paper - near <= interval.low and interval.high <= paper + near:
        return Verdict("reproduced")
    said = f"{interval.low:.3g} to {interval.high:.3g}"
    if interval.low <= paper <= interval.high:
        return Verdict("within seed noise", said)
    return Verdict("not reproduced", said)


def differences(ours: Protocol, theirs: Protocol) -> list[str]:
    """Return what keeps two measurements from being compared, in words; empty = nothing."""
    if "scale" in theirs and ours.get("scale") not in (None, theirs["scale"]):
        # Everything may differ then: the fields are named without values; groups are of the recipe.
        named = {n: v for n, v in theirs.items() if n not in ("scale", "norm_group")}
        rest = [n for n, v in named.items() if _plain(ours.get(n)) != _plain(v)]
        also = f" (and with it {', '.join(rest)})" if rest else ""
        return [f"scale {ours['scale']} instead of {theirs['scale']}{also}"]
    found = []
    for name, wanted in theirs.items():
        got = ours.get(name)
        if wanted is None:
            found.append(f"{name} of the paper unknown")
        elif got is None:
            found.append(f"{name} not recorded")
        elif _plain(got) != _plain(wanted):
            found.append(f"{name} {_shown(got)} instead of {_shown(wanted)}")
    return found


def judge(
    grid: Grid, cell: Cell, paper: paper_numbers.PaperRow, baseline: Cell | None = None
) -> list[Judged]:
    """Return every number that the paper has for a row, with its verdict.

    Args:
        grid: names the paper's table.
        cell: the row.
        paper: the paper's numbers for it.
        baseline: the row that relative numbers divide by, at the same axis values.
    """
    table = grid.report.paper or ""
    doubts = paper_numbers.unconfirmed(table)
    measured = our_protocol(cell, VARIES.get(table, set()))
    found = []
    for column, number in paper.items():
        if number.confidence in ("by definition", "not applicable"):
            continue
        stats = {key: _stat(cell, key, baseline) for key in COUNTERPARTS.get(column, ())}
        key = next((key for key, stat in stats.items() if stat), "")
        stat, metric = stats.get(key), key.rpartition(":")[2]
        ours = measured | _alike([_extractor(run, metric) for run in _counted(cell)]) if key else {}
        theirs = paper_protocol(table, column, cell)
        one = verdict(stat.points if stat else (), number.value, ours, theirs)
        if doubts and one.word in ON_VALUES and column not in OF_THE_NETWORK:
            doubt = f"the paper's {' and '.join(doubts)}, not confirmed"
            one = replace(one, reason="; ".join(filter(None, (one.reason, doubt))))
        leak = of_cell(cell, metric).reason if metric in METRICS else ""
        found.append(Judged(column, number, key, stat, one, leak))
    return found


def paper_protocol(paper: str, column: str, cell: Cell) -> dict[str, Any]:
    """Return how a number of the paper was measured. A value of None = nobody here knows."""
    if column in OF_THE_NETWORK:
        return {"scale": "paper"}
    values: dict[str, Any] = {"scale": "paper", "recipe": ""}
    values |= paper_numbers.protocol(paper, cell.spec)
    for name in ("data", "resolution", "extractor", "images", "fake", "real"):
        values.setdefault(name, None)
    if column in EXTRACTORS:
        values["extractor"] = EXTRACTORS[column]
    return values | {"weights": "the paper's", "norms": "copied"}


def our_protocol(cell: Cell, varied: Collection[str] = ()) -> dict[str, Any]:
    """Return how a cell's runs were measured; a field in which they differ has all values."""
    return _alike([_protocol_of(run, varied) for run in _counted(cell)])


def _counted(cell: Cell) -> list[Run]:
    return [run for run in cell.finished if not run.incomparable]


def _alike(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The value of each field that all share, or their different values in words."""
    found = {}
    for name in protocols[0] if protocols else ():
        first, *others = {repr(one[name]): one[name] for one in protocols}.values()
        found[name] = " and ".join(map(str, [first, *others])) if others else first
    return found


def _extractor(run: Run, metric: str) -> dict[str, str | None]:
    """The extractor that a run's metric was computed with."""
    extractor: str | None = METRICS[metric].extractor if metric in METRICS else None
    if extractor == "levels":
        levels = run.final.eval.get("levels") if run.final else None
        judge = f"levels: {run.spec.eval.levels} ({run.spec.levels_backbone.zoo})"
        extractor = judge if levels else None
    return {"extractor": extractor}


def _protocol_of(run: Run, varied: Collection[str]) -> dict[str, Any]:
    record, spec, final = run.record or {}, run.spec, run.final
    train, smaller = spec.config.train, record.get("micro_batch")
    together = smaller["images"] if smaller else train.micro_batch or train.batch
    data, done = record.get("data") or {}, final.eval if final else {}
    note = (record.get("backbone") or {}).get("note", "")
    other = {k: v for k, v in changed(spec.config).items() if k not in {*NOT_RECIPE, *varied}}
    name = data.get("name")
    if name in LIKENESSES and spec.config.data.path is None:
        name = f"{name} as rendered here"
    return {
        "scale": record.get("scale"),
        "recipe": ", ".join(f"{k}={v}" for k, v in other.items()),
        "data": name,
        "resolution": ((record.get("config") or {}).get("data") or {}).get("resolution"),
        "norm_group": train.norm_group or together,
        "images": final.nimg if final else None,
        "fake": done.get("fake"),
        "real": done.get("real"),
        "norms": spec.eval.norms,
        "weights": "others" if note.startswith("protocol differs") else "the paper's",
    }


def _stat(cell: Cell, key: str, baseline: Cell | None) -> Stat | None:
    """Our values for a paper's number: of a run the best snapshot, as the paper reports it."""
    kind, _, name = key.rpartition(":")
    if name not in METRICS:
        return cell.stat(name)
    stat = cell.best(name, METRICS[name].lower_is_better)
    if kind == "rel" and stat is not None:
        divisor = baseline.best(name, METRICS[name].lower_is_better) if baseline else None
        if divisor is None or divisor.mean == 0:
            return None
        stat = Stat(tuple(point / divisor.mean for point in stat.points))
    return stat


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            value = float(value)
        except (TypeError, ValueError):
            return re.sub(r"[^a-z0-9:()]", "", str(value).lower())
    return f"{float(value):.10g}"


def _shown(value: Any) -> str:
    return "none" if value == "" else str(value)
