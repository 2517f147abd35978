"""The interval of a Fréchet distance, and its limit at endless images.

The distance between samples is biased: at N images it is above the distance between the
distributions by about c / N, where c grows with the square of the dimensions. Two samples of 500
from Gaussians 0.64 apart in 64 dimensions are 5.1 apart. A percentile bootstrap adds that bias a
second time (it answers [8.8, 9.9] there); what follows takes it off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.statistics import Statistics, features_to_statistics, statistics_to_frechet

Array = NDArray[np.float64]

_GROUPS = 20  # parts that are left out in turn
_SIZES = 15  # subsets of growing size
_SMALLEST = 0.1  # the first of them, as a share of all

# Below these the bias no longer goes as 1 / N, and what is taken off would be too little or too
# much: samples per dimension, and per dimension that counts (by simulation, see the tests).
_PER_DIMENSION = 2
_PER_EFFECTIVE_DIMENSION = 8


@dataclass(frozen=True)
class FrechetInterval:
    """A Fréchet distance, its standard error, and what it would be of endless samples.

    `distance` with `reach` to both sides covers the mean distance over samples of as many images,
    which is what cells that were measured with equally many images differ in.
    """

    distance: float  # as it is at this number of images, bias and all
    corrected: float  # an estimate of the distance between the distributions
    error: float  # standard error of either
    reach: float  # half the width of an interval

    @property
    def at_infinity(self) -> tuple[float, float]:
        """Covers the distance between the distributions: that of endless samples. At least 0."""
        low, high = self.corrected - self.reach, self.corrected + self.reach
        return max(low, 0.0), max(high, 0.0)


def frechet_interval(
    real: Statistics | ArrayLike, fake: ArrayLike, *, seed: int, level: float = 0.95
) -> FrechetInterval:
    """Fréchet distance with an interval, by a grouped jackknife.

    Each of twenty groups of samples is left out in turn (Busing et al. 1999, "Delete-m jackknife
    for unequal m", equations 3 and 4). The change of the mean takes the 1 / N bias off, the spread
    gives the standard error, Student's t its multiple. Of two distributions next to each other
    the error comes out too large, never too small (Efron and Stein 1981).

    Args:
        real: features [N, D] where the real images are a sample too; or moments that count as
            exact: those of a whole data set, which is then the very thing to be generated.
        fake: features [M, D].
        seed: decides the groups.
        level: of the interval.

    Raises:
        ValueError: fewer samples than it takes, see `enough`.
    """
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    rng = np.random.default_rng(seed)
    y = _shuffled(fake, rng)
    x = None if isinstance(real, Statistics) else _shuffled(real, rng)
    if x is not None and len(x) != len(y):
        raise ValueError("samples of real and generated images must be of one size")
    whole = real if isinstance(real, Statistics) else features_to_statistics(np.asarray(real))
    of_fake = features_to_statistics(y)
    _check_enough(of_fake)
    distance = statistics_to_frechet(whole, of_fake)
    parts = zip(_left_out(x) if x is not None else [whole] * _GROUPS, _left_out(y), strict=True)
    without = np.array([statistics_to_frechet(a, b) for a, b in parts])
    share = np.array([len(y) / len(group) for group in np.array_split(y, _GROUPS)])
    pseudo = share * distance - (share - 1) * without
    corrected = _GROUPS * distance - float(((1 - 1 / share) * without).sum())
    error = float(np.sqrt(((pseudo - corrected) ** 2 / (share - 1)).mean()))
    reach = float(stdtrit(_GROUPS - 1, 0.5 + level / 2)) * error  # Student's t
    return FrechetInterval(distance, corrected, error, reach)


def frechet_infinity(real: Statistics, fake: ArrayLike, *, seed: int) -> float:
    """FD-infinity: a line through distances over 1 / N, followed to endless samples.

    As Chong and Forsyth (2020, section 3.3): fifteen sizes in equal steps up to all samples, a
    random subset of each, least squares. They begin at a tenth of the samples; this begins at four
    samples per dimension, or half of all, where that is more, since below it is no line.

    Args:
        real: moments of the real images, taken as exact.
        fake: features [N, D].
        seed: decides the subsets.

    Returns:
        The distance at N = infinity; of close distributions it may come out below 0.

    Raises:
        ValueError: fewer samples than it takes, see `enough`.
    """
    y = np.asarray(fake, dtype=np.float64)
    whole = features_to_statistics(y)
    _check_enough(whole)
    rng = np.random.default_rng(seed)
    first = max(_SMALLEST * len(y), min(4 * y.shape[1], len(y) / 2))
    sizes = np.linspace(first, len(y), _SIZES).round().astype(int)
    subsets = (y[rng.choice(len(y), size, replace=False)] for size in sizes[:-1])
    distances = [
        *(statistics_to_frechet(real, features_to_statistics(subset)) for subset in subsets),
        statistics_to_frechet(real, whole),
    ]
    _, at_zero = np.polyfit(1.0 / sizes, distances, 1)
    return float(at_zero)


def enough(moments: Statistics) -> int:
    """Return how many samples the interval and the limit take.

    Two per dimension, and eight per dimension that counts: with variances l that is
    (sum of l)^2 / (sum of l^2), which is all of them where they are alike.
    """
    squares = float((moments.cov**2).sum())
    effective = float(np.trace(moments.cov)) ** 2 / squares if squares > 0 else 0.0
    least = max(_PER_DIMENSION * len(moments.mean), _PER_EFFECTIVE_DIMENSION * effective)
    return max(math.ceil(least), 2 * _GROUPS)


def _check_enough(moments: Statistics) -> None:
    if moments.n < (least := enough(moments)):
        raise ValueError(f"{moments.n} samples tell nothing of endless ones: it takes {least}")


def _shuffled(features: ArrayLike, rng: np.random.Generator) -> Array:
    found = np.asarray(features, dtype=np.float64)
    return found[rng.permutation(len(found))]


def _left_out(features: Array) -> Iterator[Statistics]:
    """Moments of all samples but one group, group by group."""
    mean = features.mean(axis=0)
    centred = features - mean
    scatter = centred.T @ centred
    for group in np.array_split(centred, _GROUPS):
        n = len(features) - len(group)
        offset = -group.sum(axis=0) / n
        rest = scatter - group.T @ group - n * np.outer(offset, offset)
        yield Statistics(n, mean + offset, rest / (n - 1))
