"""Kernel distance (KID): the unbiased squared MMD of two sets of features, over seeded subsets.

The kernel is the cubic polynomial k(x, y) = (x.y / D + 1)^3. The estimate is unbiased, so between
equal distributions it lies around zero and is negative half of the time.

The spread over subsets is no interval of the estimate: subsets overlap, and they know nothing of
the sample that they are drawn from. The interval here is that of the whole sample: the jackknife of
a two-sample U-statistic (Arvesen, 1969), whose influences are row means of the kernel matrix, plus
what the choice of subsets adds. Where both distributions are equal it is wider than need be, never
narrower.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    x, y = (np.asarray(f, dtype=np.float64) for f in (real, fake))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    size = min(subset_size, len(x), len(y))
    if size < 2:
        raise ValueError("an unbiased kernel distance needs two samples or more on each side")
    rng = np.random.default_rng(seed)
    in_x = _indicators(rng, subsets, size, len(x))
    in_y = _indicators(rng, subsets, size, len(y))
    pairs = size * (size - 1)
    within_x, rows_x, _ = _sums(x, x, in_x, in_x)
    within_y, rows_y, _ = _sums(y, y, in_y, in_y)
    between, across_x, across_y = _sums(x, y, in_x, in_y)
    estimates = within_x / pairs + within_y / pairs - between * (2.0 / size**2)
    # How much each sample moves the estimate of the whole sample.
    n, m = len(x), len(y)
    pull_x = rows_x / (n - 1) - across_x / m
    pull_y = rows_y / (m - 1) - across_y / n
    variance = 4.0 * (pull_x.var(ddof=1) / n + pull_y.var(ddof=1) / m)
    spread = float(estimates.std())
    error = float(np.sqrt(variance + spread**2 / subsets))
    return KernelDistance(float(estimates.mean()), spread, error)


def _indicators(rng: np.random.Generator, subsets: int, size: int, count: int) -> Array:
    """[subsets, count]: 1 where a sample is in the subset."""
    chosen = np.zeros((subsets, count))
    for row in chosen:
        row[rng.choice(count, size, replace=False)] = 1.0
    return chosen


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
