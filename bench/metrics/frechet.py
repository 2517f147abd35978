"""The Fréchet distance between two Gaussians, in float64 and by symmetric routes only.

    FD = |mu1 - mu2|^2 + Tr(S1) + Tr(S2) - 2 Tr sqrt(S1^(1/2) S2 S1^(1/2))

For any factors S1 = F1 F1^T and S2 = F2 F2^T the last trace is the sum of the singular values of
F1^T F2, its nuclear norm. So a factor of each covariance is all that is needed, and one exists
whatever the rank. A matrix square root of the product S1 S2 is never formed: that product is not
symmetric, and for singular covariances such roots have come out finite and plainly wrong.

Three routes, each where it is exact:
- both covariances of full rank: the eigenvalues of L1^T S2 L1, four times faster than an SVD, and
  checked against the determinants of the factors;
- anything singular, or where that check fails: the SVD of the cross product of the factors;
- `frechet_by_eigenvectors`: slow, with nothing in common with the other two but its arguments.
  Certificates of published numbers come from it.

scipy is imported where it is used, so that a machine that only trains can do without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)

# A fast way to a nuclear norm is kept while its rounding is this share of it at most.
_TOLERANCE = 1e-10

# Two routes that differ by more than this share of the distance: one of them is wrong.
GAP_TOLERANCE = 1e-6
# Of a distance that is itself next to nothing, rounding is a large share; it is then measured
# against this share of the covariances' traces.
_NEXT_TO_NOTHING = 1e-6


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
    _comparable(m1, m2)
    return _distance(m1, s1, m2, s2, _trace_of_root(s1, s2))


def frechet_by_eigenvectors(
    mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike
) -> float:
    """The same distance by an independent route: symmetric roots, then an SVD of their product.

    No factorisation, order of variables or product is shared with `frechet_distance`. It takes
    about ten times as long and exists to certify it.

    Args and errors are those of `frechet_distance`.
    """
    from scipy.linalg import svdvals

    m1, s1 = _checked(mu1, sigma1)
    m2, s2 = _checked(mu2, sigma2)
    _comparable(m1, m2)
    roots = svdvals(_eigen_factor(s1).T @ _eigen_factor(s2), check_finite=False)
    return _distance(m1, s1, m2, s2, float(roots.sum()))


def certify_frechet(
    distance: float, mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike
) -> float:
    """Relative gap between `distance` and what the independent route makes of the same moments.

    Args:
        distance: what `frechet_distance` gave for the moments that follow.
        mu1, sigma1, mu2, sigma2: as `frechet_distance` takes them.

    Returns:
        The gap as a share of the distance, or of a millionth of the covariances' traces where
        the distance is smaller than that: at least 0. Past GAP_TOLERANCE nothing may be published.
    """
    second = frechet_by_eigenvectors(mu1, sigma1, mu2, sigma2)
    traces = float(np.trace(np.atleast_2d(sigma1)) + np.trace(np.atleast_2d(sigma2)))
    scale = max(abs(second), _NEXT_TO_NOTHING * traces, float(np.finfo(np.float64).tiny))
    return abs(distance - second) / scale


def _checked(mu: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
    mean = np.atleast_1d(np.asarray(mu, dtype=np.float64))
    covariance = np.atleast_2d(np.asarray(sigma, dtype=np.float64))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} do not fit together")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the statistics are not finite")
    return mean, covariance


def _comparable(mu1: Array, mu2: Array) -> None:
    if mu1.shape != mu2.shape:
        raise ValueError(f"means of {len(mu1)} and {len(mu2)} dimensions cannot be compared")


def _distance(mu1: Array, sigma1: Array, mu2: Array, sigma2: Array, trace_of_root: float) -> float:
    difference = mu1 - mu2
    traces = float(np.trace(sigma1) + np.trace(sigma2))
    return float(difference @ difference) + traces - 2.0 * trace_of_root


def _trace_of_root(sigma1: Array, sigma2: Array) -> float:
    """Tr sqrt(S1^(1/2) S2 S1^(1/2))."""
    lower1, order1, rank1 = _pivoted(sigma1)
    lower2, order2, rank2 = _pivoted(sigma2)
    if rank1 == rank2 == len(sigma1):
        found = _full_rank_trace(lower1, order1, sigma2, np.diagonal(lower2))
        if found is not None:
            return found
    cross = _rows(lower1, order1, rank1).T @ _rows(lower2, order2, rank2)
    return _nuclear_norm(cross)


def _full_rank_trace(
    lower1: Array, order1: NDArray[np.intp], sigma2: Array, pivots2: Array
) -> float | None:
    """The same of two covariances of full rank; None where rounding has spoilt it.

    It is the sum of the roots of the eigenvalues of L1^T S2 L1. Under a root, rounding is grave
    for small eigenvalues; but L1's pivoting has sorted that matrix from large to small, and the
    reduction to tridiagonal form starts at its large end, so that small eigenvalues keep their
    own relative precision. Most often: hence the check. The determinant of that matrix is known
    from the pivots of both factors, and it is small eigenvalues that would show in it.
    """
    from scipy.linalg import eigvalsh
    from scipy.linalg.lapack import dsygst

    # Transposed, which for a symmetric matrix says only that LAPACK need not copy it.
    product, _ = dsygst(sigma2[np.ix_(order1, order1)].T, lower1, itype=2, lower=1, overwrite_a=1)
    squares = eigvalsh(product, lower=True, overwrite_a=True, check_finite=False)
    if squares[0] <= 0.0:
        return None
    roots = np.sqrt(squares)
    pivots = 2.0 * (np.log(np.diagonal(lower1)).sum() + np.log(pivots2).sum())
    # Had each eigenvalue the same error e, the logarithms would be off by e * sum(1 / square),
    # and the roots by e / 2 * sum(1 / root).
    e = abs(np.log(squares).sum() - pivots) / (1.0 / squares).sum()
    error = 0.5 * e * (1.0 / roots).sum()
    return float(roots.sum()) if error <= _TOLERANCE * roots.sum() else None


def _pivoted(sigma: Array) -> tuple[Array, NDArray[np.intp], int]:
    """Cholesky decomposition with pivoting: sigma[order][:, order] = L L^T, and the rank.

    Pivoting takes the largest remaining variance first and ends where what remains may be rounding
    alone. Such a remainder must not count: a true zero that came out as 1e-16 would enter
    the distance as its root, 1e-8, and a singular covariance has hundreds of them.

    Returns:
        L [D, D] in the lower triangle, of which the first `rank` columns are valid; the upper one
        is not cleared. The order [D] and the rank.
    """
    from scipy.linalg.lapack import dpstrf

    lower, order, rank, _ = dpstrf(sigma, tol=_floor(np.diagonal(sigma)), lower=1)
    return lower, order - 1, int(rank)


def _rows(lower: Array, order: NDArray[np.intp], rank: int) -> Array:
    """F [D, rank] with F F^T = sigma, of what `_pivoted` gives."""
    factor = np.zeros((len(lower), rank))
    factor[order] = np.tril(lower)[:, :rank]
    return factor


def _eigen_factor(sigma: Array) -> Array:
    """F [D, rank] with F F^T = sigma, of the eigenvectors."""
    from scipy.linalg import eigh

    values, vectors = eigh(sigma, check_finite=False)
    real = values > _floor(values)
    factor: Array = vectors[:, real] * np.sqrt(values[real])
    return factor


def _floor(variances: Array) -> float:
    """Return the size below which a variance of a covariance may be rounding alone."""
    return 10 * len(variances) * _EPS * float(variances.max(initial=0.0))


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
