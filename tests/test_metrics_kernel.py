"""KID against the definition written as two loops, torch-fidelity, and its own unbiasedness."""

from __future__ import annotations

import warnings

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
    in_x, in_y = kernel._draws(rng, 5, 12, 30), kernel._draws(rng, 5, 12, 41)
    assert all(len({*chosen}) == 12 for chosen in (*in_x, *in_y))
    each = [naive(x[a], y[b]) for a, b in zip(in_x, in_y, strict=True)]
    assert got.mean == pytest.approx(np.mean(each), rel=1e-12)
    assert got.spread == pytest.approx(np.std(each), rel=1e-9)
    assert got.spread > 0
    # The other way, by which every pair is computed once.
    all_pairs, _ = kernel._of_all_pairs(x, y, in_x, in_y)
    np.testing.assert_allclose(all_pairs, each, rtol=1e-12)


def test_features_of_networks_lose_no_digit_that_is_shown() -> None:
    rng = np.random.default_rng(0)
    x, y = np.abs(rng.normal(size=(2, 400, 512)))
    for size in (100, 400):  # by subsets, and by all pairs
        exact, single = (
            features_to_kernel(x.astype(t).astype(u), y.astype(t).astype(u), seed=0,
                               subsets=4, subset_size=size).mean
            for t, u in ((np.float32, np.float64), (np.float32, np.float32))
        )  # fmt: skip
        assert 1000 * single == pytest.approx(1000 * exact, abs=1e-4)


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


def covered(shift: float, truth: float, size: int, trials: int = 100) -> tuple[float, float]:
    """Share of intervals that hold the truth, and their mean width over the spread of means."""
    rng = np.random.default_rng(3)
    inside, means, widths = 0, [], []
    for trial in range(trials):
        x, y = rng.normal(size=(2, 200, 6))
        got = features_to_kernel(x, y + shift, seed=trial, subsets=40, subset_size=size)
        low, high = got.interval
        inside += low <= truth <= high
        means.append(got.mean)
        widths.append(high - low)
    return inside / trials, float(np.mean(widths) / np.std(means))


@pytest.mark.parametrize("size", [100, 40], ids=["all pairs", "subsets"])
def test_the_interval_covers_the_truth(size: int) -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 4000, 6))
    truth = features_to_kernel(x, y + 0.5, seed=0, subsets=4, subset_size=4000).mean
    share, width = covered(0.5, truth, size)
    assert 0.88 <= share <= 1.0
    assert 3.3 < width < 4.8  # 2 x 1.96 is right
    share, width = covered(0.0, 0.0, size)  # equal distributions: cautious, never too narrow
    assert share >= 0.95


def test_the_spread_over_subsets_is_no_interval() -> None:
    """Subsets of everything have no spread at all, and the estimate an error all the same."""
    x, y = two(100, 100, 4)
    got = features_to_kernel(x, y, seed=0)
    assert got.spread == pytest.approx(0.0, abs=1e-12)
    assert got.error > 0.01 * got.mean


def test_rows_and_columns_of_the_kernel_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_ROWS", 7)
    x, y = two(30, 41, 4)
    ones = np.ones((1, 30))
    k = (x @ x.T / 4 + 1) ** 3
    np.fill_diagonal(k, 0.0)
    total, rows, _ = kernel._sums(x, x, ones, ones)
    np.testing.assert_allclose(rows, k.sum(axis=1))
    np.testing.assert_allclose(total, k.sum())
    k = (x @ y.T / 4 + 1) ** 3
    total, rows, columns = kernel._sums(x, y, ones, np.ones((1, 41)))
    np.testing.assert_allclose(rows, k.sum(axis=1))
    np.testing.assert_allclose(columns, k.sum(axis=0))
    np.testing.assert_allclose(total, k.sum())


@pytest.mark.slow
def test_is_not_slower_than_clean_fid() -> None:
    from time import process_time

    with warnings.catch_warnings():  # its imports warn of names that have moved
        warnings.simplefilter("ignore")
        from cleanfid.fid import kernel_distance

    rng = np.random.default_rng(0)
    # Up to 5000 a side each pair is computed once; beyond, both do the same products.
    for n, share in ((2000, 0.5), (10000, 1.2)):
        x, y = np.abs(rng.normal(size=(2, n, 2048))).astype(np.float32)
        started = process_time()
        features_to_kernel(x, y, seed=0)
        ours, started = process_time() - started, process_time()
        kernel_distance(x, y)
        assert ours < share * (process_time() - started)
