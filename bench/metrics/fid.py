"""Fréchet distances of features as metrics: FID, FD-DINOv2 and their kin, and their limit.

Numbers that are published are computed by a second route too, and get an interval.
"""

from __future__ import annotations

from dataclasses import replace

from bench.metrics.frechet import GAP_TOLERANCE, certify_frechet
from bench.metrics.sampling import FrechetInterval, frechet_infinity, frechet_interval
from bench.metrics.statistics import SEED, Estimate, Features, Parts, statistics_to_frechet


def frechet(real: Features, fake: Features, certified: bool) -> Parts:
    """The distance of the moments; certified, with its gap and, of enough images, an interval."""
    value = statistics_to_frechet(real.statistics, fake.statistics)
    if not certified:
        return {"": Estimate(value)}
    gap, interval = _gap(real, fake, value), _interval(real, fake)
    reach = (value - interval.reach, value + interval.reach) if interval else None
    return {"": Estimate(value, reach, gap)}


def frechet_by_n(real: Features, fake: Features, certified: bool) -> Parts:
    """The same with covariances divided by n, as NVIDIA's StyleGAN family has it."""
    x, y = (replace(side, statistics=side.statistics.by_n()) for side in (real, fake))
    return frechet(x, y, certified)


def frechet_inf(real: Features, fake: Features, certified: bool) -> Parts:
    """The distance at endless generated images."""
    value = frechet_infinity(real.statistics, fake.kept, seed=SEED)
    if not certified:
        return {"": Estimate(value)}
    gap = _gap(real, fake, statistics_to_frechet(real.statistics, fake.statistics))
    interval = _interval(real, fake)
    return {"": Estimate(value, interval.at_infinity if interval else None, gap)}


def _gap(real: Features, fake: Features, distance: float) -> float:
    """Relative difference to a second route; ValueError where the two do not agree."""
    a, b = real.statistics, fake.statistics
    gap = certify_frechet(distance, a.mean, a.cov, b.mean, b.cov)
    if not gap <= GAP_TOLERANCE:  # nor where it is no number
        raise ValueError(
            f"not published: a second route to the distance differs by {gap:.1e} of it, "
            f"more than {GAP_TOLERANCE:.0e}"
        )
    return gap


def _interval(real: Features, fake: Features) -> FrechetInterval | None:
    """None = too few images, see `sampling.enough`."""
    try:
        return frechet_interval(real.statistics, fake.kept, seed=SEED)
    except ValueError:
        return None
