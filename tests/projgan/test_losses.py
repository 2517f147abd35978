"""Losses and regularisers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from projgan.losses import discriminator_loss, generator_loss, gradient_penalty, path_lengths


def test_hinge_by_hand() -> None:
    real = [torch.tensor([2.0, 0.0]), torch.tensor([0.5, 0.5])]  # relu(1-x): 0, 1 / .5, .5
    fake = [torch.tensor([-2.0, 1.0]), torch.tensor([0.0, 0.0])]  # relu(1+x): 0, 2 / 1, 1
    assert discriminator_loss(real, fake, "sum").item() == 0.5 + 1 + 0.5 + 1
    assert discriminator_loss(real, fake, "mean").item() == (0.5 + 1 + 0.5 + 1) / 2
    assert generator_loss(fake, "sum").item() == 0.5
    assert generator_loss(fake, "mean").item() == 0.25


def test_nonsaturating_is_the_cross_entropy_of_the_logits() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = entropy(real, torch.ones(2)) + entropy(fake, torch.zeros(2))
    found = discriminator_loss([real], [fake], "sum", "nonsaturating")
    assert found.item() == pytest.approx(expected.item())
    expected = entropy(fake, torch.ones(2))
    assert generator_loss([fake], "sum", "nonsaturating").item() == pytest.approx(expected.item())


def test_wasserstein_is_the_difference_of_the_means() -> None:
    real, fake = [torch.tensor([2.0, 0.0])], [torch.tensor([-1.0, 4.0])]
    assert discriminator_loss(real, fake, "sum", "wasserstein").item() == 1.5 - 1.0
    assert generator_loss(fake, "sum", "wasserstein").item() == -1.5


def test_r1_of_a_linear_discriminator_is_the_square_of_its_weights() -> None:
    weights = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = [(images * weights).sum(dim=(1, 2, 3)), 2 * (images * weights).sum(dim=(1, 2, 3))]
    expected = 9 * weights.square().sum()  # both logits are differentiated together
    torch.testing.assert_close(gradient_penalty([images], logits), expected)


def test_path_length_of_a_linear_generator() -> None:
    matrix = torch.randn(3 * 4 * 4, 6)
    w = torch.randn(2, 6, requires_grad=True)
    images = (w @ matrix.T).view(2, 3, 4, 4)
    noise = torch.randn(2, 3, 4, 4)
    expected = (noise.flatten(1) @ matrix / 4).square().sum(dim=1).sqrt()
    torch.testing.assert_close(path_lengths(images, w, noise), expected)
    # A style for each of three layers that all do the same: each carries a third of the way.
    layered = w.detach()[:, None].expand(-1, 3, -1).clone().requires_grad_()
    images = (layered.mean(dim=1) @ matrix.T).view(2, 3, 4, 4)
    torch.testing.assert_close(path_lengths(images, layered, noise), expected / math.sqrt(9))
