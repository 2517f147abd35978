"""Records -> cells: what each line of a table knows, with every point kept and no gap hidden."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.analysis.stats import Interval, mean_interval
from bench.config.columns import SHARES
from bench.config.metrics import EVAL_NORMS, grid_key, record_key, version
from bench.config.paths import RunPaths
from bench.config.spec import labelled
from bench.store import record as records
from projgan.errors import UserError

if TYPE_CHECKING:
    from bench.config.spec import RunSpec

Record = dict[str, Any]
Status = Literal["finished", "running", "failed", "missing", "unreadable"]

# A row is averaged over these as it is over seeds: neither is what a table compares.
AVERAGED = ("train.seed", "backbone.pretrain_seed")

# Column of a table -> where a record holds its value; a metric is looked up in the last snapshot.
FIELDS: dict[str, tuple[str, ...]] = {
    "params_m": ("backbone", "params_m"),
    "accuracy": ("backbone", "accuracy"),
    "generator_m": ("params", "generator_m"),
    "discriminator_m": ("params", "discriminator_m"),
    "images_per_s": ("throughput", "images_per_s"),
    "s_per_kimg": ("throughput", "images_per_s"),  # its inverse
    "gflop_per_image": ("throughput", "gflop_per_image"),
    "peak_share": ("throughput", "peak_share"),
    "peak_mb": ("memory", "peak_mb"),
    "time_s": ("time", "total_s"),
    "train_s": ("time", "train_s"),
    "eval_s": ("time", "eval_s"),
}
# The same for what is measured in a run's last session alone.
SESSION: dict[str, tuple[str, ...]] = {
    "warmup_s": ("throughput", "warmup_seconds"),
    "checkpoint_s": ("ledger", "session", "checkpoint_s"),
    "unexplained_s": ("ledger", "session", "rest_s"),
    **{f"share_{part}": ("ledger", "shares", part) for part in SHARES},
}


@dataclass(frozen=True)
class Point:
    """One evaluated snapshot of a run."""

    nimg: int  # real images shown to the discriminator so far
    train_seconds: float  # clock of training alone
    metrics: dict[str, float]
    missing: dict[str, str]  # metric -> why it could not be computed
    eval: dict[str, Any]
    samples: str | None  # PNG, relative to the run's folder
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %
    certificates: dict[str, float] = field(default_factory=dict)  # gaps between two routes

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of the measurement: numbers of images, reference network."""
        return {k: v for k, v in self.eval.items() if k not in ("seconds", "extractors")}

    def like(self, other: Point) -> bool:
        """Return whether both were measured alike, by the same networks where both used one."""
        ours, theirs = (p.eval.get("extractors") or {} for p in (self, other))
        same = all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())
        return same and self.protocol == other.protocol


@dataclass(frozen=True)
class Run:
    """A run as the report sees it: what was asked for, and what its record says."""

    spec: RunSpec
    folder: Path
    status: Status
    reason: str = ""  # one line; empty for a finished run
    record: Record | None = None
    points: tuple[Point, ...] = ()  # by number of images, ascending
    incomparable: str = ""  # why its metrics cannot be compared with the other runs'
    second_half: str | None = None  # the metric whose value is its mean there, not the last

    @property
    def final(self) -> Point | None:
        return self.points[-1] if self.points else None

    @property
    def replicate(self) -> tuple[int, int]:
        """Training and pretraining seed (-1 = no axis of the grid), by which cells are paired."""
        pretrain_seed = self.spec.axes.get("backbone.pretrain_seed", -1)
        return self.spec.config.train.seed, pretrain_seed

    @cached_property
    def values(self) -> dict[str, float]:
        """Every finite number that a table can show, by column: metrics are the last snapshot's."""
        found: dict[str, Any] = {}
        for key, path in (FIELDS | SESSION).items():
            part: Any = self.record
            for name in path:
                part = (part or {}).get(name)
            found[key] = part
        if self.final and not self.incomparable:
            found |= self.final.metrics
            if self.second_half:
                found[self.second_half] = self._second_half_mean(self.second_half)
        return {k: _in_unit(k, float(v)) for k, v in found.items() if is_finite(v)}

    def _second_half_mean(self, key: str) -> float | None:
        """Geometric mean of a metric over the snapshots of the second half of the budget."""
        half = self.spec.total_images / 2
        values = [value for images, _, value in self.curve(key) if images > half]
        return statistics.geometric_mean(values) if values and min(values) > 0 else None

    def value(self, key: str) -> float | None:
        """A field of the record or a metric of the final snapshot; None = not measured."""
        return self.values.get(key)

    @cached_property
    def config_sha256(self) -> str | None:
        """Of the configuration that the record holds; None = it holds none."""
        config = (self.record or {}).get("config")
        if config is None:
            return None
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    @property
    def contended(self) -> bool:
        """Return whether other processes slowed the training that its speed is taken from."""
        return bool(((self.record or {}).get("ledger") or {}).get("contended"))

    def why_missing(self, key: str) -> str:
        """The reason that `value(key)` is None, for a footnote."""
        if path := FIELDS.get(key) or SESSION.get(key):
            if path[0] == "backbone" and not (self.record or {}).get("backbone"):
                return "has no feature network"
            random = key == "accuracy" and self.spec.config.backbone.weights == "random"
            return "random weights" if random else "not recorded"
        if self.final is None:
            return "no snapshot was evaluated"
        if self.incomparable:
            return self.incomparable
        return self.final.missing.get(key, "not evaluated")

    def curve(self, key: str) -> list[tuple[int, float, float]]:
        """`(images, training seconds, metric)` of every snapshot that has the metric."""
        return [
            (point.nimg, point.train_seconds, float(point.metrics[key]))
            for point in (() if self.incomparable else self.points)
            if is_finite(point.metrics.get(key))
        ]

    def best(self, key: str, lower_is_better: bool = True) -> float | None:
        """The best value on the curve. Picked after looking: never a substitute for the final."""
        values = [value for _, _, value in self.curve(key)]
        return (min if lower_is_better else max)(values, default=None)

    def fresh_best(self, key: str, lower_is_better: bool = True) -> float | None:
        """The best snapshot measured on a sample that did not choose it; None = it was not."""
        known = (self.record or {}).get("best")
        name = record_key(key, self.spec.eval.norms)
        done = known.get(name) if isinstance(known, dict) else None
        if not isinstance(done, dict) or done.get("chosen") != self.best(key, lower_is_better):
            return None  # chosen from another curve
        return float(done["fresh"]) if is_finite(done.get("fresh")) else None


@dataclass(frozen=True)
class Stat:
    """A value over the finished runs of a cell."""

    points: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.points)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.points)

    @property
    def min(self) -> float:
        return min(self.points)

    @property
    def max(self) -> float:
        return max(self.points)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n-1). None = a single run has no spread."""
        return statistics.stdev(self.points) if self.n > 1 else None

    @property
    def interval(self) -> Interval | None:
        """Of the mean: 95 % by Student's t, the range below five points. None = a single run."""
        return mean_interval(self.points)


@dataclass(frozen=True)
class Cell:
    """A row at one choice of axis values, over its seeds."""

    row: str
    axes: dict[str, Any]  # without those that are averaged over
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The row's label, with the axis values where the grid has axes."""
        return labelled(self.row, self.axes)

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.status == "finished")

    @cached_property
    def unfinished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.status != "finished")

    def unmeasured(self, reason: str = "") -> tuple[str, str]:
        """Status and reason of a row without a value.

        Args:
            reason: why the finished runs, if there are any, have none.
        """
        if self.unfinished and not (reason and self.finished):
            return self.unfinished[0].status, self.unfinished[0].reason
        return "not measured", reason

    @property
    def spec(self) -> RunSpec:
        return self.runs[0].spec

    @cached_property
    def networks(self) -> list[RunSpec]:
        """One run for each of the feature networks of its runs: there may be two pretrainings."""
        return list({run.spec.config.backbone: run.spec for run in self.runs}.values())

    def stat(self, key: str) -> Stat | None:
        """`key` over the finished runs that have it; None = none has."""
        return _stat(run.value(key) for run in self.finished)

    def by_seed(self, key: str) -> dict[tuple[int, int], float]:
        """Replicate -> `key` of the finished runs that have it."""
        return {run.replicate: run.values[key] for run in self.finished if key in run.values}

    def best(self, key: str, lower_is_better: bool = True) -> Stat | None:
        """The best values of the runs' curves: optimistic, see `fresh_best`."""
        return _stat(run.best(key, lower_is_better) for run in self.finished)

    def fresh_best(self, key: str, lower_is_better: bool = True) -> Stat | None:
        """The runs' best snapshots on fresh samples; None = a run with a curve lacks its own."""
        runs = [run for run in self.finished if run.best(key, lower_is_better) is not None]
        values = [run.fresh_best(key, lower_is_better) for run in runs]
        return None if None in values else _stat(values)

    def why_missing(self, key: str) -> str:
        reasons = dict.fromkeys(run.why_missing(key) for run in self.finished)
        return "; ".join(reasons) or "no finished run"

    def progress(self, key: str, kimg: float = 1.0) -> Stat | None:
        """Final value over the run's own value at `kimg`; None = no run has a snapshot there."""
        ratios = []
        for run in self.finished:
            first = round(kimg * 1000)  # snapshots are taken after whole batches
            last = first + run.spec.config.train.batch
            early = [v for nimg, _, v in run.curve(key)[:-1] if first <= nimg < last]
            final = run.value(key)
            if early and final is not None and early[0] > 0:
                ratios.append(final / early[0])
        return _stat(ratios)


def read_runs(
    specs: Iterable[RunSpec],
    runs_dir: Path,
    versions: Mapping[str, int] | None = None,
) -> list[Run]:
    """Read the record of every run of a grid.

    Args:
        specs: The grid's runs, in its order.
        runs_dir: Holds one folder per run, named by its id.
        versions: Of the metrics' computations, by key of the record, 1 where it is not named;
            values of another are missing. None = today's.

    Returns:
        One `Run` per spec. A record that cannot be read becomes a run that says so, and one that
        was measured with other numbers of images than the rest has no metrics.
    """
    return _comparable([_read_run(spec, runs_dir / spec.run_id, versions) for spec in specs])


def cells(runs: Sequence[Run], averaged: Sequence[str] = AVERAGED) -> list[Cell]:
    """Group runs by row and axis values, in the grid's order, over all values of `averaged`."""
    groups: dict[tuple[str, str], list[Run]] = {}
    axes: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        kept = {k: v for k, v in run.spec.axes.items() if k not in averaged}
        key = (run.spec.row, repr(sorted(kept.items())))
        axes[key] = kept
        groups.setdefault(key, []).append(run)
    return [Cell(key[0], axes[key], tuple(group)) for key, group in groups.items()]


def _read_run(spec: RunSpec, folder: Path, versions: Mapping[str, int] | None) -> Run:
    path = RunPaths(folder).record
    try:
        record = records.load(path)
    except (UserError, OSError, ValueError) as error:
        return Run(spec, folder, "unreadable", one_line(error))
    if record is None:
        return Run(spec, folder, "missing", "not run")
    try:
        read = (_point(raw, spec.eval.norms, versions) for raw in record["snapshots"])
        points = tuple(sorted(read, key=lambda p: p.nimg))
        status, error_text = record["status"], record.get("error")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{path} is not a whole record ({one_line(error)}); run it again with force=true"
        return Run(spec, folder, "unreadable", reason)
    # Distances from other numbers of images are other numbers: no curve mixes them.
    points = tuple(p for p in points if p.like(points[-1]))
    if status == "finished" and not points:
        return Run(spec, folder, "failed", "finished without a snapshot", record)
    if status == "finished":
        return Run(spec, folder, "finished", "", record, points)
    if status == "failed":
        return Run(spec, folder, "failed", one_line(error_text or "no reason"), record, points)
    kimg = points[-1].nimg / 1000 if points else 0
    reason = f"{kimg:g} of {spec.config.train.total_kimg:g} kimg evaluated"
    return Run(spec, folder, "running", reason, record, points)


def _comparable(runs: Sequence[Run]) -> list[Run]:
    """Mark what was measured with other numbers of images than most.

    A Fréchet distance falls as 1 / N with the number of images, so that values from 500 and from
    2000 say nothing of each other. Of the numbers that were used those that the grid asks for
    stay, or else the most frequent. Runs on other data are no matter: theirs are other real ones.
    """
    groups: dict[str, list[tuple[Any, Any]]] = {}
    asked: dict[str, set[Any]] = {}
    for run in runs:
        if run.final:
            name = run.spec.config.data.name
            groups.setdefault(name, []).append(_sizes(run.final))
            asked.setdefault(name, set()).add(run.spec.eval.fake)
    usual = {
        name: max(dict.fromkeys(sizes), key=lambda s: (s[0] in asked[name], sizes.count(s)))
        for name, sizes in groups.items()
    }
    return [
        replace(run, incomparable=_difference(_sizes(run.final), wanted))
        if run.final and _sizes(run.final) != (wanted := usual[run.spec.config.data.name])
        else run
        for run in runs
    ]


def _sizes(point: Point) -> tuple[Any, Any]:
    return point.eval.get("fake"), point.eval.get("real")


def _difference(found: tuple[Any, Any], usual: tuple[Any, Any]) -> str:
    ours, theirs = (
        f"{'unknown' if fake is None else fake} against {'unknown' if real is None else real}"
        for fake, real in (found, usual)
    )
    return f"measured with {ours} images, where the others have {theirs}: not comparable"


_OF_FIRST_IMAGES = (
    "stale: the order of files chose its real images; "
    "grid=… do=run measures it again where the generator was kept"
)


def _point(raw: dict[str, Any], norms: str, versions: Mapping[str, int] | None) -> Point:
    """A snapshot, with the keys of a grid that measures with `norms`; what is stale is missing."""
    of = raw.get("versions") or {}
    stale = {
        key: f"stale: of version {found} of its computation, where {now} is asked for; "
        "grid=… do=run measures it again where the generator was kept"
        for key in raw["metrics"]
        if (found := of.get(key, 1)) != (now := version(key, versions))
    }
    if versions is None and records.is_of_first_images(raw):
        stale = dict.fromkeys(raw["metrics"], _OF_FIRST_IMAGES)

    def current(part: str) -> dict[str, Any]:
        found = (raw.get(part) or {}).items()
        return {grid_key(key, norms): value for key, value in found if key not in stale}

    other = {
        name: f"measured with {kind} batch-norm statistics alone; eval.norms={kind} shows it"
        for kind, colon, name in (key.partition(":") for key in raw["metrics"])
        if colon and kind in EVAL_NORMS and kind != norms
    }
    missing = current("missing") | {grid_key(key, norms): why for key, why in stale.items()}
    return Point(
        nimg=int(raw["nimg"]),
        train_seconds=float(raw["train_seconds"]),
        metrics=current("metrics"),
        missing=other | missing,
        eval=dict(raw.get("eval") or {}),
        samples=(raw.get("samples") or {}).get(norms),
        intervals={k: (v[0], v[1]) for k, v in current("intervals").items()},
        certificates=current("certificates"),
    )


def _stat(values: Iterable[float | None]) -> Stat | None:
    points = tuple(value for value in values if value is not None)
    return Stat(points) if points else None


def is_finite(value: Any) -> bool:
    """Return whether a value of a record is a finite number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _in_unit(key: str, value: float) -> float:
    """A value of a record in the unit of its column."""
    if key == "s_per_kimg":
        return 1000 / value if value else value
    return 100 * value if key.startswith("share_") else value


def one_line(text: object) -> str:
    """The first line of a message, for a table or a terminal."""
    lines = str(text).strip().splitlines()
    return lines[0].strip() if lines else type(text).__name__
