"""Precision, recall, density and coverage: by their definitions, on toys, and beside an oracle."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.metrics import neighbours
from bench.metrics.neighbours import Neighbourhood, features_to_neighbourhood

Array = NDArray[np.float64]


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def by_definition(real: Array, fake: Array) -> Neighbourhood:
    """With the whole matrix, sample by sample."""

    def distances(a: Array, b: Array) -> Array:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radius(a: Array, k: int) -> Array:
        return np.sort(distances(a, a), axis=1)[:, k]  # at 0 stands the sample itself

    between = distances(real, fake)
    return Neighbourhood(
        precision=float((between <= radius(real, 3)[:, None]).any(axis=0).mean()),
        recall=float((between <= radius(fake, 3)).any(axis=1).mean()),
        density=float((between < radius(real, 5)[:, None]).sum(axis=0).mean() / 5),
        coverage=float((between.min(axis=1) < radius(real, 5)).mean()),
    )


def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(90, 4, 0), normal(70, 4, 1, shift=0.7)
    wanted = by_definition(real, fake)
    assert astuple(features_to_neighbourhood(real, fake)) == pytest.approx(astuple(wanted))
    monkeypatch.setattr(neighbours, "_ROWS", 13)  # blocks that do not divide the counts
    assert astuple(features_to_neighbourhood(real, fake)) == pytest.approx(astuple(wanted))
    assert 0.2 < wanted.recall < wanted.precision < 1


def test_agrees_with_torch_fidelity() -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = normal(400, 16, 0), normal(400, 16, 1, shift=0.3)
    got = features_to_neighbourhood(real, fake)
    theirs = prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)
    assert got.precision == pytest.approx(theirs["precision"], abs=1e-6)  # theirs is float32
    assert got.recall == pytest.approx(theirs["recall"], abs=1e-6)
    assert got.precision != pytest.approx(got.recall, abs=0.01)


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    """The two sides are not alike: with arguments swapped this fails."""
    real = normal(500, 8, 0)
    collapsed = real[:1] + normal(500, 8, 1) * 1e-3
    got = features_to_neighbourhood(real, collapsed)
    assert got.precision == 1.0
    assert got.recall < 0.01
    assert got.coverage < 0.05
    swapped = features_to_neighbourhood(collapsed, real)
    assert swapped.precision < 0.01
    assert swapped.recall == 1.0


def test_a_generator_of_one_image() -> None:
    real = normal(100, 8, 0)
    got = features_to_neighbourhood(real, np.repeat(real[:1], 100, axis=0))
    assert (got.precision, got.recall) == (1.0, 0.01)  # the one real image that it repeats
    nowhere = features_to_neighbourhood(real, np.full((100, 8), 50.0))
    assert astuple(nowhere) == (0.0, 0.0, 0.0, 0.0)


def test_a_generator_that_invents_is_imprecise_and_recalls_all() -> None:
    real = normal(500, 2, 0) * 0.2
    broad = normal(500, 2, 1) * 3
    got = features_to_neighbourhood(real, broad)
    assert got.precision < 0.3
    assert got.recall > 0.9


def test_equal_distributions() -> None:
    got = features_to_neighbourhood(normal(1500, 4, 0), normal(1500, 4, 1))
    assert got.density == pytest.approx(1.0, abs=0.05)
    assert got.coverage > 0.95
    # The balls of k neighbours hold a sample of the other side with 1 - 2^-k, about.
    assert got.precision == pytest.approx(got.recall, abs=0.05)


def test_an_outlier_fools_precision_and_not_density() -> None:
    """Naeem et al., Figure 2: one far real sample's ball takes in whatever lies between."""
    real = np.concatenate([normal(300, 2, 0), [[40.0, 0.0]]])
    between = normal(300, 2, 1) * 0.5 + [20.0, 0.0]
    got = features_to_neighbourhood(real, between)
    assert got.precision > 0.95
    assert got.density < 0.25


def test_a_common_offset_changes_nothing() -> None:
    real, fake = normal(300, 8, 0), normal(300, 8, 1, shift=0.4)
    got = features_to_neighbourhood(real, fake)
    assert features_to_neighbourhood(real + 1e5, fake + 1e5) == got


def test_no_matrix_of_all_pairs_is_held() -> None:
    real, fake = normal(4000, 2, 0), normal(4000, 2, 1)
    tracemalloc.start()
    features_to_neighbourhood(real, fake)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * 8 * 4000**2


@pytest.mark.parametrize(
    ("real", "fake", "reason"),
    [
        (normal(5, 2, 0), normal(50, 2, 1), "more than 5 samples"),
        (normal(50, 2, 0), normal(50, 3, 1), "cannot be compared"),
        (normal(50, 2, 0), np.full((50, 2), np.nan), "not finite"),
    ],
    ids=["few", "dimensions", "nan"],
)
def test_bad_features_are_refused(real: Array, fake: Array, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        features_to_neighbourhood(real, fake)
