"""Adversarial losses over a set of discriminators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def combine(per_level: list[Tensor], reduce: str) -> Tensor:
    """Sums the levels' losses (Eq. 4 of the paper) or averages them (released code)."""
    stacked = torch.stack(per_level)
    return stacked.sum() if reduce == "sum" else stacked.mean()


def discriminator_hinge(real: list[Tensor], fake: list[Tensor], reduce: str) -> Tensor:
    """Hinge loss of the discriminators: mean of relu(1 - real) + relu(1 + fake) on each level.

    Args:
        real, fake: logits, one [N, 1, h, w] for each level.
        reduce: "sum" or "mean" over the levels.
    """
    return combine(
        [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)],
        reduce,
    )


def generator_hinge(fake: list[Tensor], reduce: str) -> Tensor:
    """Loss of the generator under the hinge objective: mean of -fake on each level."""
    return combine([-f.mean() for f in fake], reduce)
