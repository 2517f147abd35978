"""Kernel distance (KID): the unbiased squared MMD of two sets of features, over seeded subsets.

The kernel is the cubic polynomial k(x, y) = (x.y / D + 1)^3. The estimate is unbiased, so between
equal distributions it lies around zero and is negative half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_ROWS = 1024  # rows of a kernel matrix that are in memory at a time


@dataclass(frozen=True)
class KernelDistance:
    """Not scaled: tables show these times 1000."""

    mean: float  # over subsets
    spread: float  # standard deviation over subsets; 0 when a subset is everything there is


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
    estimates = (
        _subset_sums(x, x, in_x, in_x) / pairs
        + _subset_sums(y, y, in_y, in_y) / pairs
        - _subset_sums(x, y, in_x, in_y) * (2.0 / size**2)
    )
    return KernelDistance(float(estimates.mean()), float(estimates.std()))


def _indicators(rng: np.random.Generator, subsets: int, size: int, count: int) -> Array:
    """[subsets, count]: 1 where a sample is in the subset."""
    chosen = np.zeros((subsets, count))
    for row in chosen:
        row[rng.choice(count, size, replace=False)] = 1.0
    return chosen


def _subset_sums(a: Array, b: Array, in_a: Array, in_b: Array) -> Array:
    """For each subset s, the sum of k(a_i, b_j) over i, j in s; i = j is left out where a is b.

    With subsets as 0/1 weights w this is w_a K w_b, so each kernel value is computed once, however
    many subsets it is in; K is made in blocks of rows and never held whole.

    Returns:
        [subsets].
    """
    total = np.zeros(len(in_a))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = a[rows] @ b.T
        kernel /= a.shape[1]
        kernel += 1.0
        kernel *= kernel * kernel
        if a is b:
            at = np.arange(len(kernel))
            kernel[at, start + at] = 0.0
        total += np.einsum("si,is->s", in_a[:, rows], kernel @ in_b.T)
    return total
