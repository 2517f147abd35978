"""FastGAN's own discriminator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from projgan.discriminators.baselines import FastGANHeads, _quadrant


def test_logits_of_two_scales() -> None:
    for resolution in (32, 64):
        heads = FastGANHeads(resolution, 32)
        logits = heads(torch.randn(2, 3, resolution, resolution))
        assert [tuple(x.shape) for x in logits] == [(2, 1, 5, 5)] * 2


@pytest.mark.parametrize("resolution", [512, 1024])
def test_large_images_cost_no_more_than_those_of_256_px_behind_the_stem(resolution: int) -> None:
    sizes = []

    def note(module: nn.Module, given: object, made: torch.Tensor) -> None:
        sizes.append(made.numel())

    found = {}
    for side in (256, resolution):
        heads = FastGANHeads(side, 64)
        for module in heads.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(note)
        images = torch.randn(2, 3, side, side)
        sizes.clear()
        with torch.no_grad():
            assert [tuple(x.shape) for x in heads(images)] == [(2, 1, 5, 5)] * 2
            assert heads.reconstruction(images, torch.tensor([0, 3])).isfinite()
        found[side] = (max(sizes), sum(p.numel() for p in heads.downs.parameters()))
    assert found[resolution] == found[256]


def test_decoders_learn_to_rebuild_what_they_see() -> None:
    torch.manual_seed(0)
    heads = FastGANHeads(32, 32)
    images = torch.rand(8, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 - 1
    quadrant = torch.tensor([0, 1, 2, 3] * 2)
    optimiser = torch.optim.Adam(heads.parameters(), 2e-3)
    first = heads.reconstruction(images, quadrant).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = heads.reconstruction(images, quadrant)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.6 * first


def test_a_quadrant_is_named_row_by_row() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert _quadrant(x, torch.tensor([1])).flatten().tolist() == [2, 3, 6, 7]
    assert _quadrant(x, torch.tensor([2])).flatten().tolist() == [8, 9, 12, 13]
