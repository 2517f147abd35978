"""FastGAN (Liu et al., ICLR 2021), the generator of the paper's main results.

Two accounts of it are offered by name (`generator.preset`). `paper`: large and small blocks
alternate and the latent is used as drawn, as in the first release, which is closest to the paper.
`released`: large blocks only, and the latent is put on the hypersphere. FastGAN-lite has small
blocks only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from projgan.config import Config
from projgan.layers import NormalisedStart, doubled, gate, sn_conv
from projgan.rng import Coordinates, Stream
from projgan.speed import fast

# Channels at each resolution, as multiples of `generator.width`.
MULTIPLIERS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5, 512: 0.25, 1024: 0.125}  # fmt: skip  # noqa: E501


class Noise(nn.Module):
    """Adds one noise image, scaled by a learnt factor that starts at zero, to all channels."""

    def __init__(self, part: int):
        super().__init__()
        self.part = part
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Coordinates) -> Tensor:
        n, _, height, width = x.shape
        drawn = noise.normal(height * width, self.part).view(n, 1, height, width)
        return x + self.scale * drawn.to(x.dtype)


class SmallBlock(nn.Module):
    """Nearest upsampling, one convolution, batch norm, gated linear unit."""

    fast: frozenset[str] = fast.NONE

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = sn_conv(in_channels, out_channels * 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels * 2)

    def forward(self, x: Tensor, noise: Coordinates) -> Tensor:
        return gate(self.norm(doubled(x, self.conv)), self.fast)


class LargeBlock(nn.Module):
    """Nearest upsampling, then twice: convolution, noise, batch norm, gated linear unit."""

    fast: frozenset[str] = fast.NONE

    def __init__(self, in_channels: int, out_channels: int, resolution: int):
        super().__init__()
        self.conv1 = sn_conv(in_channels, out_channels * 2, 3, padding=1)
        self.noise1 = Noise(part=resolution * 2)
        self.norm1 = nn.BatchNorm2d(out_channels * 2)
        self.conv2 = sn_conv(out_channels, out_channels * 2, 3, padding=1)
        self.noise2 = Noise(part=resolution * 2 + 1)
        self.norm2 = nn.BatchNorm2d(out_channels * 2)

    def forward(self, x: Tensor, noise: Coordinates) -> Tensor:
        x = gate(self.norm1(self.noise1(doubled(x, self.conv1), noise)), self.fast)
        return gate(self.norm2(self.noise2(self.conv2(x), noise)), self.fast)


class SkipExcitation(nn.Module):
    """Skip-layer excitation: a low-resolution map gates the channels of a high-resolution one."""

    def __init__(self, low_channels: int, high_channels: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            sn_conv(low_channels, high_channels, 4),
            nn.SiLU(),
            sn_conv(high_channels, high_channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        gated: Tensor = high * self.gate(low)
        return gated


class FastGAN(nn.Module):
    """Latents to images, 32 to 1024 px.

    A map at resolution r from 64 to 512 is excited by the one at r/16. Below that no map has such a
    partner, so a 32 px generator excites its last map by the first (4 px).

    Args:
        z_dim: length of the latent.
        resolution: pixels of the images, a power of two from 32.
        width: channel multiplier.
        blocks: "large", "small" or "alternating" (large first).
        normalize_z: scale each latent to unit second moment.
        bounded: pass the images through tanh, as FastGAN's authors do and the released code of
            Projected GANs does not.
        rgb_bias: whether the last convolution has a bias, three numbers; the released code does.
        classes: for a class-conditional generator; the embedding of a class, of length `embed`,
            stands beside the latent.
    """

    fast: frozenset[str] = fast.NONE

    def __init__(self, z_dim: int, resolution: int, width: int, blocks: str, normalize_z: bool,
                 bounded: bool, rgb_bias: bool = False, classes: int = 0,
                 embed: int = 128):  # fmt: skip
        super().__init__()
        self.z_dim = z_dim
        self.resolution = resolution
        self.normalize_z = normalize_z
        self.bounded = bounded
        channels = {r: max(1, int(m * width)) for r, m in MULTIPLIERS.items() if r <= resolution}
        self.embed = nn.Embedding(classes, embed) if classes else None
        if classes:  # how often each is drawn; training sets it to what the data have
            self.register_buffer("class_share", torch.full((classes,), 1 / classes))
        seen = z_dim + (embed if classes else 0)
        self.start = spectral_norm(NormalisedStart(seen, channels[4] * 2, 4))
        self.start_norm = nn.BatchNorm2d(channels[4] * 2)
        self.blocks = nn.ModuleDict()
        self.excitations = nn.ModuleDict()
        for level, r in enumerate(list(channels)[1:]):
            large = blocks == "large" or (blocks == "alternating" and level % 2 == 0)
            in_channels, out_channels = channels[r // 2], channels[r]
            self.blocks[str(r)] = (
                LargeBlock(in_channels, out_channels, r)
                if large
                else SmallBlock(in_channels, out_channels)
            )
            if 64 <= r <= 512 or r == resolution == 32:
                self.excitations[str(r)] = SkipExcitation(channels[max(4, r // 16)], channels[r])
        self.to_rgb = sn_conv(channels[resolution], 3, 3, padding=1, bias=rgb_bias)

    def forward(self, z: Tensor, noise: Coordinates, labels: Tensor | None = None) -> Tensor:
        """z: [N, z_dim] float, standard normal -> [N, 3, R, R] float, about [-1, 1].

        Args:
            labels: [N] int64, for a class-conditional generator.
        """
        if self.normalize_z:
            z = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        if self.embed is not None:
            assert labels is not None, "a class-conditional generator needs labels"
            z = torch.cat([z, self.embed(labels)], dim=1)
        noise = noise.with_stream(Stream.NOISE + 256 * int(noise.stream))
        x = gate(self.start_norm(self.start(z[:, :, None, None])), self.fast)
        maps = {4: x}
        for name, block in self.blocks.items():
            x = block(x, noise)
            if name in self.excitations:
                x = self.excitations[name](maps[max(4, int(name) // 16)], x)
            maps[int(name)] = x
        images: Tensor = self.to_rgb(x)
        return torch.tanh(images) if self.bounded else images


def _build(cfg: Config, blocks: str) -> nn.Module:
    g = cfg.generator
    return FastGAN(
        g.z_dim,
        cfg.data.resolution,
        g.width,
        blocks,
        normalize_z=g.preset == "released",
        bounded=g.output == "tanh",
        rgb_bias=g.rgb_bias,
        classes=cfg.data.classes,
        embed=g.embed,
    )


def fastgan(cfg: Config) -> nn.Module:
    return _build(cfg, "large" if cfg.generator.preset == "released" else "alternating")


def fastgan_lite(cfg: Config) -> nn.Module:
    return _build(cfg, "small")
