"""Descriptions of runs and grids: a configuration, its evaluation, its place in a table.

Identity (which folder a run lives in) is a short hash of the configuration fields that differ from
their defaults, plus `RECIPE_VERSION`. Evaluation and the grid that asked are not part of it, so two
grids share a run that they both need, and a new metric adds to old runs instead of repeating them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from bench.config.metrics import EVAL_NORMS
from projgan.config import Backbone, Config, from_dict
from projgan.errors import DataError, UserError, unknown

# Raise it when a changed default or a changed computation makes old runs incomparable.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class EvalSpec:
    """Times and ways of measuring the snapshots of a run; not part of a run's identity."""

    metrics: tuple[str, ...] = ()  # rows of bench.config.metrics.METRICS
    every_kimg: float = 200.0  # a snapshot after each so many thousand images, and at the end
    also_at_kimg: tuple[float, ...] = ()  # further snapshots, for the steep start of a curve
    fake: int = 50000  # generated images that a distance is computed from
    real: int | None = None  # real images that it is computed from. None = all
    levels: str = "efficientnet_lite1"  # backbone of fd_levels, in the zoo of the run
    levels_size: int | None = None  # pixels that fd_levels sees images at. None = the zoo's rule
    floor: bool = False  # what two disjoint sets of real images differ by is measured too
    best: tuple[str, ...] = ()  # metrics whose best snapshot is measured again on fresh samples
    norms: str = "copied"  # batch-norm statistics of the averaged generator: standing or copied

    def __post_init__(self) -> None:
        if self.every_kimg <= 0:
            raise UserError(f"eval.every_kimg={self.every_kimg}: give more than 0")
        if any(k <= 0 for k in self.also_at_kimg):
            raise UserError(f"eval.also_at_kimg={list(self.also_at_kimg)}: give more than 0")
        if self.norms not in EVAL_NORMS:
            raise UserError(unknown("eval.norms", self.norms, EVAL_NORMS))
        for name, value in (("fake", self.fake), ("real", self.real)):
            if value is not None and value < 2:
                raise UserError(f"eval.{name}={value}: a distance needs 2 images or more")

    def snapshot_at(self, total_kimg: float, batch: int) -> tuple[int, ...]:
        """The numbers of images, in whole batches and ascending, at which a run is measured."""
        steps = int(total_kimg / self.every_kimg + 1e-9)
        points = [self.every_kimg * (i + 1) for i in range(steps)]
        points += [k for k in self.also_at_kimg if k < total_kimg]
        return tuple(sorted({in_batches(k, batch) for k in [*points, total_kimg]}))


# The value of a run in the ranking metric. docs/statistics.md defines it.
STATISTICS = {
    "last": "of the last snapshot",
    "second_half": "geometric mean over the snapshots of the second half of the budget",
}


@dataclass(frozen=True)
class ReportSpec:
    """The contents of a grid's tables."""

    paper: str | None = None  # experiments/paper/<paper>.csv, whose numbers stand beside ours
    rank_by: str | None = None  # the metric that orders rows and enters the rank correlation
    statistic: str = "last"  # of rank_by: a name of STATISTICS
    rank_despite_leakage: str | None = None  # why it does although it is flagged; printed
    columns: tuple[str, ...] = ()
    baseline: str | None = None  # label of the row that the rel: columns divide by
    compare_to: str | None = None  # row, or AXIS=VALUE, that is tested against. None = baseline
    target: str | None = None  # of rank_by: a value, row:LABEL (its best) or 5% (of own best)
    parts: str | None = None  # figures of python -m bench.report.parts: a further table
    people: bool = False  # a table of what people took for real, from published data
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A named line of a table."""

    label: str
    set: Mapping[str, Any] = field(default_factory=dict)  # dotted configuration keys
    paper: Mapping[str, str] | None = None  # column -> value; picks its one line of the paper's csv
    resources: Mapping[str, Any] = field(default_factory=dict)  # asked of a cluster
    preset: str | None = None  # of experiments/presets.yaml, which is in `set`


@dataclass(frozen=True)
class RunSpec:
    """One run: a cell (a row and its axis values) at one seed."""

    grid: str  # name of the grid that asks for the run
    row: str  # label of the row
    axes: Mapping[str, Any]  # dotted key -> value
    scale: str
    config: Config
    eval: EvalSpec

    @cached_property
    def run_id(self) -> str:
        return _hash(changed(self.config))

    @property
    def label(self) -> str:
        """The row's label, with the axis values where there are axes."""
        return labelled(self.row, self.axes)

    @property
    def name(self) -> str:
        """The label and the seed: what tells this run from the grid's others."""
        return f"{self.label} · seed={self.config.train.seed}"

    @property
    def levels_backbone(self) -> Backbone:
        """The backbone of fd_levels.

        Of the lab networks it has pretraining seed 1, so that no row of seed 0, which is what grids
        use, is measured by the very weights it trained with. `bench.analysis.feature_overlap`
        flags the others.
        """
        return _levels_backbone(self.eval.levels, self.config.backbone.zoo, self.eval.levels_size)

    @property
    def total_images(self) -> int:
        return self.snapshot_at[-1]

    @property
    def snapshot_at(self) -> tuple[int, ...]:
        train = self.config.train
        return self.eval.snapshot_at(train.total_kimg, train.batch)

    def to_json(self) -> dict[str, Any]:
        """Everything about the run as plain JSON values."""
        head = {"run_id": self.run_id, "recipe_version": RECIPE_VERSION}
        value: dict[str, Any] = json.loads(json.dumps(head | dataclasses.asdict(self)))
        return value

    @classmethod
    def read(cls, path: Path) -> RunSpec:
        """From a run's spec.json.

        Raises:
            DataError: it is missing, damaged or of another version.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except UserError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # whatever is not as `to_json` wrote it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(f"{path}: no description of a run ({reason})") from None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunSpec:
        """The inverse of `to_json`; a configuration field that the JSON lacks is at its default."""
        plain = {name: value[name] for name in ("grid", "row", "axes", "scale")}
        measured: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value["eval"].items()
        }
        return cls(**plain, config=from_dict(value["config"]), eval=EvalSpec(**measured))


@dataclass(frozen=True)
class Claim:
    """A finding of the paper; the fields that its check does not use are empty."""

    id: str
    says: str
    source: str  # where the paper says it
    grid: str  # whose runs decide
    check: str  # a name of analysis.checks.CHECKS
    metric: str = "fd"  # key of METRICS; in the file, a scale's name for it as well
    these: tuple[str, ...] = ()  # cells, or values of an axis
    than: tuple[str, ...] = ()
    axis: str | None = None
    x: str | None = None
    expects: str | None = None
    within: float | None = None
    scales: tuple[str, ...] | None = None  # the claim is made at these scales only


@dataclass(frozen=True)
class Grid:
    """A grid file at one scale, with what the command line changed."""

    name: str
    about: str
    scale: str
    rows: tuple[Row, ...]
    axes: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    eval: EvalSpec
    report: ReportSpec
    runs: tuple[RunSpec, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)  # from the command line


def value_name(key: str, value: Any) -> str:
    """An axis value as labels, tables and files show it: never empty, as nothing has a name too."""
    if value is None:
        return "all" if key.startswith("data.") else "default"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def labelled(row: str, axes: Mapping[str, Any]) -> str:
    """A row's label with its axis values."""
    return " · ".join([row, *(f"{k.split('.')[-1]}={value_name(k, v)}" for k, v in axes.items())])


@cache
def _levels_backbone(name: str, zoo: Literal["imagenet", "lab"], size: int | None) -> Backbone:
    return Backbone(name=name, zoo=zoo, pretrain_seed=1 if zoo == "lab" else 0, input_size=size)


def in_batches(kimg: float, batch: int) -> int:
    """The first whole number of batches that covers `kimg` thousand images, in images."""
    images = round(kimg * 1000)
    return max(-(-images // batch), 1) * batch


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass of dataclasses as dotted key -> plain value (tuples as lists)."""
    out: dict[str, Any] = {}
    kind: Any = type(value)
    for name, is_float in _fields(kind):
        item = getattr(value, name)
        if dataclasses.is_dataclass(item):
            out |= flatten(item, f"{prefix}{name}.")
        elif isinstance(item, tuple):
            out[prefix + name] = list(item)
        else:  # 6 and 6.0 are one number, and must give one identity
            out[prefix + name] = float(item) if is_float and item is not None else item
    return out


@cache
def _fields(kind: type) -> tuple[tuple[str, bool], ...]:
    """Names of a dataclass's fields, and which are floats: the same for thousands of runs."""
    hints = get_type_hints(kind)
    return tuple(
        (f.name, float in (hints[f.name], *get_args(hints[f.name])))
        for f in dataclasses.fields(kind)
    )


@cache
def _defaults() -> dict[str, Any]:
    return flatten(Config())


def changed(config: Config) -> dict[str, Any]:
    """The fields that differ from their defaults, dotted: what decides a run's identity."""
    found: dict[str, Any] = {}
    for section, _ in _fields(Config):
        found |= _changed(section, getattr(config, section))
    return found


@cache
def _changed(section: str, value: Any) -> dict[str, Any]:
    # By section, as the runs of a cell share all of them but the one that holds the seed.
    default = _defaults()
    return {k: v for k, v in flatten(value, f"{section}.").items() if v != default[k]}


def _hash(fields: dict[str, Any]) -> str:
    text = json.dumps([RECIPE_VERSION, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
