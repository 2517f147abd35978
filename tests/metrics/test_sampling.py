"""Interval and limit of the Fréchet distance: what they cover, by simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.metrics.sampling import enough, frechet_infinity, frechet_interval
from bench.metrics.statistics import Statistics, features_to_statistics, statistics_to_frechet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Real and generated images as two Gaussians of known distance."""

    shift: float  # of every mean, against the first standard deviation
    stretch: float  # of the generated images' deviations
    decay: float  # of the deviations: the higher, the more alike

    def scale(self, d: int) -> Array:
        return np.exp(-np.arange(d) / (self.decay * d))

    def real(self, n: int, d: int, rng: np.random.Generator) -> Array:
        return rng.normal(size=(n, d)) * self.scale(d)

    def fake(self, n: int, d: int, rng: np.random.Generator) -> Array:
        return self.real(n, d, rng) * self.stretch + self.shift

    def moments(self, d: int) -> Statistics:
        return Statistics(10**9, np.zeros(d), np.diag(self.scale(d) ** 2))

    def distance(self, d: int) -> float:
        return d * self.shift**2 + float(((self.stretch - 1) ** 2 * self.scale(d) ** 2).sum())


SHIFTED = World(shift=0.1, stretch=1.0, decay=1e9)  # 64 dimensions: 0.64
STRETCHED = World(shift=0.0, stretch=1.1, decay=1e9)
FALLING = World(shift=0.0, stretch=1.2, decay=0.25)
WORLDS = {"shifted": SHIFTED, "stretched": STRETCHED, "falling": FALLING}


def bootstrap(x: Array, y: Array, rng: np.random.Generator) -> tuple[float, float]:
    """The wrong one: percentiles of distances between resamples."""
    found = []
    for _ in range(40):
        a, b = (f[rng.integers(0, len(f), len(f))] for f in (x, y))
        found.append(statistics_to_frechet(features_to_statistics(a), features_to_statistics(b)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Shares:
    """Of how many samples an interval covered what it should."""

    infinity: float
    this_size: float
    width: float  # mean half width, over the standard deviation of the corrected distance


def coverage(world: World, n: int, d: int, fixed: bool, reps: int) -> Shares:
    found = []
    for seed in range(reps):
        rng = np.random.default_rng([seed, n, d])
        x, y = world.real(n, d, rng), world.fake(n, d, rng)
        found.append(frechet_interval(world.moments(d) if fixed else x, y, seed=seed))
    mean = np.mean([f.distance for f in found])
    spread = np.std([f.corrected for f in found])

    def share(intervals: list[tuple[float, float]], wanted: float) -> float:
        return float(np.mean([low <= wanted <= high for low, high in intervals]))

    return Shares(
        share([f.at_infinity for f in found], world.distance(d)),
        share([(f.distance - f.reach, f.distance + f.reach) for f in found], float(mean)),
        float(np.mean([f.reach for f in found]) / spread),
    )


def test_of_five_hundred_in_sixty_four_dimensions() -> None:
    # The distance is 0.64; the samples are about 5.1 apart, the bootstrap's answer is about 9.
    rng = np.random.default_rng(0)
    x, y = SHIFTED.real(500, 64, rng), SHIFTED.fake(500, 64, rng)
    got = frechet_interval(x, y, seed=0)
    assert 4.5 < got.distance < 5.6
    low, high = got.at_infinity
    assert low < 0.64 < high < 0.64 + 1.0
    assert got.reach > 0
    wrong_low, _ = bootstrap(x, y, rng)
    assert wrong_low > 2 * 0.64 > high - 1.0
    assert wrong_low > got.distance


@pytest.mark.parametrize("fixed", [False, True], ids=["two samples", "known reference"])
@pytest.mark.parametrize("name", WORLDS)
def test_covers_both_in_a_few_dozen_samples(name: str, fixed: bool) -> None:
    got = coverage(WORLDS[name], 400, 16, fixed, reps=40)
    assert got.infinity >= 0.85  # 95 % but for the luck of 40 samples
    assert got.this_size >= 0.85
    assert got.width < 2 * 2.1  # and not by being as wide as can be


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [False, True], ids=["two samples", "known reference"])
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(("n", "d"), [(500, 64), (2000, 64), (500, 16), (2000, 192)], ids=str)
def test_coverage(name: str, n: int, d: int, fixed: bool) -> None:
    got = coverage(WORLDS[name], n, d, fixed, reps=200)
    assert got.infinity >= 0.91
    assert got.this_size >= 0.91
    assert got.width < 2 * 2.1


def test_the_bootstrap_covers_nothing() -> None:
    covered = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        low, high = bootstrap(SHIFTED.real(400, 32, rng), SHIFTED.fake(400, 32, rng), rng)
        covered += low <= SHIFTED.distance(32) <= high
    assert covered == 0


def test_the_same_seed_gives_the_same_numbers_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    y = FALLING.fake(300, 8, rng)
    real = FALLING.moments(8)
    one = frechet_interval(real, y, seed=3)
    assert frechet_interval(real, y, seed=3) == one
    assert frechet_interval(real, y, seed=4).error != one.error
    assert frechet_infinity(real, y, seed=3) == frechet_infinity(real, y, seed=3)
    assert frechet_infinity(real, y, seed=3) != frechet_infinity(real, y, seed=4)
    # Samples sorted by class would make groups of unlike means; they are shuffled first.
    ordered = frechet_interval(real, y[np.argsort(y[:, 0])], seed=3)
    assert ordered.error < 2 * one.error


def test_without_a_group_is_as_computed_anew() -> None:
    from bench.metrics.sampling import _left_out

    y = np.random.default_rng(0).normal(size=(103, 5)) + 100.0
    groups = np.array_split(np.arange(103), 20)
    for group, got in zip(groups, _left_out(y), strict=True):
        wanted = features_to_statistics(np.delete(y, group, axis=0))
        assert got.n == wanted.n
        np.testing.assert_allclose(got.mean, wanted.mean, rtol=1e-12)
        np.testing.assert_allclose(got.cov, wanted.cov, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", WORLDS)
def test_the_limit_is_near_the_truth_where_the_distance_is_not(name: str) -> None:
    world, n, d = WORLDS[name], 600, 24
    real, wanted = world.moments(d), world.distance(d)
    limits, plain, corrected = [], [], []
    for seed in range(20):
        y = world.fake(n, d, np.random.default_rng(seed))
        limits.append(frechet_infinity(real, y, seed=seed))
        corrected.append(frechet_interval(real, y, seed=seed).corrected)
        plain.append(statistics_to_frechet(real, features_to_statistics(y)))
    bias = np.mean(plain) - wanted
    assert bias > 5 * np.std(plain) / np.sqrt(20)
    assert abs(np.mean(limits) - wanted) < 0.25 * bias
    assert abs(np.mean(corrected) - wanted) < 0.25 * bias


def test_distance_falls_with_the_number_of_images_and_the_limit_does_not() -> None:
    real = FALLING.moments(16)
    y = FALLING.fake(4000, 16, np.random.default_rng(1))
    few, many = (statistics_to_frechet(real, features_to_statistics(y[:n])) for n in (200, 4000))
    assert few - many > 0.5 * (few - FALLING.distance(16)) > 0
    limits = [frechet_infinity(real, y[:n], seed=0) for n in (1000, 4000)]
    assert abs(limits[0] - limits[1]) < 0.2 * FALLING.distance(16)


def test_too_few_samples_are_refused_with_the_number_it_takes() -> None:
    rng = np.random.default_rng(0)
    alike, falling = rng.normal(size=(256, 64)), FALLING.fake(256, 64, rng)
    real = FALLING.moments(64)
    for function in (frechet_interval, frechet_infinity):
        with pytest.raises(ValueError, match=r"256 samples .* it takes 4\d\d"):
            function(real, alike, seed=0)
        function(real, falling, seed=0)  # most of its dimensions hardly count
        with pytest.raises(ValueError, match=r"100 samples .* it takes 128"):
            function(real, falling[:100], seed=0)
        with pytest.raises(ValueError, match=r"20 samples .* it takes 40"):
            function(FALLING.moments(1), falling[:20, :1], seed=0)
    with pytest.raises(ValueError, match="of one size"):
        frechet_interval(falling[:200], falling, seed=0)
    assert enough(features_to_statistics(np.ones((50, 3)))) == 40


def test_nothing_moves_in_a_collapsed_generator() -> None:
    got = frechet_interval(FALLING.moments(4), np.ones((50, 4)), seed=0)
    assert got.error == pytest.approx(0.0, abs=1e-9)
    assert got.corrected == pytest.approx(got.distance)
