"""Kernel distance (KID): the unbiased squared MMD of two sets of features, over seeded subsets.

The kernel is the cubic polynomial k(x, y) = (x.y / D + 1)^3. The estimate is unbiased, so between
equal distributions it lies around zero and is negative half of the time.

The spread over subsets is no interval of the estimate: subsets overlap, and a subset of everything
has no spread at all. The interval here is that of the whole sample, plus what the choice of subsets
adds. Where all pairs are at hand it is the jackknife of a two-sample U-statistic (Arvesen, 1969),
whose influences are row means of the kernel matrix; else subsampling (Politis and Romano, 1994):
the spread of subsets, scaled to the size of the sample. Where both distributions are equal either
is wider than need be, never narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_NORMAL_95 = 1.959964
_ROWS = 1024  # rows of a kernel matrix that are in memory at a time


@dataclass(frozen=True)
class KernelDistance:
    """Not scaled: tables show these times 1000."""

    mean: float  # over subsets
    spread: float  # standard deviation over subsets; 0 when a subset is everything there is
    error: float  # standard error of the mean, of real and generated sample and subsets together

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by the normal law that a U-statistic of many samples follows."""
        return self.mean - _NORMAL_95 * self.error, self.mean + _NORMAL_95 * self.error


def features_to_kernel(
    real: ArrayLike, fake: ArrayLike, *, seed: int, subsets: int = 100, subset_size: int = 1000
) -> KernelDistance:
    """KID of two sets of features.

    Args:
        real: [N, D].
        fake: [M, D].
        seed: decides the subsets.
        subsets: how many.
        subset_size: samples of each side in a subset, drawn without replacement; at most what
            the smaller side has.
    """
    x, y = np.asarray(real), np.asarray(fake)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    size = min(subset_size, len(x), len(y))
    if size < 2:
        raise ValueError("an unbiased kernel distance needs two samples or more on each side")
    rng = np.random.default_rng(seed)
    in_x = _draws(rng, subsets, size, len(x))
    in_y = _draws(rng, subsets, size, len(y))
    # Whatever is fewer kernel values: those of all pairs, or those of all subsets. The former are
    # kept in float64, which takes twice as long.
    if 4 * len(x) * len(y) <= subsets * size**2:
        estimates, variance = _of_all_pairs(x, y, in_x, in_y)
    else:
        u, v = (f / f.dtype.type(np.sqrt(f.shape[1])) for f in (x, y))
        estimates = np.array([_of_subset(u[a], v[b]) for a, b in zip(in_x, in_y, strict=True)])
        spread = float(estimates.var(ddof=1)) if subsets > 1 else np.nan
        variance = spread * size / max(min(len(x), len(y)) - size, 1)
    of_choice = float(estimates.var(ddof=1)) / subsets if subsets > 1 else 0.0
    error = float(np.sqrt(variance + of_choice))
    return KernelDistance(float(estimates.mean()), float(estimates.std()), error)


def _draws(rng: np.random.Generator, subsets: int, size: int, count: int) -> NDArray[np.intp]:
    """[subsets, size]: which samples are in each subset."""
    return np.stack([rng.choice(count, size, replace=False) for _ in range(subsets)])


def _of_subset(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The estimate of a pair of subsets [S, D], both over sqrt(D); products in their precision."""
    size = len(x)
    within = sum(_kernel_sum(f @ f.T, diagonal=False) for f in (x, y))
    return within / (size * (size - 1)) - _kernel_sum(x @ y.T) * (2.0 / size**2)


def _kernel_sum(products: NDArray[Any], diagonal: bool = True) -> float:
    products += 1
    products *= products * products
    if not diagonal:
        np.fill_diagonal(products, 0.0)
    return float(products.sum(dtype=np.float64))


def _of_all_pairs(
    x: NDArray[Any], y: NDArray[Any], in_x: NDArray[np.intp], in_y: NDArray[np.intp]
) -> tuple[Array, float]:
    """The estimates of all subsets, and the variance of the whole sample's estimate."""
    x, y = (f.astype(np.float64) for f in (x, y))
    size = in_x.shape[1]
    weights_x, weights_y = _indicators(in_x, len(x)), _indicators(in_y, len(y))
    within_x, rows_x, _ = _sums(x, x, weights_x, weights_x)
    within_y, rows_y, _ = _sums(y, y, weights_y, weights_y)
    between, across_x, across_y = _sums(x, y, weights_x, weights_y)
    estimates = (within_x + within_y) / (size * (size - 1)) - between * (2.0 / size**2)
    # How much each sample moves the estimate of the whole sample.
    n, m = len(x), len(y)
    pull_x = rows_x / (n - 1) - across_x / m
    pull_y = rows_y / (m - 1) - across_y / n
    return estimates, float(4.0 * (pull_x.var(ddof=1) / n + pull_y.var(ddof=1) / m))


def _indicators(chosen: NDArray[np.intp], count: int) -> Array:
    """[subsets, count]: 1 where a sample is in the subset."""
    weights = np.zeros((len(chosen), count))
    np.put_along_axis(weights, chosen, 1.0, axis=1)
    return weights


def _sums(a: Array, b: Array, in_a: Array, in_b: Array) -> tuple[Array, Array, Array]:
    """For each subset s, the sum of k(a_i, b_j) over i, j in s; i = j is left out where a is b.

    With subsets as 0/1 weights w this is w_a K w_b, so each kernel value is computed once, however
    many subsets it is in; K is made in blocks of rows and never held whole. Where a is b it is
    symmetric, and only what lies on and right of the diagonal's blocks is computed.

    Returns:
        Sums of subsets [subsets], of the rows [len(a)] and of the columns [len(b)] of K.
    """
    total, rows, columns = np.zeros(len(in_a)), np.zeros(len(a)), np.zeros(len(b))
    for start in range(0, len(a), _ROWS):
        block = slice(start, start + _ROWS)
        first = start if a is b else 0
        kernel = a[block] @ b[first:].T
        kernel /= a.shape[1]
        kernel += 1.0
        kernel *= kernel * kernel
        if a is b:
            np.fill_diagonal(kernel, 0.0)
            kernel[:, : len(kernel)] *= 0.5  # computed on both sides of the diagonal, unlike others
        sums = np.einsum("si,is->s", in_a[:, block], kernel @ in_b[:, first:].T)
        total += 2.0 * sums if a is b else sums
        rows[block] += kernel.sum(axis=1)
        columns[first:] += kernel.sum(axis=0)
    if a is b:
        rows += columns
    return total, rows, columns
