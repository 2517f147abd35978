"""The keys of grid files and scale files; `bench.config.grid` reads them into these."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from bench.config.spec import Claim, ReportSpec
from projgan.errors import UserError

MISSING: Any = "???"  # OmegaConf's word for a value that must be given; None = not given here


@dataclass
class EvalSection:
    metrics: list[str] | None = None
    every_kimg: float | None = None
    also_at_kimg: list[float] | None = None
    fake: int | None = None
    real: int | None = None
    levels: str | None = None
    levels_size: int | None = None
    best: bool | None = None  # measure best snapshots again. None = those with a best: column
    norms: str | None = None  # standing or copied: batch-norm statistics that are measured with
    floor: bool | None = None  # measure what two disjoint sets of real images differ by
    # Measured and shown too: metrics, and norms:metric where the grid has the metric.
    beside: list[str] | None = None


@dataclass
class Resources:
    """Resources that runs of a grid ask of a cluster, over the settings of its user."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: Any = None  # as SlurmFile's
    cpus: int | None = None
    mem_gb: float | None = None
    time: Any = None
    runs_per_job: int | None = None


@dataclass
class SlurmFile:
    """experiments/dispatch/slurm.yaml says what each is."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: Any = 1  # a number, or with a type as sbatch takes it: a100:2
    gpu_type: str | None = None
    cpus: int = 4
    mem_gb: float | None = None
    time: Any = 240  # minutes, or as sbatch takes it: 2-00:00:00
    warning: int = 120
    parallel: int = 32
    runs_per_job: int = 1
    max_array: int | None = None
    setup: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Numbers of what sbatch takes as text: GPUs apart from their type, minutes rounded up."""
        wanted = re.fullmatch(r"(?:([A-Za-z][\w.-]*):)?(\d+)", str(self.gpus))
        if wanted is None:
            raise UserError(f"dispatch.gpus={self.gpus}: give how many, or TYPE:HOW MANY as a100:2")
        self.gpus, self.gpu_type = int(wanted[2]), wanted[1] or self.gpu_type
        days, _, rest = str(self.time).rpartition("-")
        parts = rest.split(":")
        if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", str(self.time)):
            raise UserError(
                f"dispatch.time={self.time}: give minutes, or DAYS-HOURS:MINUTES:SECONDS"
            )
        # sbatch: with days hours come first, without them alone or before one colon minutes do.
        first = 0 if days or len(parts) == 3 else 1
        units = dict(zip((60.0, 1.0, 1 / 60)[first:], map(int, parts), strict=False))
        self.time = math.ceil(1440 * int(days or 0) + sum(u * n for u, n in units.items()) - 1e-9)


@dataclass
class RowEntry:
    label: str = MISSING
    preset: str | None = None  # settings of experiments/presets.yaml, which `set` overrides
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
    report: ReportSpec = field(default_factory=ReportSpec)
    resources: Resources = field(default_factory=Resources)


@dataclass
class GridFile(Section):
    name: str = MISSING
    about: str = MISSING
    rows: list[RowEntry] = MISSING
    scales: dict[str, Section] = field(default_factory=dict)


@dataclass
class PresetsFile:
    presets: dict[str, dict[str, Any]] = MISSING


@dataclass
class ScaleFile:
    about: str = MISSING
    set: dict[str, Any] = field(default_factory=dict)
    eval: EvalSection = field(default_factory=EvalSection)
    report: ReportSpec = field(default_factory=ReportSpec)
    metrics: dict[str, str] = field(default_factory=dict)  # general name -> the scale's own


@dataclass
class Rates:
    """Learning rates of a kind of discriminator or a preset; see experiments/rates.yaml."""

    lr_g: float = MISSING
    lr_d: float = MISSING
    tried: int = 0  # pairs that were tried alike; 0 = it is no result of a search

    @property
    def settings(self) -> dict[str, Any]:
        return {"optim.lr_g": self.lr_g, "optim.lr_d": self.lr_d}


@dataclass
class RatesFile:
    scales: dict[str, dict[str, Rates]] = field(default_factory=dict)  # scale -> name


@dataclass
class ClaimsFile:
    claims: list[Claim] = MISSING


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
