"""StyleGAN2's parts against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from projgan.config import Config, Discriminator, Generator
from projgan.discriminators.baselines import StyleGAN2Heads, minibatch_std
from projgan.discriminators.projected import build_discriminator
from projgan.generators import build_generator
from projgan.generators.stylegan2 import ModulatedConv2d, StyleGAN2, channels_at
from projgan.layers import Blur, EqualConv2d, EqualLinear
from projgan.rng import Coordinates, Stream


def _coordinates(n: int, seed: int = 0) -> Coordinates:
    return Coordinates(seed, Stream.LATENT_D, torch.arange(n))


def test_a_modulated_convolution_is_a_kernel_for_each_sample() -> None:
    torch.manual_seed(0)
    conv = ModulatedConv2d(5, 7, 3, w_dim=4)
    x, w = torch.randn(3, 5, 8, 8), torch.randn(3, 4)
    expected = []
    for image, style in zip(x, conv.style(w), strict=True):
        kernel = conv.weight * conv.scale * style[None, :, None, None]
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected.append(F.conv2d(image[None], kernel, padding=1))
    torch.testing.assert_close(conv(x, w), torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_an_upsampling_convolution_is_zeros_between_pixels_a_kernel_and_the_filter() -> None:
    torch.manual_seed(0)
    conv = ModulatedConv2d(2, 3, 3, w_dim=4, demodulate=False, up=True)
    x, w = torch.randn(1, 2, 4, 4), torch.randn(1, 4)
    spread = torch.zeros(1, 2, 8, 8)
    spread[:, :, ::2, ::2] = x * conv.style(w)[:, :, None, None]
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    taps = torch.outer(line, line) * 4
    # The kernel, then the filter: one larger kernel of 6x6.
    kernel = F.conv2d(
        (conv.weight * conv.scale).view(6, 1, 3, 3), taps.flip(0, 1)[None, None], padding=3
    ).view(3, 2, 6, 6)
    expected = F.conv2d(F.pad(spread, (3, 2, 3, 2)), kernel)
    torch.testing.assert_close(conv(x, w), expected, atol=1e-5, rtol=1e-5)


def test_doubling_keeps_a_constant_and_the_place_of_a_ramp() -> None:
    blur = Blur(pad=(2, 1), gain=4.0)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    doubled = blur.doubled(ramp)[0, 0, 8, 2:-2]
    expected = torch.arange(16.0)[2:-2] / 2 - 0.25
    torch.testing.assert_close(doubled, expected)
    torch.testing.assert_close(blur.doubled(torch.ones(1, 1, 8, 8))[0, 0, 8, 2:-2], torch.ones(12))


def test_halving_gives_half_the_size_and_keeps_a_constant() -> None:
    for kernel in (1, 3):
        conv = EqualConv2d(1, 1, kernel, bias=False, down=True)
        with torch.no_grad():
            conv.weight.fill_(1.0)
        halved = conv(torch.ones(1, 1, 16, 16)) / (kernel**2 * conv.scale)
        assert halved.shape == (1, 1, 8, 8)
        torch.testing.assert_close(halved[0, 0, 2:-2, 2:-2], torch.ones(4, 4))


def test_the_layers_start_with_outputs_of_unit_variance() -> None:
    torch.manual_seed(0)
    for rate in (1.0, 0.01):
        layer = EqualLinear(512, 512, rate=rate)
        assert layer(torch.randn(256, 512)).std().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("resolution", "width"), [(32, 8), (64, 4), (256, 4)])
def test_images_have_the_resolution_and_gradients_reach_every_weight(
    resolution: int, width: int
) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(16, 16, 2, resolution, width)
    where = _coordinates(2)
    images = generator(where.normal(16), where)
    assert images.shape == (2, 3, resolution, resolution)
    images.square().sum().backward()
    without = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_the_published_sizes() -> None:
    """28.9 M parameters in the discriminator at 256 px; 512 channels up to 64 px, then halved."""
    assert [channels_at(r, 64) for r in (4, 64, 128, 256, 1024)] == [512, 512, 256, 128, 32]
    with torch.device("meta"):
        heads = StyleGAN2Heads(256, 64)
    assert sum(p.numel() for p in heads.parameters()) / 1e6 == pytest.approx(28.86, abs=0.01)


def test_truncation_ends_at_the_mean_image() -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(16, 16, 2, 32, 4)
    where = _coordinates(2)
    generator(where.normal(16), where)  # moves the mean
    assert generator.mapping.mean.any()
    generator.eval()
    mean = generator(where.normal(16), where, truncation=0.0)
    torch.testing.assert_close(mean[0], mean[1])
    full, half = (generator(where.normal(16), where, truncation=t) for t in (1.0, 0.5))
    assert (half - mean).square().sum() < (full - mean).square().sum()


def test_an_image_depends_on_its_own_coordinates_only() -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(16, 16, 2, 32, 4).eval()
    together, alone = _coordinates(3), Coordinates(0, Stream.LATENT_D, torch.tensor([2]))
    torch.testing.assert_close(
        generator(together.normal(16), together)[2:], generator(alone.normal(16), alone),
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip


def test_classes_change_the_image() -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(16, 16, 2, 32, 4, classes=3).eval()
    where = _coordinates(2)
    z = where.normal(16)
    a, b = (generator(z, where, labels=torch.full((2,), label)) for label in (0, 2))
    assert not torch.allclose(a, b)


def test_the_spread_of_a_group_is_shown_to_the_discriminator() -> None:
    alike = torch.ones(8, 2, 4, 4)
    assert minibatch_std(alike, 4)[:, 2].max() < 1e-3
    half = alike.clone()
    half[0] = 5.0
    spread = minibatch_std(half, 4)[:, 2, 0, 0]
    assert (spread[:4] > 1).all() and (spread[4:] < 1e-3).all()
    assert minibatch_std(torch.randn(6, 2, 4, 4), 4).shape == (6, 3, 4, 4)
    # By numpy, and the same in parts of whole groups.
    x = torch.randn(8, 3, 2, 2)
    for i, group in enumerate(x.numpy().reshape(2, 4, 3, 2, 2)):
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        assert np.allclose(minibatch_std(x, 4)[4 * i : 4 * i + 4, 3], expected)
    parts = torch.cat([minibatch_std(part, 4) for part in x.split(4)])
    assert torch.equal(minibatch_std(x, 4), parts)


def test_half_the_feature_maps_leave_the_most() -> None:
    """`fmaps` of stylegan2-ada-pytorch: channels are min(32768 fmaps / resolution, 512)."""
    for fmaps in (1.0, 0.5):
        for r in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
            assert channels_at(r, 64, fmaps) == min(int(32768 * fmaps) // r, 512)
    config = Config(
        generator=Generator(name="stylegan2", fmaps=0.5),
        discriminator=Discriminator(kind="stylegan2", fmaps=0.5, mbstd_group=8),
    )
    assert build_generator(config).convs[-1].bias.shape == (64,)
    heads: Any = build_discriminator(config).heads
    assert heads.from_rgb.weight.shape[0] == 64 and heads.group == 8
