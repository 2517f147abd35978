"""Precision, recall, density and coverage, by the k nearest neighbours of features.

Around each sample lies a ball that reaches to its k-th nearest neighbour of its own side; the balls
of all real samples stand for the real manifold, those of the generated ones for the generator's.

- precision: the share of generated samples inside some real ball (Kynkäänniemi et al., NeurIPS
  2019, Eq. 1 and 2): are the samples realistic?
- recall: the share of real samples inside some generated ball: is all of the data covered?
- density: how many real balls a generated sample lies in, over k (Naeem et al., ICML 2020, Eq. 3):
  unlike precision it is not fooled by one outlier's large ball, and may exceed 1.
- coverage: the share of real balls that hold a generated sample (Naeem et al., Eq. 4).

Distances are computed in blocks of rows; the N x N matrix never exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.statistics import Estimate, Features, Parts, equally_many

Array = NDArray[np.float64]

K_MANIFOLD = 3  # of precision and recall, as their paper has it
K_DENSITY = 5  # of density and coverage, likewise

_ROWS = 256  # rows of a distance matrix that are in memory at a time


@dataclass(frozen=True)
class Neighbourhood:
    """Shares are between 0 and 1; density is 1 where both sides are alike."""

    precision: float
    recall: float
    density: float
    coverage: float


def compare(real: Features, fake: Features, certified: bool) -> Parts:
    """Precision, recall, density and coverage of as many images on each side."""
    x, y = equally_many(real, fake)
    found = features_to_neighbourhood(x, y)
    return {part: Estimate(value, used=len(x)) for part, value in asdict(found).items()}


def compare_five(real: Features, fake: Features, certified: bool) -> Parts:
    """The same with five neighbours for all four, as dgm-eval has them in DINOv2's features."""
    x, y = equally_many(real, fake)
    found = features_to_neighbourhood(x, y, k_manifold=K_DENSITY)
    return {part: Estimate(value, used=len(x)) for part, value in asdict(found).items()}


def features_to_neighbourhood(
    real: ArrayLike,
    fake: ArrayLike,
    *,
    k_manifold: int = K_MANIFOLD,
    k_density: int = K_DENSITY,
) -> Neighbourhood:
    """Return how two sets of features lie in each other.

    Args:
        real: [N, D]; comes first, as in every function here: the other order swaps precision and
            recall.
        fake: [M, D]. With M unlike N precision and recall are not comparable: a ball is smaller
            where samples are more.
        k_manifold: whose neighbour's distance is a ball's radius in precision and recall.
        k_density: the same in density and coverage.

    Raises:
        ValueError: shapes that do not fit together, values that are not finite, too few samples.
    """
    x, y = (np.asarray(f, dtype=np.float64) for f in (real, fake))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    if min(len(x), len(y)) <= max(k_manifold, k_density):
        raise ValueError(f"neighbours need more than {max(k_manifold, k_density)} samples a side")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("the features are not finite")
    # Distances do not change when both sides move; near the origin their rounding is smallest.
    origin = x.mean(axis=0)
    x, y = x - origin, y - origin

    wide, narrow = _radii(x, (k_density, k_manifold))
    (narrow_fake,) = _radii(y, (k_manifold,))
    in_manifold = np.zeros(len(y), dtype=bool)
    in_balls = 0
    recalled, covered = 0, 0
    for rows, squares in _blocks(x, y):  # [rows of real, all fake]
        in_manifold |= (squares <= narrow[rows, None]).any(axis=0)
        recalled += int((squares <= narrow_fake).any(axis=1).sum())
        inside = squares < wide[rows, None]
        in_balls += int(inside.sum())
        covered += int(inside.any(axis=1).sum())
    return Neighbourhood(
        precision=float(in_manifold.mean()),
        recall=recalled / len(x),
        density=in_balls / (k_density * len(y)),
        coverage=covered / len(x),
    )


def _radii(a: Array, ks: tuple[int, ...]) -> list[Array]:
    """Return for each k the squared distance [N] of every sample to its k-th nearest other one."""
    radii = [np.empty(len(a)) for _ in ks]
    for rows, squares in _blocks(a, a):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf  # itself
        squares.partition([k - 1 for k in ks], axis=1)
        for radius, k in zip(radii, ks, strict=True):
            radius[rows] = squares[:, k - 1]
    return radii


def _blocks(a: Array, b: Array) -> Iterator[tuple[slice, Array]]:
    """Squared distances of some rows of `a` to all of `b`: (rows, [R, len(b)]), never below 0."""
    norms = np.einsum("ij,ij->i", b, b)
    # What rounding leaves of the distance between equal samples must count as none: collapsed
    # generators repeat themselves, and radii of zero are compared with distances of zero.
    floor = 64 * np.finfo(np.float64).eps * float(norms.max(initial=0.0))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, min(start + _ROWS, len(a)))
        squares = a[rows] @ b.T
        squares *= -2.0
        squares += np.einsum("ij,ij->i", a[rows], a[rows])[:, None]
        squares += norms
        squares[squares <= floor] = 0.0
        yield rows, squares
