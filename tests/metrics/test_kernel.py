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


@pytest.mark.parametrize("counts", [(23, 23), (30, 41), (41, 14)], ids=str)
def test_equals_two_loops(counts: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = two(*counts, 5)
    wanted = naive(x, y)
    assert features_to_kernel(x, y).value == pytest.approx(wanted, rel=1e-12)
    monkeypatch.setattr(kernel, "_ROWS", 7)  # blocks that do not divide the count
    assert features_to_kernel(x, y).value == pytest.approx(wanted, rel=1e-12)


def test_is_the_mean_over_subsets() -> None:
    """What published code averages over a hundred subsets has this as its mean over all of them."""
    x, y = two(60, 60, 4, shift=1.0)
    rng = np.random.default_rng(3)
    draws = [(rng.permutation(60)[:20], rng.permutation(60)[:20]) for _ in range(4000)]
    each = [features_to_kernel(x[a], y[b]).value for a, b in draws]
    error = np.std(each) / np.sqrt(len(each))
    assert features_to_kernel(x, y).value == pytest.approx(np.mean(each), abs=4 * error)
    assert error < 0.02 * features_to_kernel(x, y).value


def test_neither_order_nor_side_matters() -> None:
    x, y = two(90, 70, 4)
    rng = np.random.default_rng(7)
    got = features_to_kernel(x, y)
    for other in (
        features_to_kernel(rng.permutation(x), rng.permutation(y)),
        features_to_kernel(y, x),
    ):
        assert other.value == pytest.approx(got.value, rel=1e-12)
        assert other.error == pytest.approx(got.error, rel=1e-9)


def test_agrees_with_torch_fidelity() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = two(200, 200, 16)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=200, verbose=False
    )
    got = features_to_kernel(x, y)
    assert got.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_unbiased_between_equal_distributions() -> None:
    rng = np.random.default_rng(1)
    got = np.array([features_to_kernel(*rng.normal(size=(2, 60, 8))).value for _ in range(200)])
    error = got.std() / np.sqrt(len(got))
    assert abs(got.mean()) < 3 * error
    assert 0.2 < (got < 0).mean() < 0.8
    # The biased estimate keeps the diagonal, and with it a positive mean far outside of this.
    diagonal = 2 * (1 + 1) ** 3 / 60
    assert diagonal > 10 * error


def test_farther_is_larger() -> None:
    values = [features_to_kernel(*two(80, 80, 4, s)).value for s in (0.0, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[-1] > 10 * abs(values[0])


@pytest.mark.parametrize("shapes", [((1, 4), (9, 4)), ((9, 4), (9, 5)), ((9,), (9,))], ids=str)
def test_bad_features_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"two samples|cannot be compared"):
        features_to_kernel(np.zeros(shapes[0]), np.zeros(shapes[1]))


def covered(shift: float, truth: float, trials: int = 100) -> tuple[float, float]:
    """Share of intervals that hold the truth, and their mean width over the spread of values."""
    rng = np.random.default_rng(3)
    inside, values, widths = 0, [], []
    for _ in range(trials):
        x, y = rng.normal(size=(2, 200, 6))
        got = features_to_kernel(x, y + shift)
        low, high = got.interval
        inside += low <= truth <= high
        values.append(got.value)
        widths.append(high - low)
    return inside / trials, float(np.mean(widths) / np.std(values))


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 4000, 6))
    truth = features_to_kernel(x, y + 0.5).value
    share, width = covered(0.5, truth)
    assert 0.88 <= share <= 1.0
    assert 3.3 < width < 4.8  # 2 x 1.96 is right
    share, width = covered(0.0, 0.0)  # equal distributions: cautious, never too narrow
    assert share >= 0.95


@pytest.mark.slow
def test_takes_no_longer_than_it_says() -> None:
    """Beside clean-fid's hundred subsets, whose time does not grow with the images."""
    from time import process_time

    with warnings.catch_warnings():  # its imports warn of names that have moved
        warnings.simplefilter("ignore")
        from cleanfid.fid import kernel_distance

    rng = np.random.default_rng(0)
    for n, share in ((2000, 0.5), (10000, 3.0)):
        x, y = np.abs(rng.normal(size=(2, n, 2048))).astype(np.float32)
        started = process_time()
        features_to_kernel(x, y)
        ours, started = process_time() - started, process_time()
        kernel_distance(x, y)
        assert ours < share * (process_time() - started)
