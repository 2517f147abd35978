"""Speed of the Fréchet distance at the width of Inception features, against clean-fid's.

    OMP_NUM_THREADS=1 pytest tests/benchmarks/test_frechet.py --benchmark-only

Both run in this process with the threads that it was given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from bench.metrics.frechet import frechet_by_eigenvectors, frechet_distance

Array = NDArray[np.float64]
Moments = tuple[Array, Array, Array, Array]
DIM = 2048


@pytest.fixture(scope="module", params=["even", "falling"])
def moments(request: pytest.FixtureRequest) -> Moments:
    """Of full rank: variances alike, or falling to a millionth of the largest."""
    rng = np.random.default_rng(0)
    scale = np.exp(-np.arange(DIM) / 300) if request.param == "falling" else np.ones(DIM)
    basis = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    x, y = ((rng.normal(size=(3 * DIM, DIM)) * scale) @ basis for _ in range(2))
    return x.mean(0), np.cov(x, rowvar=False), y.mean(0) + 0.01, np.cov(y, rowvar=False)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_at_least_eight_times_as_fast_as_clean_fid(
    benchmark: BenchmarkFixture, moments: Moments
) -> None:
    from cleanfid.fid import frechet_distance as clean_fid

    theirs, their_seconds = _timed(benchmark, clean_fid, moments)
    ours = benchmark.pedantic(frechet_distance, moments, rounds=3, warmup_rounds=1)
    assert ours == pytest.approx(theirs, rel=1e-6)
    if benchmark.stats is not None:  # None with --benchmark-disable
        times = their_seconds / benchmark.stats.stats.median
        benchmark.extra_info["times_as_fast_as_clean_fid"] = times
        assert times >= 8


def test_the_certificates_route(benchmark: BenchmarkFixture, moments: Moments) -> None:
    second = benchmark.pedantic(frechet_by_eigenvectors, moments, rounds=1)
    assert second == pytest.approx(frechet_distance(*moments), rel=1e-9)


def _timed(
    benchmark: BenchmarkFixture, function: Callable[..., float], moments: Moments
) -> tuple[float, float]:
    clock = benchmark._timer  # of --benchmark-timer, so that both are measured alike
    started = clock()
    try:
        value = function(*moments)
    except TypeError:  # SciPy 1.18 took away an argument that clean-fid passes
        pytest.skip("clean-fid does not run with this SciPy")
    return value, clock() - started
