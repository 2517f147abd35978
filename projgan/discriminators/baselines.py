"""Discriminators of the methods that the paper compares with: StyleGAN2's and FastGAN's own.

Both look at RGB images and have the parts that a projected discriminator has (`features`, `logits`,
`heads`), so that one training step serves all. FastGAN's also rebuilds what it saw: its decoders
are trained on real images to keep the features complete (Liu et al., ICLR 2021, Section 3.2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgan.classes import ConditionalHeads
from projgan.config import Config
from projgan.generators.stylegan2 import channels_at
from projgan.layers import EqualConv2d, EqualLinear, scaled_leaky_relu, seeded, sn_conv

# Called with the name of a frozen part, its inputs and its outputs.
OnPart = Callable[[str, list[Tensor], list[Tensor]], None]

LARGEST_BODY = 256  # pixels of the largest map that FastGAN's blocks see


class OnImages(nn.Module):
    """A discriminator on images: no feature network, no projection."""

    backbone = None
    projection = None
    heads: nn.Module

    def features(self, images: Tensor, on_part: OnPart | None = None) -> list[Tensor]:
        return [images]

    def logits(self, maps: list[Tensor], labels: Tensor | None = None) -> list[Tensor]:
        """Return logits of images [N, 3, R, R], one [N, 1, h, w] for each head.

        Args:
            labels: [N] int64, classes, where the discriminator is conditional.
        """
        given = maps[0]
        found: list[Tensor] = self.heads(given) if labels is None else self.heads(given, labels)
        return found

    def forward(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        return self.logits(self.features(images), labels)


class ResidualBlock(nn.Module):
    """Two convolutions, the second halving, beside a 1x1 that halves; summed at unit variance."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = EqualConv2d(in_channels, in_channels, 3)
        self.conv2 = EqualConv2d(in_channels, out_channels, 3, down=True)
        self.skip = EqualConv2d(in_channels, out_channels, 1, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        y = scaled_leaky_relu(self.conv2(scaled_leaky_relu(self.conv1(x))))
        result: Tensor = (y + self.skip(x)) * math.sqrt(0.5)
        return result


def minibatch_std(x: Tensor, group: int) -> Tensor:
    """Appends one channel: the standard deviation over groups of images, averaged (Karras 2018).

    Args:
        x: [N, C, H, W]; `group` images that follow each other are one group, and where N is no
            multiple of that, all N are.
    """
    n, c, h, w = x.shape
    size = group if n % group == 0 else n
    grouped = x.reshape(n // size, size, c, h, w)
    spread = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    channel = spread.repeat_interleave(size).view(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class StyleGAN2Heads(nn.Module):
    """StyleGAN2's residual discriminator (Karras et al., CVPR 2020): one logit per image."""

    def __init__(self, resolution: int, width: int, out: int = 1, fmaps: float = 1.0,
                 group: int = 4):  # fmt: skip
        super().__init__()
        self.group = group
        sizes = [resolution >> i for i in range(int(math.log2(resolution // 4)) + 1)]
        channels = [channels_at(size, width, fmaps) for size in sizes]
        self.from_rgb = EqualConv2d(3, channels[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(i, o) for i, o in itertools.pairwise(channels)))
        last = channels[-1]
        self.conv = EqualConv2d(last + 1, last, 3)
        self.dense = EqualLinear(last * 16, last)
        self.out = EqualLinear(last, out)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.blocks(scaled_leaky_relu(self.from_rgb(x)))
        x = scaled_leaky_relu(self.conv(minibatch_std(x, self.group))).flatten(1)
        return [self.out(scaled_leaky_relu(self.dense(x)))[:, :, None, None]]


class StyleGAN2Discriminator(OnImages):
    def __init__(self, cfg: Config):
        super().__init__()
        with seeded(cfg.train.seed, "discriminator"):
            d = cfg.discriminator
            self.heads = StyleGAN2Heads(
                cfg.data.resolution, d.width // 8, cfg.outputs, d.fmaps, d.mbstd_group
            )
            if cfg.data.classes:
                self.heads = ConditionalHeads(self.heads, cfg.data.classes, cfg.outputs)


class DownBlock(nn.Module):
    """FastGAN's residual halving: two convolutions beside pooling and a 1x1, averaged."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.main = nn.Sequential(
            sn_conv(in_channels, out_channels, 4, 2, 1), *_norm_relu(out_channels),
            sn_conv(out_channels, out_channels, 3, 1, 1), *_norm_relu(out_channels),
        )  # fmt: skip
        self.direct = nn.Sequential(
            nn.AvgPool2d(2), sn_conv(in_channels, out_channels, 1), *_norm_relu(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (self.main(x) + self.direct(x)) / 2
        return result


class Decoder(nn.Module):
    """An 8x8 map back to an image: nearest upsampling, convolution, batch norm, GLU, repeated."""

    def __init__(self, in_channels: int, size: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for step in range(int(math.log2(size // 8))):
            out = max(8, in_channels >> (step + 1))
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                sn_conv(channels, out * 2, 3, padding=1),
                nn.BatchNorm2d(out * 2),
                nn.GLU(dim=1),
            ]
            channels = out
        self.layers = nn.Sequential(*layers, sn_conv(channels, 3, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.layers(x)
        return image


class FastGANHeads(nn.Module):
    """FastGAN's discriminator: logits at two scales, and decoders that rebuild real images.

    Images above 256 px are brought to maps of 256 px by strided convolutions of few channels, and
    the second scale sees them at 128 px, as Liu et al. have it: blocks at 1024 px would need four
    times the memory of the whole rest.

    Args:
        resolution: of the images, at least 32.
        width: channels at the last map; an eighth at the first.
    """

    def __init__(self, resolution: int, width: int):
        super().__init__()
        body = min(resolution, LARGEST_BODY)
        count = int(math.log2(body // 8))
        widths = [max(width // 8, width >> (count - i)) for i in range(count + 1)]
        self.stem = _stem(resolution // body, widths[0])
        self.small_size = body // 2
        self.downs = nn.ModuleList(DownBlock(i, o) for i, o in itertools.pairwise(widths))
        self.large = nn.Sequential(
            sn_conv(width, width, 1), *_norm_relu(width), sn_conv(width, 1, 4)
        )
        small: list[nn.Module] = [sn_conv(3, widths[1], 3, padding=1), nn.LeakyReLU(0.2)]
        small += [DownBlock(i, o) for i, o in itertools.pairwise(widths[1:])]
        self.small = nn.Sequential(*small, sn_conv(width, 1, 4))
        self.rebuilt = min(resolution, 128)  # pixels of the images that the decoders give
        self.whole = Decoder(width, self.rebuilt)
        self.part = Decoder(widths[-2], self.rebuilt)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> the maps of 16 px and of 8 px."""
        before = x = self.stem(x)
        for down in self.downs:
            before, x = x, down(x)
        return before, x

    def forward(self, x: Tensor) -> list[Tensor]:
        half = F.interpolate(x, self.small_size, mode="bilinear", antialias=True)
        return [self.large(self.maps(x)[1]), self.small(half)]

    def reconstruction(self, images: Tensor, quadrant: Tensor) -> Tensor:
        """Return the mean absolute error of rebuilt real images, both decoders summed.

        Args:
            images: [N, 3, R, R], as the logits saw them.
            quadrant: [N] int64 in 0..3, the quarter that the second decoder rebuilds.
        """
        deep, deepest = self.maps(images)
        size = self.rebuilt
        target = F.interpolate(images, size, mode="bilinear", antialias=True)
        quarter = F.interpolate(_quadrant(images, quadrant), size, mode="bilinear", antialias=True)
        part = self.part(_quadrant(deep, quadrant))
        return F.l1_loss(self.whole(deepest), target) + F.l1_loss(part, quarter)


class FastGANDiscriminator(OnImages):
    def __init__(self, cfg: Config):
        super().__init__()
        with seeded(cfg.train.seed, "discriminator"):
            self.heads = FastGANHeads(cfg.data.resolution, cfg.discriminator.width)


def _stem(factor: int, width: int) -> nn.Sequential:
    """Images -> `width` channels; `factor` (1, 2, 4) is by how much the sides are divided."""
    if factor == 1:
        return nn.Sequential(sn_conv(3, width, 3, padding=1), nn.LeakyReLU(0.2))
    layers: list[nn.Module] = []
    channels = 3
    while factor > 1:
        factor //= 2
        out = width // factor**2  # every map has as many values
        norm = _norm_relu(out) if layers else [nn.LeakyReLU(0.2)]
        layers += [sn_conv(channels, out, 4, 2, 1), *norm]
        channels = out
    return nn.Sequential(*layers)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)]


def _quadrant(x: Tensor, which: Tensor) -> Tensor:
    """The quarter of each map that `which` [N] names, row by row from the top left."""
    half = x.shape[-1] // 2
    tiles = x.unfold(2, half, half).unfold(3, half, half).flatten(2, 3)  # [N, C, 4, h, h]
    return tiles[torch.arange(len(x), device=x.device), :, which]
