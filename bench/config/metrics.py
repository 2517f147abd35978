"""The METRICS table: what each number is called, where it comes from, which way is better.

Free of torch and numpy, because plans and tables read it. Adding a metric is one entry here and,
where it is a new kind of arithmetic or looks through a new network, one file in `bench/metrics/`
with the function that the entry names. A new network is a row of `bench.config.extractors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from bench.config.extractors import TIMM, TRAINING
from projgan.config import AVERAGES
from projgan.errors import ConfigError, unknown


@dataclass(frozen=True)
class Computation:
    """How the features of two sets of images become numbers.

    Attributes:
        function: `FILE.FUNCTION` of bench/metrics/: (real, fake, certified) -> parts, as
            `bench.metrics.evaluate.Compute` has it.
        text: in words, for a page's evidence and for docs/metrics.md.
        needs_all: when it needs the features of every generated image, and not only of those that
            come first by content: "never", "certified" (for numbers that are published) or
            "always".
        source: the paper that defines it.
    """

    function: str
    text: str
    needs_all: str = "never"
    source: str = ""


FRECHET = Computation(
    "fid.frechet",
    "Fréchet distance of two Gaussians fitted to the features",
    "certified",
    "Heusel et al. 2017, Eq. 6; Dowson and Landau 1982",
)
FRECHET_BY_N = replace(
    FRECHET,
    function="fid.frechet_by_n",
    text=f"{FRECHET.text}, covariances divided by n",
)
FRECHET_INF = Computation(
    "fid.frechet_inf",
    "Fréchet distance, extrapolated to endless images",
    "always",
    "Chong and Forsyth 2020",
)
KERNEL = Computation(
    "kernel.compare",
    "kernel distance (MMD², cubic kernel), unbiased",
    source="Bińkowski et al. 2018",
)
KERNEL_RBF = Computation(
    "kernel.compare_rbf",
    "MMD², Gaussian kernel of sigma 10 on features of length 1, biased",
    source="Jayasumana et al. 2024",
)
NEIGHBOURS = Computation("neighbours.compare", "by k nearest neighbours in feature space")
NEIGHBOURS_5 = replace(
    NEIGHBOURS, function="neighbours.compare_five", text="by five nearest neighbours, as dgm-eval"
)
SLICED_FEATURES = Computation("sliced.compare", "sliced 2-Wasserstein distance of the features")
SLICED = Computation(
    "patches.compare", "sliced Wasserstein distance", source="Karras et al. 2018, Section 5"
)
INCEPTION_SCORE = Computation("inception.score", "Inception score", source="Salimans et al. 2016")
# What `bench.metrics.training_set` measures.
OF_TRAINING = Computation("", "of the images and the discriminator of training")


@dataclass(frozen=True)
class Metric:
    """One number per snapshot.

    Values are stored in `unit`: a value in a record stands beside its header as it is.
    """

    key: str  # name in records and tables
    header: str  # column header, unit included
    extractor: str  # row of `bench.config.extractors.EXTRACTOR_INFO`
    compute: Computation
    output: str = ""  # which of the extractor's outputs. "" = its only one, EACH = the mean of all
    group: str = ""  # name in a grid file's `eval.metrics`, of one key or several. "" = the key
    unit: str = ""  # what the stored value is counted in. "" = nothing
    lower_is_better: bool = True
    part: str = ""  # which of the numbers that `compute` gives. "" = its only one
    norms: str = ""  # row of NORMS that it is measured with. "" = that of `eval.norms`
    generated: bool = True  # whether it looks at generated images at all
    # Of the computation: function, kernel, divisor, preprocessing. Raise it where one of them
    # changes a value: values of another version are stale, and are measured again.
    version: int = 1
    about: str = ""  # in words, for docs/metrics.md, after what `compute` says of itself
    source: str = ""  # the paper that proposes it. "" = that of `compute`

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.key)


EACH = "*"

_LEVELS = ("l1", "l2", "l3", "l4")
_MANIFOLD = ("share of one side's images inside the other side's manifold, k = {k}",
             "Kynkäänniemi et al. 2019, Eq. 1 and 2")  # fmt: skip
_DENSITY = ("density and coverage of the real manifold, k = 5; density may exceed 1",
            "Naeem et al. 2020, Eq. 3 and 4")  # fmt: skip


def _levels(
    extractor: str, group: str, key: str, header: str, stage: str, about: str, source: str = ""
) -> list[Metric]:
    """Fréchet distances of four feature levels."""
    return [
        Metric(f"{key}_{level}", f"{header}-{level.upper()}", extractor, FRECHET, stage + level,
               group, about=about, source=source)
        for level in _LEVELS
    ]  # fmt: skip


def _neighbours(
    extractor: str, suffix: str, mark: str, compute: Computation = NEIGHBOURS
) -> tuple[Metric, ...]:
    """Precision, recall, density and coverage in one extractor's features."""
    k = 5 if compute == NEIGHBOURS_5 else 3
    parts = {"precision": _MANIFOLD, "recall": _MANIFOLD, "density": _DENSITY, "coverage": _DENSITY}
    return tuple(
        Metric(f"{part}{suffix}", f"{part.capitalize()}{mark}", extractor, compute,
               group=f"prdc{suffix}", lower_is_better=False, part=part, version=2,
               about=about.format(k=k), source=source)
        for part, (about, source) in parts.items()
    )  # fmt: skip


_ENTRIES = (
    Metric("fd_lab", "FD-lab", "lab", FRECHET),
    # At endless images: comparable between numbers of images, which no other distance is.
    Metric("fd_lab_inf", "FD-lab-inf", "lab", FRECHET_INF, version=2),
    Metric("kid_lab", "KID-lab x1000", "lab", KERNEL, unit="x1000", version=2),
    # The four feature levels of one reference backbone, the same for every row of a grid.
    *_levels("levels", "fd_levels", "fd", "FD", "", "on the four levels of one named backbone",
             "the paper, Table 1"),
    # The four feature levels of the run's own backbone: comparable within a row only. After its
    # discriminator's projection they are what the discriminator sees.
    *_levels("own", "own_levels", "own", "own FD", "",
             "on the four levels of the run's own backbone"),
    *_levels("own", "own_ccm", "own_ccm", "own FD-CCM", "ccm_", "after the run's own CCM"),
    *_levels("own", "own_csm", "own_csm", "own FD-CSM", "csm_", "after the run's own CSM"),
    Metric("swd", "SWD x1000", "patches", SLICED, EACH, unit="x1000", version=2,
           about="on patches of a Laplacian pyramid"),
    *_neighbours("lab", "_lab", "-lab"),
    Metric("fid", "FID", "inception", FRECHET, about="clean-fid's `clean` mode",
           source="Heusel et al. 2017; Parmar et al. 2022"),
    Metric("fid_inf", "FID-inf", "inception", FRECHET_INF, version=2),
    Metric("fid_legacy", "FID (legacy resize)", "inception_legacy", FRECHET,
           about="clean-fid's `legacy_pytorch` mode", source="Heusel et al. 2017"),
    Metric("fid_nvlabs", "FID (resize in graph)", "inception_graph", FRECHET_BY_N, version=2,
           about="the resize inside the Inception graph, as the released code has it",
           source="Karras et al. 2020"),
    Metric("kid", "KID x1000", "inception", KERNEL, unit="x1000", version=2,
           about="clean-fid's `clean` mode"),
    Metric("is", "IS", "inception", INCEPTION_SCORE, "logits", lower_is_better=False, version=2,
           about="ten parts"),
    *_neighbours("vgg16", "", ""),
    Metric("fd_dinov2", "FD-DINOv2", "dinov2", FRECHET, source="Stein et al. 2023"),
    Metric("kd_dinov2", "KD-DINOv2 x1000", "dinov2", KERNEL, unit="x1000", version=2,
           source="Stein et al. 2023"),
    *_neighbours("dinov2", "_dinov2", "-DINOv2", NEIGHBOURS_5),
    Metric("cmmd", "CMMD x1000", "clip_l14_336", KERNEL_RBF, unit="x1000"),
    Metric("fd_clip", "FD-CLIP", "clip", FRECHET, source="Kynkäänniemi et al. 2023"),
    Metric("fd_swav", "FD-SwAV", "swav", FRECHET, source="Morozov et al. 2021"),
    Metric("logit_gap", "logit gap", TRAINING, OF_TRAINING, generated=False,
           about="how much surer the discriminators are of training images than of held-out ones, "
           "in standard deviations"),
    Metric("memorised", "memorised %", TRAINING, OF_TRAINING, unit="%",
           about="share of generated images nearer to a training than to a held-out image; 50 = "
           "none is learned by heart", source="after Meehan et al. 2020"),
    Metric("fd_mobilenet", "FD-MobileNet", "mobilenet", FRECHET,
           about="a small network that pip brings, images at 128 px"),
    Metric("kid_mobilenet", "KID-MobileNet x1000", "mobilenet", KERNEL, unit="x1000",
           about="a small network that pip brings, images at 128 px"),
)  # fmt: skip

# Whose batch-norm statistics a generator is measured with (`eval.norms`), and the version of how
# they are computed: the averaged generator with its own (`projgan.standing_statistics`); with those
# of the raw generator, as the released code does; the raw generator with its own; and so the
# averages of other half-lives that a run with `train.averages` keeps.
NORMS = {"standing": 1, "copied": 1, "raw": 1, **dict.fromkeys(AVERAGES, 1)}
EVAL_NORMS = ("standing", "copied")


def _with_norms(norms: str, metric: Metric) -> Metric:
    return replace(
        metric,
        key=f"{norms}:{metric.key}",
        group=f"{norms}:{metric.group}",
        header=f"{norms} {metric.header}",
        norms=norms,
        version=metric.version + NORMS[norms] - 1,
    )


# What `DISTANCE@ENCODER` may name: distances as if their encoder had no name, and encoders by names
# that say which of several they are.
AT = "@"
DISTANCES: dict[str, tuple[Metric, ...]] = {
    "fd": (Metric("fd", "FD", "", FRECHET),),
    "kd": (Metric("kd", "KD x1000", "", KERNEL, unit="x1000", version=2),),
    "prdc": _neighbours("", "", ""),
    "rbf": (Metric("rbf", "RBF-MMD x1000", "", KERNEL_RBF, unit="x1000"),),
    "swd": (Metric("swd", "SWD", "", SLICED_FEATURES),),
}
ENCODERS = {
    "lab": "lab", "inception": "inception", "vgg16": "vgg16", "dinov2_l": "dinov2",
    "dinov2_b": "dinov2_b", "clip_b32": "clip", "clip_l14_336": "clip_l14_336", "swav": "swav",
    "mae_l": "mae_l", "convnextv2": "convnextv2", "mobilenet": "mobilenet",
}  # fmt: skip
_NO_RANDOM = ("inception",)  # a script module: there is no architecture without its weights


@cache
def _combined(name: str) -> tuple[Metric, ...]:
    """The metrics of `DISTANCE@ENCODER` or of one number of it, such as `recall@lab`.

    A combination that has a name of its own is that metric, so that records know it by one name.

    Raises:
        ConfigError: the distance or the encoder is unknown.
    """
    distance, _, encoder = name.partition(AT)
    row, _, rest = encoder.partition("/")
    random = rest == "random"
    if encoder.startswith(TIMM):
        extractor = encoder
    elif row not in ENCODERS or (rest and not random):
        known = [*ENCODERS, *(f"{each}/random" for each in ENCODERS), f"{TIMM}NAME"]
        raise ConfigError(unknown("encoder", encoder, known))
    elif random and row in _NO_RANDOM:
        raise ConfigError(f"{name}: {row} is one file and has no random weights; take timm/NAME")
    else:
        extractor = ENCODERS[row] + ("/random" if random else "")
    parts = {m.key: m for group in DISTANCES.values() for m in group}
    if distance not in DISTANCES and distance not in parts:
        raise ConfigError(unknown("distance", distance, [*DISTANCES, *parts]))
    found = []
    for m in DISTANCES.get(distance) or (parts[distance],):
        compute = m.compute
        if compute == NEIGHBOURS and extractor.startswith("dinov2"):
            compute = NEIGHBOURS_5
        same = (
            e for e in _ENTRIES
            if (e.extractor, e.compute, e.output, e.part) == (extractor, compute, "", m.part)
        )  # fmt: skip
        header = f"{m.header.removesuffix(m.unit).strip()}@{encoder} {m.unit}".strip()
        made = replace(
            m, key=f"{m.key}{AT}{encoder}", group=f"{m.group}{AT}{encoder}", header=header,
            extractor=extractor, compute=compute,
        )  # fmt: skip
        found.append(next(same, made))
    return tuple(found)


class MetricTable(dict[str, Metric]):
    """Metrics by their key; those of `DISTANCE@ENCODER` are made when they are asked for."""

    def __missing__(self, key: str) -> Metric:
        held_to, _, plain = key.rpartition(":")
        if AT not in plain or (held_to and held_to not in NORMS):
            raise KeyError(key)
        try:
            (found,) = _combined(plain)
        except (ConfigError, ValueError):  # unknown, or a group of several
            raise KeyError(key) from None
        return _with_norms(held_to, found) if held_to else found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The metric, or `default` where there is none of this name."""
        try:
            return self[key]
        except KeyError:
            return default


# Every metric as `eval.norms` has it, and held to each norms: the latter are the keys of records.
METRICS = MetricTable((metric.key, metric) for metric in _ENTRIES)
METRICS |= {
    f"{norms}:{m.key}": _with_norms(norms, m) for norms in NORMS for m in _ENTRIES if m.generated
}
_KEYS: dict[str, list[str]] = {}  # of groups and of single metrics
for _m in METRICS.values():
    for _name in dict.fromkeys((_m.group, _m.key)):
        _KEYS.setdefault(_name, []).append(_m.key)


def record_key(key: str, norms: str) -> str:
    """The key in a record of a metric that is measured with `norms`, if it does not say it."""
    said = key.partition(":")[0] in NORMS or (key in METRICS and not METRICS[key].generated)
    return key if said else f"{norms}:{key}"


def grid_key(key: str, norms: str) -> str:
    """The key in a grid whose `eval.norms` are `norms`: the inverse of `record_key`."""
    return key.removeprefix(f"{norms}:")


def version(key: str, versions: Mapping[str, int] | None = None) -> int:
    """Of the computation of a metric, by its key in a record; the first where it is not known.

    Args:
        versions: of a report. None = today's.
    """
    if versions is not None:
        return versions.get(key, 1)
    return METRICS[key].version if key in METRICS else 1


def metric_keys(names: Iterable[str]) -> list[str]:
    """The keys of METRICS that `names` stand for: groups and single keys, each once, in order.

    Raises:
        ConfigError: a name that is neither a group nor a key.
    """
    keys: dict[str, None] = {}
    for name in names:
        held_to, _, plain = name.rpartition(":")
        if name in _KEYS:
            keys.update(dict.fromkeys(_KEYS[name]))
        elif AT in plain and (not held_to or held_to in NORMS):
            before = f"{held_to}:" if held_to else ""
            keys.update(dict.fromkeys(before + m.key for m in _combined(plain)))
        else:
            raise ConfigError(unknown("metric", name, (key for key in _KEYS if ":" not in key)))
    return list(keys)


def looks_through(names: Iterable[str]) -> str | None:
    """The extractor of the first distance among metrics that sees an image as one vector."""
    found = [METRICS[key] for key in metric_keys(names)]
    return next(
        (m.extractor for m in found if m.compute in (FRECHET, KERNEL) and not m.output), None
    )


def check_metrics(names: Iterable[str]) -> None:
    """Refuses an unknown metric name before anything is trained."""
    metric_keys(names)
