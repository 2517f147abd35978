"""Random numbers from coordinates."""

from __future__ import annotations

import torch

from projgan.rng import Coordinates, Stream


def at(*indices: int, seed: int = 0, stream: int = Stream.LATENT_D) -> Coordinates:
    return Coordinates(seed, stream, torch.tensor(indices))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    together = at(*range(10)).normal(7)
    for i in range(10):
        assert torch.allclose(at(i).normal(7)[0], together[i], atol=1e-6)
        assert torch.equal(at(i).bits(7)[0], at(*range(10)).bits(7)[i])


def test_seed_stream_index_and_part_each_matter() -> None:
    base = at(3).bits(4)
    assert not torch.equal(base, at(4).bits(4))
    assert not torch.equal(base, at(3, seed=1).bits(4))
    assert not torch.equal(base, at(3, stream=Stream.FLIP).bits(4))
    assert not torch.equal(base, at(3).bits(4, part=1))


def test_known_values() -> None:
    """The sequence is part of a run's identity: changing it must raise RECIPE_VERSION."""
    assert at(0, 1).bits(2).tolist() == GOLDEN


GOLDEN = [
    [2469015216297941276, 8111572896756022962],
    [-1039657597017818155, -6208404998141442402],
]


def test_uniform_and_normal_have_their_moments() -> None:
    where = at(*range(2000))
    uniform, normal = where.uniform(50), where.normal(51)
    assert uniform.min() >= 0 and uniform.max() < 1
    # 100,000 draws: five standard errors.
    assert abs(uniform.mean() - 0.5) < 5 * 0.2887 / 100_000**0.5
    assert abs(normal.mean()) < 5 / 102_000**0.5
    assert abs(normal.var() - 1) < 5 * (2 / 102_000) ** 0.5
    assert abs((normal**4).mean() - 3) < 5 * (96 / 102_000) ** 0.5


def test_neighbours_are_uncorrelated() -> None:
    draws = at(*range(4000)).uniform(8) - 0.5
    across = torch.corrcoef(draws.T) - torch.eye(8)
    along = (draws[1:] * draws[:-1]).mean() * 12
    assert across.abs().max() < 5 / 4000**0.5
    assert abs(along) < 5 / 32_000**0.5
