"""Features -> mean and covariance, streamed in float64, and kept on disk.

Features are float32 as networks give them; their moments are float64, because a covariance summed
in float32 loses the digits that a small Fréchet distance is made of. Features that are on a GPU are
summed there, and only the sums come back.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics.frechet import frechet_distance
from projgan.files import write_bytes_atomic

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SEED = 0  # of what a metric draws: groups, directions; one for all, so that values compare
WITHOUT_FLOAT64 = ("mps",)  # kinds of device that have no float64


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set of features."""

    n: int  # samples
    mean: NDArray[np.float64]  # [D]
    cov: NDArray[np.float64]  # [D, D], divided by n - 1

    def by_n(self) -> Statistics:
        """The same with the covariance divided by n, as NVIDIA's StyleGAN family has it."""
        return replace(self, cov=self.cov * ((self.n - 1) / self.n))


class Accumulator:
    """Mean and covariance of features that arrive in batches.

    Each batch is centred on its own mean and then merged (the pairwise update of Chan, Golub and
    LeVeque), so that a large common offset does not cancel digits, and how the samples were
    batched changes the result by rounding only. Nothing is read back from a GPU before the end.
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean: Any = None  # [D], where the features are: NumPy's or torch's, float64
        self._scatter: Any = None  # [D, D]

    def update(self, features: NDArray[np.floating] | Tensor) -> None:
        """Adds features [B, D] of any float type."""
        if features.ndim != 2:
            raise ValueError(f"features must be [B, D], not {tuple(features.shape)}")
        if self.n and features.shape[1] != len(self._mean):
            was = len(self._mean)
            raise ValueError(f"{features.shape[1]} dimensions after batches of {was}")
        if len(features) == 0:
            return
        batch = in_float64(features)
        mean = batch.mean(0)
        centred = batch - mean
        scatter = centred.T @ centred
        if self.n == 0:
            self._mean, self._scatter = mean, scatter
        else:
            total = self.n + len(batch)
            step = mean - self._mean
            self._scatter += scatter
            self._scatter += step[:, None] * (step * (self.n * len(batch) / total))
            self._mean += step * (len(batch) / total)
        self.n += len(batch)

    def statistics(self) -> Statistics:
        """The moments of everything added so far."""
        if self.n < 2:
            raise ValueError("a covariance needs two samples or more")
        mean, scatter = (on_host(sums) for sums in (self._mean, self._scatter))
        return Statistics(self.n, mean.copy(), scatter / (self.n - 1))


def in_float64(features: NDArray[np.floating] | Tensor) -> Any:
    """Return features as float64 where they are: NumPy's on the host, torch's on a GPU.

    A device without float64 gives them to the host, which the log says once.
    """
    if isinstance(features, np.ndarray):
        return np.asarray(features, dtype=np.float64)
    if not sums_on(features.device.type):
        return features.cpu().double().numpy()
    return features.double()


@lru_cache
def sums_on(kind: str) -> bool:
    """Return whether statistics of features on this kind of device are summed there."""
    if kind in WITHOUT_FLOAT64:
        log.warning("%s has no float64: statistics of features are summed on the host", kind)
    return kind not in ("cpu", *WITHOUT_FLOAT64)


def on_host(values: Any) -> NDArray[Any]:
    """A tensor of any device, or an array, as an array."""
    found: NDArray[Any] = values if isinstance(values, np.ndarray) else values.cpu().numpy()
    return found


def features_to_statistics(features: NDArray[np.floating]) -> Statistics:
    """Moments of features [N, D]."""
    accumulator = Accumulator()
    accumulator.update(features)
    return accumulator.statistics()


def statistics_to_frechet(real: Statistics, fake: Statistics) -> float:
    """Fréchet distance of two sets of features, by their moments."""
    return frechet_distance(real.mean, real.cov, fake.mean, fake.cov)


@dataclass(frozen=True)
class Features:
    """Features of one side of a comparison, of one output of an extractor."""

    statistics: Statistics  # of all images
    kept: NDArray[np.float32]  # [K, D] or [K, P, D]: features of some images, for metrics that need


@dataclass(frozen=True)
class Estimate:
    """A metric's value, in the unit of its header."""

    value: float
    interval: tuple[float, float] | None = None  # 95 %. None = this metric has none
    gap: float | None = None  # to a second route, relative. None = there was none
    used: int | None = None  # images of each side that were compared. None = all there were


Parts = Mapping[str, Estimate]  # what one computation gives, by `Metric.part`


def equally_many(real: Features, fake: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return as many kept features of each side, those that come first by content.

    Unequal sides would tilt a metric.
    """
    count = min(len(real.kept), len(fake.kept))
    return real.kept[:count], fake.kept[:count]


def save_features(path: Path, key: str, outputs: Mapping[str, Features]) -> None:
    """Writes `outputs` to an npz file, whole or not at all.

    Args:
        path: where to.
        key: what the content was computed from; a reader that expects another key refuses it.
        outputs: by the name of the extractor's output.
    """
    arrays: dict[str, NDArray[Any]] = {"key": np.array(key), "names": np.array([*outputs])}
    for name, features in outputs.items():
        moments = features.statistics
        arrays |= {
            f"{name}.n": np.array(moments.n),
            f"{name}.mean": moments.mean,
            f"{name}.cov": moments.cov,
            f"{name}.kept": features.kept,
        }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes_atomic(path, buffer.getvalue())


def load_features(path: Path, key: str) -> dict[str, Features] | None:
    """Return what `save_features` wrote; None = there is no such file, or it cannot be trusted.

    A damaged file is logged. The zip container's checksums cover every array.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["key"]) != key:
                raise ValueError("made from something else")
            return {str(name): _load_one(file, str(name)) for name in file["names"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("Reference cache %s is damaged (%s); computing it again", path, error)
        return None


def _load_one(file: Mapping[str, NDArray[Any]], name: str) -> Features:
    n, mean, cov, kept = (file[f"{name}.{part}"] for part in ("n", "mean", "cov", "kept"))
    dim = mean.size
    if mean.shape != (dim,) or cov.shape != (dim, dim) or kept.shape[-1] != dim or n < 2:
        raise ValueError("arrays do not fit together")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError("values are not finite")
    statistics = Statistics(int(n), mean.astype(np.float64), cov.astype(np.float64))
    return Features(statistics, kept.astype(np.float32))
