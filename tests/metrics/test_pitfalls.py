"""Ways in which Fréchet distances have come out wrong elsewhere, each with a check of our own.

Every check is also run on the wrong implementation, written out here, and must reject it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from frechet_of_features import features_to_frechet
from numpy.typing import NDArray

from bench.metrics.sampling import frechet_infinity, frechet_interval
from bench.metrics.statistics import (
    Accumulator,
    Statistics,
    features_to_statistics,
    statistics_to_frechet,
)

Array = NDArray[np.float64]
Distance = Callable[[Array, Array], float]  # of features [N, D] and [M, D]


def ours(x: Array, y: Array) -> float:
    return statistics_to_frechet(features_to_statistics(x), features_to_statistics(y))


def written_out(x: Array, y: Array, trace_of_root: Callable[[Array, Array], float]) -> float:
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    means = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    return means + float(np.trace(s1) + np.trace(s2)) - 2 * trace_of_root(s1, s2)


def rejected(check: Callable[..., None], *wrong: object) -> None:
    with pytest.raises(AssertionError):
        check(*wrong)


# A root of the product of covariances, which is not symmetric; rank deficiency.


def root_of_the_product(x: Array, y: Array) -> float:
    """By its eigenvalues; what is imaginary is dropped. What a matrix square root comes to."""
    return written_out(x, y, lambda a, b: float(np.sqrt(np.linalg.eigvals(a @ b) + 0j).real.sum()))


def root_with_an_offset(x: Array, y: Array) -> float:
    """The usual remedy for singular products: a small multiple of the unit matrix on both."""

    def trace_of_root(a: Array, b: Array) -> float:
        offset = 1e-6 * np.eye(len(a))
        return float(np.sqrt(np.linalg.eigvals((a + offset) @ (b + offset)) + 0j).real.sum())

    return written_out(x, y, trace_of_root)


def check_fewer_samples_than_dimensions(distance: Distance) -> None:
    x = np.random.default_rng(0).normal(size=(50, 128))
    assert abs(distance(x, x)) < 1e-10
    # In spaces that are at right angles nothing is shared: both traces remain.
    y = x.copy()
    x[:, 64:], y[:, :64] = 0.0, 0.0
    wanted = float(np.var(x, axis=0, ddof=1).sum() + np.var(y, axis=0, ddof=1).sum())
    wanted += float(((x.mean(0) - y.mean(0)) ** 2).sum())
    assert distance(x, y) == pytest.approx(wanted, rel=1e-12)


def check_a_collapsed_generator(distance: Distance) -> None:
    x = np.random.default_rng(0).normal(size=(300, 64))
    y = np.repeat(x[:2], 100, axis=0)  # two images: a covariance of rank one
    axis = (y[0] - y[-1]) / np.linalg.norm(y[0] - y[-1])
    s1 = np.cov(x, rowvar=False)
    shared = np.sqrt(axis @ s1 @ axis * np.var(y @ axis, ddof=1))
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1) + np.var(y @ axis, ddof=1)
    assert distance(x, y) == pytest.approx(float(wanted - 2 * shared), rel=1e-9)


def test_rank_deficiency() -> None:
    check_fewer_samples_than_dimensions(ours)
    check_a_collapsed_generator(ours)


@pytest.mark.parametrize("wrong", [root_of_the_product, root_with_an_offset])
def test_rank_deficiency_rejects(wrong: Distance) -> None:
    rejected(check_fewer_samples_than_dimensions, wrong)
    rejected(check_a_collapsed_generator, wrong)


# float32 sums.


def centred_batches(batches: list[NDArray[np.float32]]) -> Statistics:
    accumulator = Accumulator()
    for batch in batches:
        accumulator.update(batch)
    return accumulator.statistics()


def single_precision(batches: list[NDArray[np.float32]]) -> Statistics:
    n = sum(map(len, batches))
    total = np.sum([b.sum(0) for b in batches], axis=0, dtype=np.float32)
    squares = np.zeros((total.size, total.size), np.float32)
    for b in batches:
        squares += b.T @ b
    mean = total / np.float32(n)
    cov = (squares - np.float32(n) * np.outer(mean, mean)) / np.float32(n - 1)
    return Statistics(n, mean.astype(np.float64), cov.astype(np.float64))


def single_precision_centred(batches: list[NDArray[np.float32]]) -> Statistics:
    x = np.concatenate(batches)
    cov = np.cov(x, rowvar=False, dtype=np.float32)
    return Statistics(len(x), x.mean(0).astype(np.float64), cov.astype(np.float64))


def check_digits(moments: Callable[[list[NDArray[np.float32]]], Statistics]) -> None:
    """Features far from zero, of distributions that are close: a small rest of large sums."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 16)) + 20.0).astype(np.float32)
    y = (x * np.float32(1.01)).astype(np.float32)
    wanted = features_to_frechet(x, y)
    parts = (np.array_split(f, 40) for f in (x, y))
    got = statistics_to_frechet(*(moments(batches) for batches in parts))
    assert got == pytest.approx(wanted, rel=1e-9)


def test_precision() -> None:
    check_digits(centred_batches)


@pytest.mark.parametrize("wrong", [single_precision, single_precision_centred])
def test_precision_rejects(wrong: Callable[..., Statistics]) -> None:
    rejected(check_digits, wrong)


# The divisor of a covariance.


def check_divisor(distance: Distance) -> None:
    """One dimension and few samples, worked out by hand: standard deviations 2 and 1."""
    x, y = np.array([[1.0], [3.0], [5.0]]), np.array([[2.0], [3.0], [4.0]])
    assert distance(x, y) == pytest.approx(1.0)


def test_divisor() -> None:
    check_divisor(ours)
    # By n, on demand: deviations 2 and 1, times sqrt(2 / 3).
    x, y = np.array([[1.0], [3.0], [5.0]]), np.array([[2.0], [3.0], [4.0]])
    a, b = features_to_statistics(x), features_to_statistics(y)
    assert statistics_to_frechet(a.by_n(), b.by_n()) == pytest.approx(2 / 3)


def test_divisor_rejects() -> None:
    rejected(check_divisor, lambda x, y: features_to_frechet(x, y, ddof=0))


# The number of samples.

Limit = Callable[[Statistics, Array], float]


def check_same_distribution_is_at_zero(limit: Limit) -> None:
    rng = np.random.default_rng(0)
    real = Statistics(10**9, np.zeros(16), np.eye(16))
    found = [limit(real, rng.normal(size=(400, 16))) for _ in range(10)]
    assert abs(np.mean(found)) < 0.03


def plain(real: Statistics, fake: Array) -> float:
    return statistics_to_frechet(real, features_to_statistics(fake))


def bootstrap_mean(real: Statistics, fake: Array) -> float:
    rng = np.random.default_rng(0)
    resamples = (fake[rng.integers(0, len(fake), len(fake))] for _ in range(10))
    return float(np.mean([plain(real, resample) for resample in resamples]))


def test_number_of_samples() -> None:
    check_same_distribution_is_at_zero(lambda r, f: frechet_infinity(r, f, seed=0))
    check_same_distribution_is_at_zero(lambda r, f: frechet_interval(r, f, seed=0).corrected)


@pytest.mark.parametrize("wrong", [plain, bootstrap_mean])
def test_number_of_samples_rejects(wrong: Limit) -> None:
    rejected(check_same_distribution_is_at_zero, wrong)
