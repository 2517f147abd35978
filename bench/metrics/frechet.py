"""The Fréchet distance between two Gaussians, in float64 and by symmetric routes only.

    FD = |mu1 - mu2|^2 + Tr(S1) + Tr(S2) - 2 Tr sqrt(S1^(1/2) S2 S1^(1/2))

For any factors S1 = F1 F1^T and S2 = F2 F2^T the last trace is the sum of the singular values of
F1^T F2, its nuclear norm. So a factor of each covariance is all that is needed, and one exists
whatever the rank; from features, the centred and scaled feature matrices are such factors. A
matrix square root of the product S1 S2 is never formed: that product is not symmetric, and for
singular covariances such roots have come out finite and plainly wrong.

scipy is imported where it is used, so that a machine that only trains can do without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)

# The fast way to a nuclear norm is kept while its rounding is bounded by this share of it.
_TOLERANCE = 1e-10


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
    return (
        float(difference @ difference) + traces - 2.0 * _nuclear_norm(_factor(s1).T @ _factor(s2))
    )


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
    return float(difference @ difference) + traces - 2.0 * _nuclear_norm(_short(x) @ _short(y).T)


def _checked(mu: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
    mean = np.atleast_1d(np.asarray(mu, dtype=np.float64))
    covariance = np.atleast_2d(np.asarray(sigma, dtype=np.float64))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} do not fit together")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the statistics are not finite")
    return mean, covariance


def _factor(sigma: Array) -> Array:
    """F [D, rank] with F F^T = sigma, by a Cholesky decomposition with pivoting.

    Pivoting takes the largest remaining variance first and ends where what remains cannot be told
    from rounding. Such a remainder must not count: a true zero that came out as 1e-16 would enter
    the distance as its root, 1e-8, and a singular covariance has hundreds of them.
    """
    from scipy.linalg.lapack import dpstrf

    dim = len(sigma)
    floor = 10 * dim * _EPS * float(np.diagonal(sigma).max(initial=0.0))
    lower, order, rank, _ = dpstrf(sigma, tol=floor, lower=1)
    factor = np.zeros((dim, dim))
    factor[order - 1] = np.tril(lower)
    return factor[:, :rank]


def _short(matrix: Array) -> Array:
    """A matrix with at most D rows and the same Gram matrix as `matrix` [N, D]."""
    if len(matrix) <= matrix.shape[1]:
        return matrix
    from scipy.linalg import qr

    (triangle,) = qr(matrix, mode="r", check_finite=False)
    short: Array = triangle[: matrix.shape[1]]
    return short


def _nuclear_norm(matrix: Array) -> float:
    """The sum of a matrix's singular values."""
    if 0 in matrix.shape:
        return 0.0
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    from scipy.linalg import eigvalsh, svdvals

    # As roots of the eigenvalues of the Gram matrix, five times faster than by an SVD. Rounding
    # moves each eigenvalue by about `noise`, which is harmless under the root for large ones and
    # grave near zero (a negative one is such a zero, hence clipped). Where it adds up: the SVD.
    squares = eigvalsh(matrix @ matrix.T, check_finite=False)
    noise = max(8 * _EPS * float(squares[-1]), np.finfo(np.float64).tiny)
    roots = np.sqrt(squares.clip(min=0.0))
    error = noise / np.maximum(roots, np.sqrt(noise))
    if error.sum() > _TOLERANCE * roots.sum():
        roots = svdvals(matrix, check_finite=False)
    return float(roots.sum())
