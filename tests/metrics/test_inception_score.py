"""The Inception Score: its bounds, its definition, and torch-fidelity's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.metrics.inception import logits_to_score


def test_the_bounds_are_one_and_the_number_of_classes() -> None:
    assert logits_to_score(np.ones((50, 10))) == pytest.approx(1.0)
    sure = 1000.0 * np.eye(10)[np.tile(np.arange(10), 10)]
    assert logits_to_score(sure) == pytest.approx(10.0)
    assert logits_to_score(np.repeat(sure[:1], 100, axis=0)) == pytest.approx(1.0)  # one class


@pytest.mark.parametrize("images", [500, 507])  # in ten parts alike, and in parts that differ
def test_agrees_with_torch_fidelity(images: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * np.random.default_rng(0).normal(size=(images, 40))
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    wanted = theirs["inception_score_mean"]
    assert logits_to_score(logits) == pytest.approx(wanted, rel=1e-12)
    assert logits_to_score(logits, parts=1) != pytest.approx(wanted, rel=1e-3)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 10 images, not 9"):
        logits_to_score(np.ones((9, 4)))
    with pytest.raises(ValueError, match="not finite"):
        logits_to_score(np.full((20, 4), np.nan))
