"""Adaptive augmentation: its transformations and its rule."""

from __future__ import annotations

import pytest
import torch

from projgan.augment.ada import KIMG, ada, adjust
from projgan.rng import Coordinates, Stream


def _where(n: int) -> Coordinates:
    return Coordinates(0, Stream.AUGMENT_REAL, torch.arange(n))


def test_nothing_happens_at_zero_and_little_happens_rarely() -> None:
    images = torch.randn(64, 3, 16, 16)
    assert ada(images, 0.0, _where(64)) is images
    changed = (ada(images, 0.02, _where(64)) != images).flatten(1).any(dim=1)
    assert 0 < changed.float().mean() < 0.4


def test_every_image_has_its_own_draw_whatever_the_batch() -> None:
    images = torch.randn(5, 3, 16, 16)
    alone = Coordinates(0, Stream.AUGMENT_REAL, torch.tensor([3]))
    torch.testing.assert_close(ada(images, 1.0, _where(5))[3:4], ada(images[3:4], 1.0, alone))


def test_geometry_moves_pixels_and_colour_does_not_invent_contrast_in_a_flat_image() -> None:
    flat = torch.full((32, 3, 16, 16), 0.25)
    out = ada(flat, 1.0, _where(32))
    spread = out.flatten(2).std(dim=2)
    assert spread.max() < 1e-4  # borders are mirrored, so nothing dark comes in
    assert out[:, 0, 0, 0].std() > 0.05  # yet brightness and contrast differ between images


def test_grey_stays_grey() -> None:
    grey = torch.rand(32, 1, 16, 16).expand(-1, 3, -1, -1) * 2 - 1
    out = ada(grey, 1.0, _where(32))
    torch.testing.assert_close(out[:, 0], out[:, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out[:, 0], out[:, 2], atol=1e-4, rtol=1e-4)


def test_gradients_pass() -> None:
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    ada(images, 1.0, _where(4)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_p_follows_the_sign_of_the_difference_and_stays_a_probability() -> None:
    images = 1000
    assert adjust(0.5, 0.9, 0.6, images) == pytest.approx(0.5 + images / (KIMG * 1000))
    assert adjust(0.5, 0.1, 0.6, images) == pytest.approx(0.5 - images / (KIMG * 1000))
    assert adjust(0.0, 0.0, 0.6, images) == 0.0
    assert adjust(1.0, 1.0, 0.6, images) == 1.0
