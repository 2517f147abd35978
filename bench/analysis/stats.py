"""What a few seeds allow to say: an interval of the mean, a paired test, and Holm's correction."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALPHA = 0.05  # of every test, and of what an interval leaves out
BOOTSTRAP_FROM = 5  # points that a bootstrap needs; fewer show their range
RESAMPLES = 10_000
EXACT_UP_TO = 16  # pairs whose sign flips are all tried: 65,536
CHOICES = 100_000  # of signs that are tried for more pairs
BLOCK = 200_000  # values of resamples that are averaged at once


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    kind: Literal["bootstrap", "range"]


def mean_interval(points: Sequence[float]) -> Interval | None:
    """An interval of the mean over seeds: 95 % by bootstrap, the range below five points.

    The percentile bootstrap is too narrow for few points, as it has neither the n-1 nor Student's
    tails (Hesterberg, The American Statistician 2015). So it is stretched about the mean by what
    it lacks, sqrt(n / (n-1)) times Student's quantile over the normal one. It is seeded: the same
    points give the same interval.

    Args:
        points: one finite value per seed.

    Returns:
        None for a single point.
    """
    if len(points) < 2:
        return None
    if len(points) < BOOTSTRAP_FROM:
        return Interval(min(points), max(points), "range")
    return _bootstrap(tuple(points))


@functools.cache
def _bootstrap(points: tuple[float, ...]) -> Interval:
    import numpy as np
    from scipy.special import ndtri, stdtrit

    n, mean = len(points), math.fsum(points) / len(points)
    values, drawn = np.asarray(points), _resampled(n)
    # A block at a time, as a processor's cache holds it.
    rows = max(BLOCK // n, 1)
    blocks = np.split(drawn, range(rows, RESAMPLES, rows))
    means = np.concatenate([values.take(block).mean(axis=1) for block in blocks])
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    stretch = math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, ALPHA / 2) / ndtri(ALPHA / 2))
    return Interval(mean + stretch * (low - mean), mean + stretch * (high - mean), "bootstrap")


@functools.lru_cache(maxsize=2)
def _resampled(n: int) -> NDArray[np.intp]:
    """[RESAMPLES, n]: which points each resample has; the same for all that have n points."""
    import numpy as np

    return np.random.default_rng(0).integers(n, size=(RESAMPLES, n))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the sign-flip test that paired differences have mean 0.

    Under the null hypothesis each difference is as likely with the other sign: p is the share of
    all 2^n choices of signs whose mean is at least as far from 0. Exact up to `EXACT_UP_TO` pairs;
    beyond, over 100,000 seeded choices. The same differences are tested once in a process: several
    tables of a report show them.

    Args:
        differences: one per pair; none gives 1.
    """
    return _sign_flip_p(tuple(differences))


@functools.cache
def _sign_flip_p(differences: tuple[float, ...]) -> float:
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    if len(d) == 0:
        return 1.0
    sums = _signed_sums(d)
    slack = 1e-9 * float(np.abs(d).sum())  # sums of the same numbers in another order are equal
    return float(np.mean(np.abs(sums) >= abs(float(d.sum())) - slack))


def all_pairs_p(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """`sign_flip_p` of the differences of every two rows, at little more than one row's cost.

    A sum of differences is the difference of two sums: each row's are computed once.

    Args:
        values: [rows, n], the rows' values paired by place.

    Returns:
        [rows][rows - 1 - row]: row 0 against 1, 2, …; row 1 against 2, …; the last has none.
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    x -= x.mean(axis=0)  # the differences stay; small numbers have small errors
    sums = np.array([_signed_sums(row) for row in x])
    found = []
    for i in range(len(x)):
        d = x[i] - x[i + 1 :]
        reached = np.abs(d.sum(axis=1)) - 1e-9 * np.abs(d).sum(axis=1)
        far = [
            np.count_nonzero(np.abs(sums[i] - other) >= at)
            for other, at in zip(sums[i + 1 :], reached, strict=True)
        ]
        found.append([count / sums.shape[1] for count in far])
    return found


def _signed_sums(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of n numbers for all 2^n choices of signs, or for `CHOICES` of them where n is large.

    The first choice leaves all signs as they are.
    """
    import numpy as np

    n = len(d)
    if n <= EXACT_UP_TO:
        return _all_sums(d)
    # Eight pairs at a time: their 256 sums once, then each choice looks up its own.
    sums = np.zeros(CHOICES)
    for start, choice in zip(range(0, n, 8), _choices(-(-n // 16)), strict=False):
        group = d[start : start + 8]
        sums += _all_sums(group).take(choice & (2 ** len(group) - 1))
    return sums


def _all_sums(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2^n]: the sum of n numbers for all choices of signs, none changed first."""
    import numpy as np

    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    return sums


@functools.lru_cache(maxsize=4)
def _choices(groups: int) -> NDArray[np.uint8]:
    """[2 groups, CHOICES] random bits, seeded; what was observed, no sign changed, is the first."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(1 << 16, size=(groups, CHOICES), dtype=np.uint16)
    drawn[:, 0] = 0
    low, high = (drawn & 255).astype(np.uint8), (drawn >> 8).astype(np.uint8)
    return np.stack([low, high], axis=1).reshape(-1, CHOICES)


def smallest_p(n: int) -> float:
    """The smallest p-value that the sign-flip test can give for `n` pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_UP_TO else 1e-5


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979), in the given order.

    Returns:
        Adjusted p-values: those up to alpha are rejected, with at most alpha for one wrong
        rejection among all.
    """
    adjusted = [0.0] * len(p)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = worst
    return adjusted


def pairs_needed(comparisons: int) -> int:
    """Pairs from which on the sign-flip test can reject, after Holm over equal `comparisons`."""
    return next(n for n in range(1, 64) if comparisons * 2.0 ** (1 - n) <= ALPHA)
