"""The Fréchet distance between two Gaussians, in float64 and by symmetric routes only.

    FD = |mu1 - mu2|^2 + Tr(S1) + Tr(S2) - 2 Tr sqrt(S1 S2)

For any factors S1 = F1 F1^T and S2 = F2 F2^T the last trace is the sum of the singular values of
F1^T F2 (the nuclear norm), and equally of the square roots of the eigenvalues of F1^T S2 F1. A
general matrix square root of S1 S2 is never formed: that product is not symmetric, and for
rank-deficient covariances such a root has returned finite numbers that were plainly wrong.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)

# The fast route is kept while its rounding, as a share of the result, is bounded by this.
_TOLERANCE = 1e-10

# Squared pivots of a Cholesky factor, smallest to largest, above which no rounding is among them.
_WELL_CONDITIONED = 1e-10


def frechet_distance(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians.

    Args:
        mu1, mu2: means, [D].
        sigma1, sigma2: covariances, [D, D], symmetric positive semi-definite; may be singular.

    Returns:
        The distance, at least 0 up to rounding (about 1e-12 of the covariances' traces).

    Raises:
        ValueError: shapes that do not fit together, or values that are not finite.
    """
    m1, s1 = _checked(mu1, sigma1)
    m2, s2 = _checked(mu2, sigma2)
    if m1.shape != m2.shape:
        raise ValueError(f"means of {len(m1)} and {len(m2)} dimensions cannot be compared")
    difference = m1 - m2
    traces = float(np.trace(s1) + np.trace(s2))
    return float(difference @ difference) + traces - 2.0 * _trace_sqrt_product(s1, s2)


def features_to_frechet(real: ArrayLike, fake: ArrayLike, *, nvlabs: bool = False) -> float:
    """Fréchet distance of two sets of features.

    With fewer samples than dimensions a covariance is singular; then the centred, scaled feature
    matrices are themselves the factors, and the distance is exact without any covariance.

    Args:
        real: [N, D], any float type.
        fake: [M, D].
        nvlabs: divide covariances by the sample count, as NVIDIA's StyleGAN family does, instead
            of the unbiased count minus one.
    """
    x, y = (np.asarray(f, dtype=np.float64) for f in (real, fake))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} cannot be compared")
    if min(len(x), len(y)) < 2:
        raise ValueError("a covariance needs two samples or more")
    mu1, mu2 = x.mean(axis=0), y.mean(axis=0)
    x, y = ((f - mu) / np.sqrt(len(f) if nvlabs else len(f) - 1) for f, mu in ((x, mu1), (y, mu2)))
    if min(len(x), len(y)) >= x.shape[1]:
        return frechet_distance(mu1, x.T @ x, mu2, y.T @ y)
    difference = mu1 - mu2
    traces = float(np.vdot(x, x) + np.vdot(y, y))
    cross = _short(x) @ _short(y).T
    return float(difference @ difference) + traces - 2.0 * float(_singular_values(cross).sum())


def _checked(mu: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
    mean = np.atleast_1d(np.asarray(mu, dtype=np.float64))
    covariance = np.atleast_2d(np.asarray(sigma, dtype=np.float64))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} do not fit together")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the statistics are not finite")
    return mean, covariance


def _trace_sqrt_product(s1: Array, s2: Array) -> float:
    """Tr sqrt(S1^(1/2) S2 S1^(1/2)), which equals Tr sqrt(S1 S2)."""
    f1 = _factor(s1)
    squares = scipy.linalg.eigvalsh(f1.T @ s2 @ f1, check_finite=False)
    # Rounding moves each eigenvalue by about `noise`. Under the root that is harmless for large
    # ones and grave for those near zero: a true zero becomes sqrt(noise), 1e-8 of the largest, and
    # a singular covariance has hundreds of them. Negative ones are such zeros, hence clipped.
    # Where the sum of these errors matters, singular values, which need no root, are taken.
    noise = 8 * _EPS * float(max(squares.max(initial=0.0), 0.0))
    roots = np.sqrt(squares.clip(min=0.0))
    error = noise / np.maximum(roots, np.sqrt(noise)) if noise else np.zeros(1)
    if error.sum() <= _TOLERANCE * roots.sum():
        return float(roots.sum())
    return float(_singular_values(f1.T @ _factor(s2)).sum())


def _factor(sigma: Array) -> Array:
    """F with F F^T = sigma: [D, D] by Cholesky, or [D, rank] where sigma is (nearly) singular."""
    try:
        lower: Array = scipy.linalg.cholesky(sigma, lower=True, check_finite=False)
        pivots = np.diagonal(lower) ** 2
        if pivots.min() > _WELL_CONDITIONED * pivots.max():
            return lower
    except scipy.linalg.LinAlgError:
        pass
    # An eigenvalue is known to some D * eps of the largest: whatever is smaller, or negative,
    # cannot be told from zero, and taking its root would make 1e-7 of 1e-14.
    values, vectors = scipy.linalg.eigh(sigma, check_finite=False)
    kept = values > 10 * len(sigma) * _EPS * values[-1]
    factor: Array = vectors[:, kept] * np.sqrt(values[kept])
    return factor


def _short(matrix: Array) -> Array:
    """A matrix with at most D rows and the same Gram matrix as `matrix` [N, D]."""
    if len(matrix) <= matrix.shape[1]:
        return matrix
    (triangle,) = scipy.linalg.qr(matrix, mode="r", check_finite=False)
    short: Array = triangle[: matrix.shape[1]]
    return short


def _singular_values(matrix: Array) -> Array:
    if 0 in matrix.shape:
        return np.zeros(0)
    values: Array = scipy.linalg.svdvals(matrix, check_finite=False)
    return values
