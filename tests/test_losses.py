"""Hinge losses by hand."""

from __future__ import annotations

import torch

from projgan.losses import discriminator_hinge, generator_hinge


def test_hinge_by_hand() -> None:
    real = [torch.tensor([2.0, 0.0]), torch.tensor([0.5, 0.5])]  # relu(1-x): 0, 1 / .5, .5
    fake = [torch.tensor([-2.0, 1.0]), torch.tensor([0.0, 0.0])]  # relu(1+x): 0, 2 / 1, 1
    assert discriminator_hinge(real, fake, "sum").item() == 0.5 + 1 + 0.5 + 1
    assert discriminator_hinge(real, fake, "mean").item() == (0.5 + 1 + 0.5 + 1) / 2
    assert generator_hinge(fake, "sum").item() == 0.5
    assert generator_hinge(fake, "mean").item() == 0.25
