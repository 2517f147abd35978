"""Intervals, paired tests and Holm's correction: by hand, by SciPy, and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.analysis.stats import (
    ALPHA,
    Interval,
    all_pairs_p,
    groups_p,
    holm,
    kendall,
    mean_interval,
    pairs_needed,
    sign_flip_p,
    sign_test_p,
    smallest_p,
    spearman,
    spearman_p,
)


def test_fewer_than_five_points_show_their_range_and_one_has_none() -> None:
    assert mean_interval([3.0]) is None
    assert mean_interval([3.0, 1.0, 2.0, 7.0]) == Interval(1.0, 7.0, "range")
    # Of 1 to 5: 3, deviation sqrt(2.5), Student's quantile 2.776 for four degrees of freedom.
    found = mean_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert found is not None and found.kind == "t"
    half = 2.7764451 * (2.5 / 5) ** 0.5
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


@pytest.mark.parametrize("n", [5, 6, 10])
def test_the_interval_covers_the_mean_as_often_as_it_says(n: int) -> None:
    """Of normal values, and of logarithmic normal ones with a spread of 30 % as distances have."""
    rng = np.random.default_rng(n)
    normal = 20 + 2 * rng.standard_normal((2000, n))
    skewed = 20 * np.exp(0.3 * rng.standard_normal((2000, n)) - 0.3**2 / 2)
    for values, least in ((normal, 0.94), (skewed, 0.92)):
        found = [mean_interval([float(v) for v in points]) for points in values]
        hits = np.mean([x is not None and x.low <= 20 <= x.high for x in found])
        assert least <= hits <= 0.96


def test_sign_flips_by_hand() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0]) == 0.25  # only all signs alike are as far: 2 of 8
    assert sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    # Sums of ±1 ±2 ±4 that are 5 or more away from 0: ±7, ±5.
    assert sign_flip_p([-1.0, 2.0, 4.0]) == 0.5
    assert sign_flip_p([0.1, 0.1, 0.1]) == 0.25  # rounding makes no difference
    assert sign_flip_p([0.0, 0.0]) == 1.0 and sign_flip_p([]) == 1.0


def test_sign_flips_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    d = np.random.default_rng(0).normal(0.5, 1.0, size=9)
    theirs = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(list(d)) == pytest.approx(theirs)


def test_many_pairs_are_sampled_and_still_find_what_is_there() -> None:
    d = np.random.default_rng(0).normal(1.0, 1.0, size=30)
    assert sign_flip_p(list(d)) < 0.001
    assert sign_flip_p(list(d - d.mean())) > 0.9


@pytest.mark.parametrize("n", [1, 3, 7, 16, 17, 40])
def test_all_pairs_of_rows_are_tested_as_each_pair_is(n: int) -> None:
    rows = np.random.default_rng(n).normal(1e3, 1.0, size=(5, n)) + np.arange(5)[:, None] / 4
    rows[3] = rows[2] + 0.1  # the same difference everywhere, up to rounding
    assert all_pairs_p(rows) == [sign_flip_p(a - b) for a, b in itertools.combinations(rows, 2)]


def test_the_test_is_wrong_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(3)
    p = np.array([sign_flip_p(list(d)) for d in rng.standard_normal((600, 7))])
    assert np.mean(p <= ALPHA) <= 0.08 and np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1, and never below one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_too_few_pairs_can_never_reject() -> None:
    for n in range(1, 10):
        assert smallest_p(n) == pytest.approx(sign_flip_p([1.0] * n))
    assert pairs_needed(1) == 6 and pairs_needed(9) == 9
    assert smallest_p(5) > ALPHA >= smallest_p(6)
    assert max(holm([smallest_p(9)] * 9)) <= ALPHA < min(holm([smallest_p(8)] * 9))


def test_rank_correlations_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 0 1 2 3 against 1 0 2 3: rho = 1 - 6 * (1 + 1) / (4 * 15); 5 of 6 pairs agree.
    assert spearman([1, 2, 3, 400], [2, 1, 3, 4]) == pytest.approx(0.8)
    assert kendall([1, 2, 3, 400], [2, 1, 3, 4]) == pytest.approx((5 - 1) / 6)
    assert spearman([1, 1], [1, 2]) is None
    assert kendall([1, 1], [1, 2]) is None
    assert spearman([1], [1]) is None and kendall([], []) is None


def test_permutations_by_hand() -> None:
    assert groups_p([1.0, 2.0], [8.0, 9.0])[0] == pytest.approx(2 / 6)  # of 6 deals
    assert groups_p([1.0, 2.0], [7.0, 8.0, 9.0])[0] == pytest.approx(1 / 10)
    p, test = groups_p(list(range(12)), list(range(100, 112)))
    assert p < 0.001 and test == "permutation test over rows, 20000 deals"
    assert spearman_p([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(2 / 24)  # of 24 orders
    assert (
        spearman_p(range(9), range(9)) < 0.001 < spearman_p(range(9), [4, 8, 0, 6, 3, 7, 1, 5, 2])
    )


def test_the_sign_test_by_hand() -> None:
    assert sign_test_p(6, 0) == sign_test_p(0, 6) == pytest.approx(2 / 64)
    assert sign_test_p(3, 3) == sign_test_p(0, 0) == 1.0
