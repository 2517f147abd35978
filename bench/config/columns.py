"""The columns that a table may have: name in grid files and CSV, header, unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.config.metrics import AT, METRICS, metric_keys
from projgan.errors import ConfigError, unknown


@dataclass(frozen=True)
class Column:
    key: str  # name in the CSV
    header: str
    unit: str = ""
    paper: bool = False  # a number of the paper, not measured here
    text: bool = False  # words, aligned left
    spread: bool = False  # show the standard deviation where there is one
    decimals: int | None = None  # None = three significant digits of the column's median
    minor: bool = False  # first to be left out of a narrow terminal


def _by_key(*columns: Column) -> dict[str, Column]:
    return {column.key: column for column in columns}


MEASURED = _by_key(
    Column("params_m", "params", "M"),
    Column("accuracy", "accuracy", "%", decimals=1),
    Column("generator_m", "G params", "M"),
    Column("discriminator_m", "D params", "M"),
    Column("images_per_s", "speed", "img/s"),
    Column("s_per_kimg", "speed", "s/kimg", decimals=1),
    Column("gflop_per_image", "work", "GFLOP/img", decimals=2),
    Column("peak_share", "of peak", "%", decimals=0),
    Column("peak_mb", "memory", "MB", decimals=0),
    Column("time_s", "time", "s", decimals=0),
    Column("train_s", "training", "s", decimals=0),
    Column("eval_s", "evaluation", "s", decimals=0),
    Column("warmup_s", "warm-up", "s", decimals=1),
    Column("checkpoint_s", "checkpoints", "s", decimals=1),
    Column("unexplained_s", "unexplained", "s", decimals=1),
    Column("kimg", "images", "k"),
    Column("n", "n", decimals=0),
)
# Where the time of a training step goes (projgan/speed/step_times.py), in its order.
SHARES = ("data", "augmentation", "generator", "backbone", "projection", "discriminator",
          "optimiser", "average", "idle", "rest")  # fmt: skip
MEASURED |= _by_key(*(Column(f"share_{part}", part, "%", decimals=1) for part in SHARES))
PAPER = _by_key(
    Column("paper_params_m", "paper params", "M", True, decimals=2, minor=True),
    Column("paper_top1", "paper top-1", "%", True, decimals=2, minor=True),
    Column("paper_fid", "paper FID", paper=True, decimals=2),
    *(
        Column(f"paper_rel_fd_l{i}", f"paper rel. FD-L{i}", paper=True, decimals=2, minor=True)
        for i in (1, 2, 3, 4)
    ),
    Column("paper_rel_fid", "paper rel. FID", paper=True, decimals=2),
    Column("paper_imgs_m", "paper images", "M", True, minor=True),
    Column("paper_kid", "paper KID", paper=True, minor=True),
    Column("paper_swav_fid", "paper SwAV-FID", paper=True, minor=True),
    Column("paper_precision", "paper precision", paper=True, minor=True),
    Column("paper_recall", "paper recall", paper=True, minor=True),
)
DERIVED = ("rel", "best", "gap")  # kind:metric
WITH_NORMS = {name for m in METRICS.values() if m.norms for name in (m.key, m.group)}


def known() -> list[str]:
    """Every name that a grid's `report.columns` may hold."""
    metrics = [*METRICS, *(m.group for m in METRICS.values())]
    derived = [f"{kind}:{key}" for kind in DERIVED for key, m in METRICS.items() if not m.norms]
    return [*dict.fromkeys(["label", *MEASURED, *PAPER, *metrics, *derived])]


def expand(names: Sequence[str]) -> list[str]:
    """Column keys of a table: groups of metrics opened, `label` left out (it is always first).

    Raises:
        ConfigError: a name that is no column.
    """
    keys: dict[str, None] = {}
    for name in names:
        if name not in known() and not _combined(name):
            raise ConfigError(unknown("column", name, (k for k in known() if k not in WITH_NORMS)))
        groups = name not in METRICS and any(m.group == name for m in METRICS.values())
        alone = not _combined(name) or split(name)[0]
        keys.update(dict.fromkeys([name] if alone and not groups else metric_keys([name])))
        if name.startswith("best:"):  # what the choice looked like beside what it is
            keys["gap:" + name.removeprefix("best:")] = None
    keys.pop("label", None)
    return list(keys)


def _combined(name: str) -> bool:
    """Whether a column is a distance in an encoder, as it is or derived.

    Raises:
        ConfigError: one of the two is unknown.
    """
    return AT in name and bool(metric_keys([split(name)[1]]))


def column(key: str) -> Column:
    """The header of one column."""
    if key in MEASURED:
        return MEASURED[key]
    if key in PAPER:
        return PAPER[key]
    kind, name = split(key)
    metric = METRICS[name]
    unit = metric.unit.replace("x", "×")
    header = metric.header.removesuffix(metric.unit).strip()
    if kind == "rel":
        return Column(key, f"rel. {header}", spread=True, decimals=2)
    if kind == "best":
        return Column(key, f"best {header}", unit, spread=True)
    if kind == "gap":
        return Column(key, f"{header} gap", unit, spread=True, minor=True)
    return Column(key, header, unit, spread=True)


def lower_is_better(metric: str) -> bool:
    return METRICS[metric].lower_is_better if metric in METRICS else True


def metric_of(key: str) -> str | None:
    """The metric that a column shows, as it is or derived; None = it shows none."""
    name = split(key)[1]
    return name if name in METRICS else None


def split(key: str) -> tuple[str, str]:
    """`rel:fd_lab` as `rel` and `fd_lab`; what is not derived has an empty kind."""
    kind, _, name = key.partition(":")
    return (kind, name) if kind in DERIVED else ("", key)


def is_single(key: str) -> bool:
    """Whether a metric is the only number of its group: not one level of four."""
    return key in METRICS and sum(m.group == METRICS[key].group for m in METRICS.values()) == 1
