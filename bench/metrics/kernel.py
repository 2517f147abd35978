"""Kernel distance (KID): the unbiased squared MMD of two sets of features, over all their pairs.

The kernel is the cubic polynomial k(x, y) = (x.y / D + 1)^3. The estimate is unbiased, so between
equal distributions it lies around zero and is negative half of the time.

Published code (Binkowski et al., ICLR 2018; clean-fid, StyleGAN2-ADA) averages the estimates of a
hundred random subsets of a thousand. The mean over all subsets is this number; a hundred of them
add the noise of their choice, so that the order of the images or a seed would move the value.

The interval is the jackknife of a two-sample U-statistic (Arvesen, 1969), whose influences are row
means of the kernel matrix. Where both distributions are equal it is wider than need be, never
narrower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.statistics import Estimate, Features, Parts, equally_many

Array = NDArray[np.float64]

_NORMAL_95 = 1.959964
SIGMA = 10.0  # of CMMD's kernel
_ROWS = 1024  # rows of a kernel matrix that are in memory at a time


@dataclass(frozen=True)
class KernelDistance:
    """Not scaled: tables show these times 1000."""

    value: float
    error: float  # standard error, of real and generated sample together

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by the normal law that a U-statistic of many samples follows."""
        return self.value - _NORMAL_95 * self.error, self.value + _NORMAL_95 * self.error


def compare(real: Features, fake: Features, certified: bool) -> Parts:
    """KID x1000 with its interval, of as many images on each side."""
    x, y = equally_many(real, fake)
    found = features_to_kernel(x, y)
    low, high = found.interval
    return {"": Estimate(1000.0 * found.value, (1000.0 * low, 1000.0 * high), used=len(x))}


def compare_rbf(real: Features, fake: Features, certified: bool) -> Parts:
    """CMMD x1000 (Jayasumana et al., CVPR 2024), of as many images on each side."""
    x, y = equally_many(real, fake)
    return {"": Estimate(1000.0 * features_to_rbf(x, y), used=len(x))}


def features_to_rbf(real: ArrayLike, fake: ArrayLike, sigma: float = SIGMA) -> float:
    """Squared MMD of features at length 1, with k(x, y) = exp(-|x - y|² / (2 sigma²)).

    The biased estimate: means over all pairs, a sample with itself among them.

    Args:
        real, fake: [N, D] and [M, D].
        sigma: width of the kernel.
    """
    x, y = (np.asarray(f, dtype=np.float64) for f in (real, fake))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    x, y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))

    def mean(a: Array, b: Array) -> float:
        """The kernel's mean; at length 1, |a - b|² = 2 - 2 a.b."""
        total = 0.0
        for start in range(0, len(a), _ROWS):
            total += float(np.exp((a[start : start + _ROWS] @ b.T - 1.0) / sigma**2).sum())
        return total / (len(a) * len(b))

    return mean(x, x) + mean(y, y) - 2.0 * mean(x, y)


def features_to_kernel(real: ArrayLike, fake: ArrayLike) -> KernelDistance:
    """KID of two sets of features, in time N M D and memory that grows with N + M alone.

    Args:
        real: [N, D].
        fake: [M, D].

    Raises:
        ValueError: shapes that do not fit together, or fewer than two samples.
    """
    x, y = (np.asarray(f, dtype=np.float64) for f in (real, fake))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError("an unbiased kernel distance needs two samples or more on each side")
    within_x, within_y = _within(x), _within(y)
    across_x, across_y = _between(x, y)
    within = within_x.sum() / (n * (n - 1)) + within_y.sum() / (m * (m - 1))
    value = float(within - across_x.sum() * (2.0 / (n * m)))
    # How much each sample moves the estimate.
    pull_x = within_x / (n - 1) - across_x / m
    pull_y = within_y / (m - 1) - across_y / n
    variance = 4.0 * (pull_x.var(ddof=1) / n + pull_y.var(ddof=1) / m)
    return KernelDistance(value, float(np.sqrt(variance)))


def _within(a: Array) -> Array:
    """Row sums [N] of k(a, a) without its diagonal.

    The matrix is symmetric: only what lies on and right of the diagonal's blocks is computed.
    """
    sums = np.zeros(len(a))
    for start in range(0, len(a), _ROWS):
        block = slice(start, start + _ROWS)
        kernel = _kernel(a[block], a[start:])
        np.fill_diagonal(kernel, 0.0)
        sums[block] += kernel.sum(axis=1)
        sums[start + _ROWS :] += kernel[:, _ROWS:].sum(axis=0)
    return sums


def _between(a: Array, b: Array) -> tuple[Array, Array]:
    """Row sums [N] and column sums [M] of k(a, b)."""
    rows, columns = np.zeros(len(a)), np.zeros(len(b))
    for start in range(0, len(a), _ROWS):
        kernel = _kernel(a[start : start + _ROWS], b)
        rows[start : start + _ROWS] = kernel.sum(axis=1)
        columns += kernel.sum(axis=0)
    return rows, columns


def _kernel(a: Array, b: Array) -> Array:
    kernel = a @ b.T
    kernel /= a.shape[1]
    kernel += 1.0
    kernel *= kernel * kernel
    return kernel
