"""Statistics of a few seeds: intervals, paired tests, corrections for many, rank correlations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ALPHA = 0.05  # of every test, and of what an interval leaves out
INTERVAL_FROM = 5  # points; fewer show their range
EXACT_UP_TO = 16  # pairs whose sign flips are all tried: 65,536
CHOICES = 100_000  # of signs that are tried for more pairs
PERMUTATIONS = 20_000  # random ones, where all cannot be tried
Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    kind: Literal["t", "range"]


def mean_interval(points: Sequence[float]) -> Interval | None:
    """Return an interval of the mean over seeds: 95 % by Student's t, the range below five points.

    Args:
        points: one finite value per seed.

    Returns:
        None for a single point.
    """
    if len(points) < 2:
        return None
    if len(points) < INTERVAL_FROM:
        return Interval(min(points), max(points), "range")
    n, mean = len(points), statistics.fmean(points)
    half = _t_quantile(n - 1) * statistics.stdev(points) / math.sqrt(n)
    return Interval(mean - half, mean + half, "t")


@cache
def _t_quantile(degrees: int) -> float:
    return float(stats.t.ppf(1 - ALPHA / 2, degrees))


def sign_flip_p(differences: ArrayLike) -> float:
    """Return the two-sided p-value of the sign-flip test that paired differences have mean 0.

    Under the null hypothesis each difference is as likely with the other sign: p is the share of
    all 2^n choices of signs whose mean is at least as far from 0. Exact up to `EXACT_UP_TO` pairs;
    beyond, over 100,000 seeded choices.

    Args:
        differences: [n], one per pair; none gives 1.
    """
    return float(sign_flip_p_values(np.asarray(differences, dtype=np.float64)[None])[0])


def all_pairs_p(values: ArrayLike) -> list[float]:
    """Return `sign_flip_p` of the differences of every two rows.

    Args:
        values: [rows, n], the rows' values paired by place.

    Returns:
        In the order of `itertools.combinations`: row 0 against 1, 2, …; row 1 against 2, …
    """
    x = np.asarray(values, dtype=np.float64)
    return [float(p) for i in range(len(x) - 1) for p in sign_flip_p_values(x[i] - x[i + 1 :])]


def sign_flip_p_values(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `sign_flip_p` of each row: [k, n] differences -> [k] p-values.

    Not `scipy.stats.permutation_test`: equal sums of numbers in another order may differ in their
    last digit, which that takes for a difference, and a page tests thousands of pairs of rows.
    """
    if d.shape[1] == 0:
        return np.ones(len(d))
    sums = np.abs(d @ _signs(d.shape[1]))  # [k, choices]
    seen = np.abs(d.sum(axis=1)) - 1e-9 * np.abs(d).sum(axis=1)
    share: NDArray[np.float64] = np.mean(sums >= seen[:, None], axis=1)
    return share


@lru_cache(maxsize=4)
def _signs(n: int) -> NDArray[np.float64]:
    """[n, choices]: all 2^n choices of signs, or `CHOICES` of them; the first changes none."""
    if n <= EXACT_UP_TO:
        flipped = np.arange(2**n) >> np.arange(n)[:, None] & 1
    else:
        flipped = np.random.default_rng(0).integers(2, size=(n, CHOICES), dtype=np.int8)
        flipped[:, 0] = 0
    signs: NDArray[np.float64] = 1 - 2 * flipped.astype(np.float64)
    return signs


def smallest_p(n: int) -> float:
    """Return the smallest p-value that the sign-flip test can give for `n` pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_UP_TO else 1 / CHOICES


def pairs_needed(comparisons: int = 1) -> int:
    """Return the pairs from which on the sign-flip test can reject, after Holm's correction."""
    return next(n for n in range(1, 64) if comparisons * 2.0 ** (1 - n) <= ALPHA)


def holm(p: ArrayLike) -> list[float]:
    """Return p-values after Holm's step-down correction (Scandinavian Journal of Statistics 1979).

    Args:
        p: [n], in any order, which the result keeps.

    Returns:
        Those up to alpha are rejected, with at most alpha for one wrong rejection among all.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return [float(value) for value in adjusted]


def sign_test_p(more: int, less: int) -> float:
    """Return the two-sided p-value of so uneven a split, if both ways are as likely."""
    return float(stats.binomtest(more, more + less).pvalue) if more + less else 1.0


def groups_p(these: Sequence[float], than: Sequence[float]) -> tuple[float, str]:
    """Return the two-sided p-value of a permutation test of two groups' means, and its name."""

    def distance(x: Any, y: Any, axis: int) -> Any:
        return np.abs(x.mean(axis=axis) - y.mean(axis=axis))

    p = _permutation_p((these, than), distance, "independent")
    exact = math.comb(len(these) + len(than), len(these)) <= PERMUTATIONS
    return p, (
        "exact permutation test over rows"
        if exact
        else f"permutation test over rows, {PERMUTATIONS} deals"
    )


def spearman(x: Values, y: Values) -> float | None:
    """Return Spearman's rank correlation. None = fewer than two values, or all equal."""
    return _correlation(stats.spearmanr, x, y)


def kendall(x: Values, y: Values) -> float | None:
    """Return Kendall's tau-b. None = fewer than two values, or all equal."""
    return _correlation(stats.kendalltau, x, y)


def _correlation(of: Callable[..., Any], x: Values, y: Values) -> float | None:
    varies = len(set(x)) > 1 and len(set(y)) > 1
    return float(of(x, y).statistic) if varies else None


def spearman_p(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the share of orders of `x` whose rank correlation with `y` is as far from 0."""
    a, b = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    return _permutation_p((a,), lambda a, axis: np.abs((a * b).sum(axis=axis)), "pairings")


def spearman_interval(rho: float, n: int) -> tuple[float, float]:
    """Return a 95 % interval of a rank correlation (Bonett and Wright, Psychometrika 2000)."""
    z = math.atanh(max(min(rho, 1 - 1e-12), -1 + 1e-12))
    half = float(stats.norm.ppf(1 - ALPHA / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return math.tanh(z - half), math.tanh(z + half)


def _permutation_p(data: Sequence[ArrayLike], distance: Callable[..., Any], kind: str) -> float:
    found = stats.permutation_test(
        data,
        distance,
        permutation_type=kind,
        vectorized=True,
        n_resamples=PERMUTATIONS,
        alternative="greater",
        rng=0,
    )
    return float(found.pvalue)
