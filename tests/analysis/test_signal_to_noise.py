"""Signal to noise and smallest effects, against simulations in which the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bench.analysis.signal_to_noise import POWER, components, signal, smallest_effect
from bench.analysis.stats import ALPHA, sign_flip_p_values


def simulated(
    between: float, within: float, seeds: list[int], rng: np.random.Generator
) -> list[list[float]]:
    """Distances with these standard deviations of their logarithms, so many seeds in each row."""
    rows = 2 + between * rng.standard_normal(len(seeds))
    return [
        list(np.exp(m + within * rng.standard_normal(n))) for m, n in zip(rows, seeds, strict=True)
    ]


def test_components_by_hand() -> None:
    # Logarithms 0 2, 4 6: each row has variance 2; the means 1, 5 have 8, of which 2 / 2 is noise.
    found = components([[1.0, math.exp(2)], [math.exp(4), math.exp(6)]])
    assert found is not None
    assert (found.within, found.between) == pytest.approx((2.0, 7.0))
    assert found.ratio == pytest.approx(math.sqrt(3.5))
    # With one value more, 5, in the second row: squares 2 + 2 over three degrees of freedom; the
    # rows' means 1 and 5 about 3.4; (5 - 13 / 5) seeds in a row.
    found = components([[1.0, math.exp(2)], [math.exp(4), math.exp(6), math.exp(5)]])
    assert found is not None
    squares = 2 * 2.4**2 + 3 * 1.6**2
    assert (found.within, found.between) == pytest.approx((4 / 3, (squares - 4 / 3) / 2.4))


def test_pure_noise_is_no_signal() -> None:
    rng = np.random.default_rng(0)
    found = [components(simulated(0, 0.2, [6] * 19, rng)) for _ in range(300)]
    ratios = [one.ratio for one in found if one]
    assert len(ratios) == 300 and np.median(ratios) < 0.15 and np.quantile(ratios, 0.95) < 0.4
    # The plain ratio of deviations would be 1 / sqrt(6).
    assert np.mean([one.between / one.within for one in found if one]) < 0.05


@pytest.mark.parametrize("seeds", [[6] * 40, [3, 9] * 20, [2] * 39 + [30]])
def test_known_components_are_recovered(seeds: list[int]) -> None:
    rng = np.random.default_rng(1)
    found = [components(simulated(0.6, 0.2, seeds, rng)) for _ in range(200)]
    between = float(np.mean([one.between for one in found if one]))
    within = float(np.mean([one.within for one in found if one]))
    assert (between, within) == pytest.approx((0.36, 0.04), rel=0.05)
    one = found[0]
    assert one is not None and one.variation == pytest.approx(0.2, rel=0.15)


def test_one_bad_row_is_not_the_signal() -> None:
    rng = np.random.default_rng(2)
    rows = simulated(0, 0.1, [4] * 6, rng)
    values = {f"row {i}": row for i, row in enumerate(rows)} | {"failed": [90.0, 80.0, 99.0]}
    found = signal(values)
    assert found is not None and found.worst == "failed" and found.others is not None
    assert found.rows.ratio > 5 > 1 > found.others.ratio
    turned = signal({row: [1 / v for v in points] for row, points in values.items()}, False)
    assert turned is not None and turned.worst == "failed"


def test_what_has_no_spread_has_no_signal() -> None:
    assert components([[1.0, 2.0]]) is None  # one row
    assert components([[1.0], [2.0]]) is None  # one seed
    assert components([[1.0, 0.0], [2.0, 3.0]]) is None  # no logarithm
    assert signal({"A": [1.0, 2.0], "B": []}) is None
    same = components([[1.0, 1.0], [2.0, 2.0]])
    assert same is not None and same.ratio == math.inf and same.variation == 0


def test_six_pairs_reject_only_if_all_have_one_sign() -> None:
    """So the smallest shift is exact: the chance of six positive differences is 80 %."""
    shift = stats.norm.ppf(POWER ** (1 / 6))
    assert math.log(smallest_effect(6, 0.1)) == pytest.approx(0.1 * shift, rel=0.02)
    assert smallest_effect(5, 0.1) == math.inf


@pytest.mark.parametrize("pairs", [7, 9, 12, 14])
def test_the_smallest_effect_is_found_as_often_as_it_says(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    shift = math.log(smallest_effect(pairs, 0.2))
    d = shift + 0.2 * rng.standard_normal((1000, pairs))
    found = np.concatenate([sign_flip_p_values(part) for part in np.split(d, 20)])
    assert np.mean(found <= ALPHA) == pytest.approx(POWER, abs=0.04)
