"""What a grid file and a scale file may hold; `bench.grid` reads them into these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"  # OmegaConf's word for a value that must be given; None = not given here


@dataclass
class EvalSection:
    metrics: list[str] | None = None
    every_kimg: float | None = None
    also_at_kimg: list[float] | None = None
    fake: int | None = None
    real: int | None = None
    levels: str | None = None
    best: bool | None = None  # measure best snapshots again. None = those with a best: column


@dataclass
class ReportSection:
    paper: str | None = None
    rank_by: str | None = None
    rank_despite_leakage: str | None = None
    columns: list[str] | None = None
    baseline: str | None = None
    compare_to: str | None = None
    target: str | None = None
    parts: str | None = None
    notes: list[str] | None = None


@dataclass
class Resources:
    """What runs of a grid ask of a cluster, instead of what its user's settings say."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    mem_gb: float | None = None
    time: int | None = None
    runs_per_job: int | None = None


@dataclass
class SlurmFile:
    """experiments/dispatch/slurm.yaml says what each is."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 1
    cpus: int = 4
    mem_gb: float | None = None
    time: int = 240
    warning: int = 120
    parallel: int = 32
    runs_per_job: int = 1
    max_array: int | None = None
    setup: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class RowEntry:
    label: str = MISSING
    set: dict[str, Any] = field(default_factory=dict)
    scales: list[str] | None = None  # the row is there at these scales only
    paper: dict[str, str] | None = None  # picks a line of the paper's table
    resources: Resources = field(default_factory=Resources)


@dataclass
class Section:
    base: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] | None = None
    axes: dict[str, list[Any]] = field(default_factory=dict)  # crossed with every row
    eval: EvalSection = field(default_factory=EvalSection)
    report: ReportSection = field(default_factory=ReportSection)
    resources: Resources = field(default_factory=Resources)


@dataclass
class GridFile(Section):
    name: str = MISSING
    about: str = MISSING
    rows: list[RowEntry] = MISSING
    scales: dict[str, Section] = field(default_factory=dict)


@dataclass
class ScaleFile:
    about: str = MISSING
    set: dict[str, Any] = field(default_factory=dict)
    eval: EvalSection = field(default_factory=EvalSection)
    metrics: dict[str, str] = field(default_factory=dict)  # general name -> the scale's own


@dataclass
class ClaimEntry:
    """A finding of the paper; which fields a check uses stands in bench.checks.CHECKS."""

    id: str = MISSING
    says: str = MISSING
    source: str = MISSING
    grid: str = MISSING
    check: str = MISSING
    metric: str = "fd"
    these: list[str] = field(default_factory=list)
    than: list[str] = field(default_factory=list)
    axis: str | None = None
    x: str | None = None
    expects: str | None = None
    within: float | None = None


@dataclass
class ClaimsFile:
    claims: list[ClaimEntry] = MISSING


@dataclass
class DataSetEntry:
    """A data set of the paper, for whoever fetches it; see experiments/datasets.yaml."""

    title: str = MISSING
    get: str = MISSING
    licence: str = MISSING
    images: int = MISSING
    sure: bool = MISSING
    resolutions: list[int] = MISSING
    size_gb: float | None = None
    note: str = ""


@dataclass
class DataSetsFile:
    sets: dict[str, DataSetEntry] = MISSING
