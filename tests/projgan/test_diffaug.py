"""DiffAugment: ranges, differentiability, and independence of the batch."""

from __future__ import annotations

import torch

from projgan.augment.diffaug import augment, color, cutout, translation
from projgan.rng import Coordinates, Stream


def where(n: int, start: int = 0) -> Coordinates:
    return Coordinates(0, Stream.AUGMENT_REAL, torch.arange(start, start + n))


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_an_image_does_not_depend_on_its_batch() -> None:
    x = images(8)
    policy = "color,translation,cutout"
    together = augment(x, policy, where(8))
    alone = augment(x[5:6], policy, where(1, start=5))
    assert torch.allclose(together[5], alone[0], atol=1e-6)
    assert torch.equal(augment(x, "", where(8)), x)


def test_translation_is_a_shift_of_at_most_an_eighth() -> None:
    dot = torch.zeros(500, 1, 32, 32)
    dot[:, :, 16, 16] = 1
    moved = translation(dot, where(500)).flatten(1).argmax(1)
    rows, columns = moved // 32 - 16, moved % 32 - 16
    for shift in (rows, columns):
        assert sorted(set(shift.tolist())) == list(range(-4, 5))


def test_cutout_removes_one_square_of_a_fifth() -> None:
    holes = (cutout(torch.ones(500, 1, 32, 32), where(500)) == 0).flatten(1).sum(1)
    assert holes.max() == 36  # 6 x 6 of 32 x 32
    assert (holes == 36).float().mean() > 0.6  # the rest is cut by the border
    assert holes.min() > 0


def test_color_ranges() -> None:
    flat = torch.full((2000, 3, 2, 2), 0.25)
    shifted = color(flat, where(2000))[:, 0, 0, 0] - 0.25  # saturation and contrast keep flat grey
    assert -0.5 <= shifted.min() < -0.49 and 0.49 < shifted.max() <= 0.5
    red = torch.zeros(2000, 3, 1, 1)
    red[:, 0] = 1
    out = color(red, where(2000))
    chroma = (
        out[:, 0] - out[:, 1]
    ).flatten()  # 1 scaled by saturation (0-2) and contrast (0.5-1.5)
    assert chroma.min() >= 0 and 2.5 < chroma.max() <= 3


def test_gradients_reach_the_images() -> None:
    x = images(4).requires_grad_()
    augment(x, "color,translation,cutout", where(4)).sum().backward()
    assert x.grad is not None and (x.grad != 0).float().mean() > 0.5
