"""Images to a target: the paper's definition, and one that noise cannot fool.

The paper counts the images at the first evaluated snapshot whose value is below the target. With
noisy evaluations that is too early, and a run that never gets there "reaches" it if it is looked at
often enough. Here a run has reached the target only where the mean over some stretch of the curve
is below it by more than the noise allows; runs that have not are censored, not dropped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from bench.analysis.stats import ALPHA as INTERVAL_ALPHA

Curve = Sequence[tuple[int, float, float]]  # images, seconds of training, value; ascending
Array = NDArray[np.float64]

ALPHA = 0.01  # chance that a run which stays above the target is said to have reached it
FEW = 8  # residuals below which the noise of a curve is not known


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one evaluation about its curve, on the scale of `scaled`."""

    sigma: float
    degrees: float  # of freedom: how well sigma is known


@dataclass(frozen=True)
class Reach:
    """Moment at which a run reached a target, or how long it was seen not to."""

    images: int  # at the crossing; at the last evaluation where there is none
    seconds: float
    reached: bool
    undecided: bool = False  # the fit comes down to the target, but by less than the noise


@dataclass(frozen=True)
class Median:
    """Of the times of several runs, some of them censored."""

    value: float  # inf = more than half of the runs are censored
    low: float
    high: float  # inf = not bounded by what was seen


def scaled(values: Sequence[float], lower: bool = True, logs: bool = True) -> Array:
    """Return values so that lower is better and the noise is even.

    Args:
        values: of one metric.
        lower: is better; False turns them round.
        logs: take logarithms, as the noise of a distance is a share of it; 0 and less is -inf.
    """
    y = np.asarray(values, dtype=np.float64)
    if logs:
        y = np.log(y, out=np.full_like(y, -np.inf), where=y > 0)
    return y if lower else -y


def first_below(curve: Curve, target: float, lower_is_better: bool = True) -> Reach:
    """Return the first evaluated snapshot whose value is below the target, the paper's rule."""
    for images, seconds, value in curve:
        if value < target if lower_is_better else value > target:
            return Reach(images, seconds, True)
    return Reach(curve[-1][0], curve[-1][1], False)


def noise(curves: Sequence[tuple[Sequence[int], Array]]) -> Noise | None:
    """Return the noise of evaluations about smooth curves, pooled over runs.

    Each value is held against the line through its two neighbours (Gasser, Sroka and
    Jennen-Steinmetz, Biometrika 1986), over the logarithm of images, where curves bend least. The
    median keeps the steep start, where they do bend, from passing for noise.

    Args:
        curves: images and scaled values of each run.

    Returns:
        None where there are fewer than `FEW` values with two neighbours.
    """
    residuals: list[Array] = []
    for images, y in curves:
        if len(y) > 2:
            x = np.log(np.asarray(images, dtype=np.float64))
            w = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
            off = y[1:-1] - w * y[:-2] - (1 - w) * y[2:]
            residuals.append(off / np.sqrt(1 + w**2 + (1 - w) ** 2))
    every = np.concatenate(residuals) if residuals else np.empty(0)
    if len(every) < FEW:
        return None
    # A median of absolute values, each of which shares two points with the next, knows less of
    # sigma than as many squares would. Half as many: so the rates hold in the tests' simulations.
    return Noise(float(np.median(np.abs(every))) / 0.6745, len(every) / 2)


def monotone(y: Array) -> Array:
    """Return the non-increasing sequence nearest to `y` by squares."""
    fit: Array = optimize.isotonic_regression(y, increasing=False).x
    return fit


@dataclass(frozen=True)
class Lowest:
    """The stretch of a curve that is surest to be low."""

    start: int
    end: int  # inclusive
    mean: float
    upper: float  # the curve is below this somewhere in the stretch, but for a chance of ALPHA


def lowest(y: Array, known: Noise) -> Lowest:
    """Return the stretch whose mean has the lowest upper bound, over all stretches at once.

    If the mean over a stretch is below the target, the curve is below it somewhere in there,
    whatever its shape. Bonferroni's correction over the n (n+1) / 2 stretches makes the bounds
    hold together.
    """
    n = len(y)
    quantile = float(special.stdtrit(known.degrees, 1 - ALPHA / (n * (n + 1) / 2)))
    sums = np.concatenate([[0.0], np.cumsum(y)])
    start, end = np.triu_indices(n)
    size = end - start + 1
    means = (sums[end + 1] - sums[start]) / size
    upper = means + quantile * known.sigma / np.sqrt(size)
    best = int(np.argmin(upper))
    return Lowest(int(start[best]), int(end[best]), float(means[best]), float(upper[best]))


def crossing(curve: Curve, y: Array, target: float, known: Noise) -> Reach:
    """Return whether a run surely reached the target, and then when.

    It has, if some stretch of the curve is below the target by more than the noise. When: at the
    first evaluated snapshot where the monotone fit, up to that stretch, is at the target.

    Args:
        curve: what was evaluated.
        y: its values as `scaled` gives them.
        target: on the same scale.
        known: noise of an evaluation, on the same scale.
    """
    found = lowest(y, known)
    if found.upper >= target:
        last = curve[-1]
        return Reach(last[0], last[1], False, bool(monotone(y)[-1] <= target))
    fit = monotone(y[: found.end + 1])
    at = int(np.argmax(fit <= target))
    return Reach(curve[at][0], curve[at][1], True)


def own_best(curve: Curve, y: Array, share: float, known: Noise) -> Reach:
    """Return when a run came within `share` of its own best, which every run does.

    Its best is the mean of its lowest stretch, not its lowest value, which noise decides.

    Args:
        curve: what was evaluated.
        y: its values as `scaled` gives them.
        share: distance from the best on that scale: log(1.05) for 5 % of positive values.
        known: noise of an evaluation, on the same scale.
    """
    found = lowest(y, known)
    fit = monotone(y[: found.end + 1])
    at = int(np.argmax(fit <= found.mean + share + 1e-12))
    return Reach(curve[at][0], curve[at][1], True)


def median(times: Sequence[float], reached: Sequence[bool]) -> Median:
    """Return the Kaplan-Meier median time to the target over runs, with its 95 % interval.

    The interval is Brookmeyer and Crowley's (Biometrics 1982), from Greenwood's on the log-log
    scale.

    Args:
        times: of reaching it, or of the last look.
        reached: False = censored.
    """
    t, done = np.asarray(times, dtype=np.float64), np.asarray(reached, dtype=bool)
    share = stats.ecdf(stats.CensoredData(uncensored=t[done], right=t[~done])).sf
    with warnings.catch_warnings():  # undefined where all or no runs are there: the share is meant
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = share.confidence_interval(1 - INTERVAL_ALPHA, method="log-log")

    def first(of: Array) -> float:
        half = np.where(np.isnan(of), share.probabilities, of) <= 0.5 + 1e-9
        return float(share.quantiles[half][0]) if half.any() else math.inf

    return Median(*(first(of.probabilities) for of in (share, bounds.low, bounds.high)))
