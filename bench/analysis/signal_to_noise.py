"""Signal to noise of a grid, and the smallest effect that a paired test of its rows would find.

A distance has noise that is a share of it, so everything here is about logarithms of values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

from bench.analysis.stats import ALPHA, pairs_needed, sign_flip_p_values

FEWEST_SEEDS = 3  # of which a spread within rows is worth a line in the report
POWER = 0.8  # chance that a test finds an effect of the smallest detectable size
SIMULATED_UP_TO = 10  # pairs; beyond, the sign-flip test has the power of Student's paired test
SIMULATIONS = 4000


@dataclass(frozen=True)
class Components:
    """Variances of the logarithm of a metric: between rows, and between seeds within a row."""

    between: float
    within: float

    @property
    def ratio(self) -> float:
        """Signal to noise; infinite where runs of a row do not differ."""
        if self.within == 0:
            return math.inf if self.between else 0.0
        return math.sqrt(self.between / self.within)

    @property
    def variation(self) -> float:
        """Coefficient of variation within a row, of a logarithmic normal value."""
        return math.sqrt(math.expm1(self.within))


@dataclass(frozen=True)
class Signal:
    """Signal to noise of one metric over the rows of a grid."""

    rows: Components
    worst: str  # the row with the worst mean
    others: Components | None  # without it; None = too few rows are left


def components(values: Sequence[Sequence[float]]) -> Components | None:
    """Estimate variance components by one-way analysis of variance, with unequal numbers of seeds.

    Searle, Casella and McCulloch, Variance Components (1992), section 3.6. The component between
    rows is 0 at least, where pure noise brings it.

    Args:
        values: by row, one positive value per seed.

    Returns:
        None for fewer than two rows, no row with two values, or a value of 0 and less.
    """
    n = np.array([len(row) for row in values])
    if len(n) < 2 or n.sum() <= len(n) or min(map(min, values)) <= 0:
        return None
    logs = [np.log(row) for row in values]
    means = np.array([row.mean() for row in logs])
    within = sum(float(((row - row.mean()) ** 2).sum()) for row in logs) / (n.sum() - len(n))
    grand = np.average(means, weights=n)
    seeds = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 1)  # a mean number of seeds in a row
    between = float((n * (means - grand) ** 2).sum()) / (len(n) - 1)
    return Components(max(0.0, float((between - within) / seeds)), float(within))


def signal(values: Mapping[str, Sequence[float]], lower_is_better: bool = True) -> Signal | None:
    """Return signal to noise over rows, with and without the worst.

    Args:
        values: row -> one value per seed; rows without a value are left out.
        lower_is_better: which end is the worst.

    Returns:
        None where `components` has none.
    """
    measured = {row: points for row, points in values.items() if points}
    every = components(list(measured.values()))
    if every is None:
        return None
    sign = 1 if lower_is_better else -1
    worst = max(measured, key=lambda row: sign * float(np.mean(np.log(measured[row]))))
    rest = [points for row, points in measured.items() if row != worst]
    return Signal(every, worst, components(rest))


def smallest_effect(pairs: int, deviation: float) -> float:
    """Return the ratio of means that the paired sign-flip test finds at 5 % with 80 % power.

    Args:
        pairs: seeds, or whatever is paired.
        deviation: standard deviation of the difference of logarithms within a pair.

    Returns:
        Above 1: the worse mean over the better. Infinite = so few pairs can never reject.
    """
    return math.exp(deviation * _detectable(pairs)) if pairs >= pairs_needed() else math.inf


@cache
def _detectable(pairs: int) -> float:
    """The smallest mean of differences that is found, in their standard deviations."""
    if pairs <= SIMULATED_UP_TO:
        noise = np.random.default_rng(0).standard_normal((SIMULATIONS, pairs))

        def power(shift: float) -> float:
            return float(np.mean(sign_flip_p_values(noise + shift) <= ALPHA))
    else:
        reject = stats.t.ppf(1 - ALPHA / 2, pairs - 1)

        def power(shift: float) -> float:
            return float(stats.nct.sf(reject, pairs - 1, shift * math.sqrt(pairs)))

    return float(optimize.brentq(lambda shift: power(shift) - POWER, 0, 10, xtol=1e-3))
