"""Images to a target: by hand, by SciPy, and by simulations in which the truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from bench.analysis.survival import (
    Array,
    Curve,
    Noise,
    crossing,
    first_below,
    lowest,
    median,
    monotone,
    noise,
    own_best,
    scaled,
)


def curve(values: list[float]) -> Curve:
    return [(1000 * (i + 1), 10.0 * (i + 1), value) for i, value in enumerate(values)]


def test_the_papers_definition_is_the_first_snapshot_below() -> None:
    found = first_below(curve([9.0, 5.0, 4.9, 7.0]), 5.0)
    assert (found.images, found.seconds, found.reached) == (3000, 30.0, True)
    found = first_below(curve([9.0, 6.0]), 5.0)
    assert (found.images, found.reached) == (2000, False)
    assert first_below(curve([0.1, 0.6]), 0.5, lower_is_better=False).images == 2000


def test_the_monotone_fit_pools_what_rises() -> None:
    assert list(monotone(np.array([5.0, 3.0, 4.0, 1.0]))) == [5.0, 3.5, 3.5, 1.0]
    assert list(monotone(np.array([1.0, 2.0, 6.0]))) == [3.0, 3.0, 3.0]
    assert list(monotone(np.array([3.0, 2.0, 1.0]))) == [3.0, 2.0, 1.0]


def test_noise_is_told_from_the_curve_itself() -> None:
    rng = np.random.default_rng(0)
    images = [1000 * (i + 1) for i in range(200)]
    truth = 5 * (1 + 3 * np.exp(-np.arange(200) / 15))
    noisy = truth * (1 + 0.03 * rng.standard_normal(200))
    found = noise([(images, scaled(list(noisy)))])
    assert found is not None and found.sigma == pytest.approx(0.03, rel=0.15)
    smooth = noise([(images, scaled(list(truth)))])
    assert smooth is not None and smooth.sigma < 0.001
    assert noise([(images[:9], scaled(list(noisy[:9])))]) is None  # seven residuals
    assert noise([(images[:6], scaled(list(noisy[:6])))] * 2) is not None  # eight of two runs


def test_a_single_lucky_snapshot_is_not_reaching() -> None:
    values = [9.0, 5.2, 5.1, 5.2, 4.9, 5.2, 5.1, 5.2]
    y, known = scaled(values), Noise(0.02, 50)
    found = crossing(curve(values), y, math.log(5.0), known)
    assert (found.reached, found.undecided, found.images) == (False, False, 8000)
    found = crossing(curve(values), y, math.log(5.15), known)
    assert (found.reached, found.undecided) == (False, True)
    found = crossing(curve(values), y, math.log(6.0), known)
    assert (found.reached, found.images, found.seconds) == (True, 2000, 20.0)


def test_a_run_that_got_there_and_went_wrong_has_reached_it() -> None:
    values = [9.0, 6.0, 3.0, 3.1, 2.9, 3.0, 8.0, 9.0, 9.5]
    found = crossing(curve(values), scaled(values), math.log(4.0), Noise(0.02, 50))
    assert (found.reached, found.images) == (True, 3000)
    assert lowest(scaled(values), Noise(0.02, 50)).end == 5


def test_within_a_share_of_its_own_best() -> None:
    values = [9.0, 6.0, 4.1, 4.0, 4.05, 3.9, 4.0]  # one evaluation luckier than the plateau
    found = own_best(curve(values), scaled(values), math.log(1.05), Noise(0.02, 50))
    assert (found.reached, found.images) == (True, 3000)
    assert own_best(curve(values), scaled(values), math.log(2), Noise(0.02, 50)).images == 2000


TIMES = [3.0, 5.0, 5.0, 6.0, 8.0, 9.0, 9.0, 11.0]
REACHED = [True, True, False, True, True, False, True, True]


def test_kaplan_meier_by_hand() -> None:
    # Shares that are not there yet: 3/4 after 1, times 2/3 after 2, nobody after 4.
    assert median([1, 2, 2, 4], [True, True, False, True]).value == 2
    assert median([1, 2, 2, 4], [True, False, False, True]).value == 4


def test_the_median_is_unbounded_where_too_few_reached() -> None:
    found = median(TIMES, REACHED)
    assert found.low <= found.value <= found.high and found.value == 8.0
    assert median([4.0, 4.0, 2.0], [False, False, True]).value == math.inf
    assert median([4.0], [True]).value == 4.0


# Simulations: 2 % evaluation noise on curves that fall to a plateau; the target is 1.

NOISE = 0.02


def simulated(plateau: float, runs: int, evals: int, seed: int) -> Iterator[tuple[Curve, Array]]:
    rng = np.random.default_rng(seed)
    truth = plateau * (1 + 3 * np.exp(-np.arange(1, evals + 1) / (evals / 12)))
    for _ in range(runs):
        values = list(truth * (1 + NOISE * rng.standard_normal(evals)))
        yield curve(values), scaled(values)


def rates(plateau: float, runs: int = 200, evals: int = 200) -> tuple[float, float]:
    """Shares of runs that reach the target: by the paper's definition, and for sure."""
    first = sure = 0
    for found, y in simulated(plateau, runs, evals, seed=0):
        known = noise([([p[0] for p in found], y)])  # from this one run, as the report has it
        assert known is not None
        first += first_below(found, 1.0).reached
        sure += crossing(found, y, 0.0, known).reached
    return first / runs, sure / runs


def test_a_plateau_above_the_target_never_reaches_it() -> None:
    first, sure = rates(plateau=1.02)
    assert first > 0.99  # each of 200 looks is another chance
    assert sure < 0.01


def test_a_plateau_at_the_target_is_not_said_to_reach_it() -> None:
    first, sure = rates(plateau=1.0)
    assert first == 1.0 and sure < 0.01


def test_a_plateau_below_the_target_reaches_it() -> None:
    assert min(rates(plateau=0.95)) > 0.9


def test_few_looks_are_wrong_no_more_often() -> None:
    first, sure = rates(plateau=1.02, runs=400, evals=13)
    assert first > 0.5 and sure < 0.01
    assert rates(plateau=0.85, evals=13)[1] > 0.9


def test_bias_and_coverage_over_seeds() -> None:
    """Ten seeds that learn at different speeds: is the true median in the interval?"""
    rng = np.random.default_rng(4)
    evals, groups, plateau = 200, 30, 0.95
    images = np.arange(1, evals + 1)

    def true_crossing(tau: float) -> float:
        return -tau * math.log((1 / plateau - 1) / 3)

    off: dict[str, list[float]] = {"paper": [], "sound": []}
    covered = dict.fromkeys(off, 0)
    for _ in range(groups):
        taus = evals / 8 * np.exp(0.05 * rng.standard_normal(10))
        reached: dict[str, list[float]] = {"paper": [], "sound": []}
        for tau in taus:
            truth = plateau * (1 + 3 * np.exp(-images / tau))
            values = list(truth * (1 + NOISE * rng.standard_normal(evals)))
            found, y = curve(values), scaled(values)
            known = noise([([p[0] for p in found], y)])
            assert known is not None
            by = {"paper": first_below(found, 1.0), "sound": crossing(found, y, 0.0, known)}
            for name, reach in by.items():
                assert reach.reached
                reached[name].append(reach.images / 1000)
                off[name].append(reach.images / 1000 / math.ceil(true_crossing(tau)) - 1)
        for name, times in reached.items():
            interval = median(times, [True] * 10)
            # A crossing at a snapshot lies in the step before it.
            covered[name] += interval.low - 1 <= true_crossing(evals / 8) <= interval.high
    assert np.mean(off["paper"]) < -0.07  # too early by 8.6 %
    assert np.mean(off["sound"]) == pytest.approx(0, abs=0.01)
    assert covered["paper"] / groups < 0.2
    assert covered["sound"] / groups > 0.85  # 0.95, from 30 groups
