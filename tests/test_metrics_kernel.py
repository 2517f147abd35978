"""KID against the definition written as two loops, torch-fidelity, and its own unbiasedness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.metrics import kernel
from bench.metrics.kernel import features_to_kernel

Array = NDArray[np.float64]


def naive(x: Array, y: Array) -> float:
    """The unbiased squared MMD as it is defined, pair by pair."""

    def k(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    between = sum(k(a, b) for a in x for b in y) / (n * m)
    return within_x + within_y - 2 * between


def two(n: int, m: int, d: int, shift: float = 0.3) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def test_equals_two_loops() -> None:
    x, y = two(23, 23, 5)
    got = features_to_kernel(x, y, seed=0, subsets=3, subset_size=1000)
    assert got.mean == pytest.approx(naive(x, y), rel=1e-12)
    assert got.spread == pytest.approx(0.0, abs=1e-12)  # every subset is everything


def test_subsets_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_ROWS", 7)  # blocks that do not divide the count
    x, y = two(30, 41, 4)
    got = features_to_kernel(x, y, seed=3, subsets=5, subset_size=12)
    rng = np.random.default_rng(3)
    in_x = kernel._indicators(rng, 5, 12, 30).astype(bool)
    in_y = kernel._indicators(rng, 5, 12, 41).astype(bool)
    assert in_x.sum(1).tolist() == in_y.sum(1).tolist() == [12] * 5
    each = [naive(x[a], y[b]) for a, b in zip(in_x, in_y, strict=True)]
    assert got.mean == pytest.approx(np.mean(each), rel=1e-12)
    assert got.spread == pytest.approx(np.std(each), rel=1e-9)
    assert got.spread > 0


def test_agrees_with_torch_fidelity() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = two(200, 200, 16)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=200, verbose=False
    )
    got = features_to_kernel(x, y, seed=0, subsets=1, subset_size=200)
    assert got.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_unbiased_between_equal_distributions() -> None:
    rng = np.random.default_rng(1)
    got = np.array(
        [
            features_to_kernel(*rng.normal(size=(2, 60, 8)), seed=0, subsets=4, subset_size=50).mean
            for _ in range(200)
        ]
    )
    error = got.std() / np.sqrt(len(got))
    assert abs(got.mean()) < 3 * error
    assert 0.2 < (got < 0).mean() < 0.8
    # The biased estimate keeps the diagonal, and with it a positive mean far outside of this.
    diagonal = 2 * (1 + 1) ** 3 / 50
    assert diagonal > 10 * error


def test_the_seed_decides_and_nothing_else() -> None:
    x, y = two(100, 100, 4)
    first = features_to_kernel(x, y, seed=0, subset_size=20)
    np.random.seed(7)  # noqa: NPY002 - the global state must not matter
    assert features_to_kernel(x, y, seed=0, subset_size=20) == first
    assert features_to_kernel(x, y, seed=1, subset_size=20) != first


def test_farther_is_larger() -> None:
    values = [features_to_kernel(*two(80, 80, 4, s), seed=0).mean for s in (0.0, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[-1] > 10 * abs(values[0])


@pytest.mark.parametrize("shapes", [((1, 4), (9, 4)), ((9, 4), (9, 5)), ((9,), (9,))], ids=str)
def test_bad_features_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"two samples|cannot be compared"):
        features_to_kernel(np.zeros(shapes[0]), np.zeros(shapes[1]), seed=0)
