"""Sliced Wasserstein distance of features: no Gaussian is fitted, no pairs are formed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.statistics import SEED, Estimate, Features, Parts, equally_many

DIRECTIONS = 1024
_AT_ONCE = 64  # directions projected on at a time


def compare(real: Features, fake: Features, certified: bool) -> Parts:
    """The distance in the features' unit, of as many images on each side."""
    x, y = equally_many(real, fake)
    return {"": Estimate(features_to_sliced(x, y), used=len(x))}


def features_to_sliced(real: ArrayLike, fake: ArrayLike, seed: int = SEED) -> float:
    """Sliced 2-Wasserstein distance: root mean square over random directions of length 1.

    Args:
        real, fake: [N, D], of as many samples each.
        seed: of the directions.

    Raises:
        ValueError: shapes that differ, or no samples.
    """
    x, y = (np.asarray(f, dtype=np.float32) for f in (real, fake))
    if x.ndim != 2 or x.shape != y.shape or not len(x):
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    directions = np.random.default_rng(seed).normal(size=(DIRECTIONS, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, DIRECTIONS, _AT_ONCE):
        some: NDArray[np.float32] = directions[start : start + _AT_ONCE].astype(np.float32)
        a, b = (np.sort(some @ side.T, axis=1) for side in (x, y))
        total += float(np.square(a - b).mean(axis=1, dtype=np.float64).sum())
    return float(np.sqrt(total / DIRECTIONS))
