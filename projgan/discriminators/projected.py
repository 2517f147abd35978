"""Discriminators: projected and multi-scale (the paper's), perceptual, and on RGB images.

The projected discriminator D(x) = {D_l(P_l(x))} has an independent network on each chosen level of
the projected features (Section 3.1, Eq. 4). Two baselines of Table 1 share its parts: the
perceptual discriminator, one network that takes all levels in, and the ordinary discriminator on
RGB images, to which the table's distances are relative.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgan.backbones import build_backbone
from projgan.classes import ConditionalHeads
from projgan.config import Config, Discriminator
from projgan.discriminators.baselines import (
    FastGANDiscriminator,
    OnImages,
    OnPart,
    StyleGAN2Discriminator,
)
from projgan.discriminators.projection import LEVELS, Projection, Projections
from projgan.errors import ConfigError
from projgan.layers import NormalisedConv2d, seeded, sn_conv
from projgan.parallel import group_batch_norm
from projgan.speed import fast

# A 4x4 kernel without padding turns a 7x7 map into 4x4 logits. At 224 px the last maps are 7x7.
_MAP_FOR_4X4 = 7


def block_count(cfg: Discriminator, level: int, size: int) -> int:
    """Blocks before the head of a level's discriminator.

    Args:
        level: 1 (shallowest) to 4.
        size: pixels of the map that enters it.

    `matched` gives 4/3/2/1 whatever comes in, so that rows of Table 1 have equally many blocks.
    Their parameters still differ: once a map is down to `base`, the blocks left over are 3x3
    without halving, where others are 4x4 with it. `by_map` halves down to `base`, as the released
    code does, which gives each level a block more with CSM (10.3 M parameters instead of 5.9 M
    without projection).
    """
    if cfg.depth == "matched":
        return 5 - level
    return max(0, math.ceil(math.log2(size / cfg.base)))


def block(in_channels: int, out_channels: int, halve: bool, separable: bool) -> nn.Sequential:
    """Convolution under spectral norm, batch norm, LeakyReLU 0.2; halves the map or keeps it."""
    tail = [nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2)]
    if separable:
        depthwise = sn_conv(in_channels, in_channels, 3, padding=1, groups=in_channels)
        pool = [nn.AvgPool2d(2, ceil_mode=True)] if halve else []
        return nn.Sequential(depthwise, sn_conv(in_channels, out_channels, 1), *tail, *pool)
    if halve:
        return nn.Sequential(sn_conv(in_channels, out_channels, 4, 2, 1), *tail)
    return nn.Sequential(sn_conv(in_channels, out_channels, 3, 1, 1), *tail)


def block_widths(cfg: Discriminator, count: int) -> list[int]:
    """Channels after each block: `width` at the last, halved towards the first, an eighth at least.

    At the default of 512 this is 64-128-256-512.
    """
    return [max(cfg.width >> (count - 1 - i), cfg.width // 8) for i in range(count)]


class Head(nn.Module):
    """The last map to logits by one 4x4 convolution under spectral norm, without bias."""

    fast: frozenset[str] = fast.NONE

    def __init__(self, cfg: Discriminator, in_channels: int, out: int = 1):
        super().__init__()
        self.resize = cfg.logits == "4x4"
        self.conv = sn_conv(in_channels, out, 4)
        self.single = out == 1  # else for a projection onto classes

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 1, h, w]: 4x4 logits, or H-3 x W-3 at native size."""
        if self.resize and self.single and "head" in self.fast and fast.pays_to_multiply(x):
            assert isinstance(self.conv, NormalisedConv2d)
            return fast.resized_head(x, self.conv.normalised(), _MAP_FOR_4X4)
        if self.resize and x.shape[-1] != _MAP_FOR_4X4:
            x = F.interpolate(x, _MAP_FOR_4X4, mode="bilinear", align_corners=False)
        logits: Tensor = self.conv(x)
        return logits


class LevelDiscriminator(nn.Module):
    """One independent network: blocks that halve the map down to `base`, then the head."""

    def __init__(self, cfg: Discriminator, in_channels: int, size: int, count: int, out: int = 1):
        super().__init__()
        layers: list[nn.Module] = []
        for width in block_widths(cfg, count):
            halve = size > cfg.base
            layers.append(block(in_channels, width, halve, cfg.separable))
            in_channels, size = width, math.ceil(size / 2) if halve else size
        self.blocks = nn.Sequential(*layers)
        self.head = Head(cfg, in_channels, out)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(x))
        return logits


class PerceptualHeads(nn.Module):
    """One network on all levels (after Sungatullina et al., ECCV 2018; Table 1's baseline).

    The shallowest map is halved until it meets the next one, which joins by concatenation, and so
    on; after the deepest, blocks lead to the head.
    """

    def __init__(self, cfg: Discriminator, channels: list[int], sizes: list[int], out: int = 1):
        super().__init__()
        widths = block_widths(cfg, len(channels))
        self.stages = nn.ModuleList()
        width = 0
        for i, size in enumerate(sizes):
            in_channels = channels[i] + width
            goal = sizes[i + 1] if i + 1 < len(sizes) else min(cfg.base, size)
            layers: list[nn.Module] = []
            while True:
                halve = size > goal
                layers.append(block(in_channels, widths[i], halve, cfg.separable))
                in_channels, size = widths[i], math.ceil(size / 2) if halve else size
                if size <= goal:
                    break
            self.stages.append(nn.Sequential(*layers))
            width = widths[i]
        self.head = Head(cfg, width, out)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x: Tensor | None = None
        for stage, features in zip(self.stages, maps, strict=True):
            x = stage(features if x is None else torch.cat([x, features], dim=1))
        return [self.head(x)]


class MultiScaleHeads(nn.Module):
    """The multi-scale discriminators: an independent network on each chosen level (Eq. 4)."""

    def __init__(self, cfg: Discriminator, channels: list[int], sizes: list[int], out: int = 1):
        super().__init__()
        self.levels = nn.ModuleList(
            LevelDiscriminator(cfg, c, size, block_count(cfg, level, size), out)
            for level, c, size in zip(itertools.cycle(cfg.layers), channels, sizes, strict=False)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]


class ProjectedDiscriminator(nn.Module):
    """Frozen backbone, frozen projection, trained heads.

    Attributes:
        backbone: the feature network, frozen and always in eval mode.
        projection: the random projection, frozen.
        heads: what is trained.
    """

    def __init__(self, cfg: Config):
        super().__init__()
        d = cfg.discriminator
        self.layers = d.layers
        self.backbone = build_backbone(cfg.backbone, cfg.data.resolution)
        self.projection = build_projection(cfg, self.backbone.channels)
        count = len(self.backbone.networks)
        if count > 1 and d.kind == "perceptual":
            raise ConfigError(
                f"discriminator.kind=perceptual is for one network; backbone.name="
                f"{cfg.backbone.name} is {count}"
            )
        sizes = [size * self.projection.scale for size in self.backbone.map_sizes]
        # The chosen levels of every network.
        self.taken = [LEVELS * i + level - 1 for i in range(count) for level in d.layers]
        channels = [self.projection.channels[at] for at in self.taken]
        chosen = [sizes[at] for at in self.taken]
        if min(chosen) < 2 or (d.logits == "native" and min(min(chosen), d.base) < 4):
            raise ConfigError(
                f"discriminator.layers={list(d.layers)}: the maps are {chosen} px, too small for "
                f"a 4x4 head; set discriminator.logits=4x4, drop the deepest level, or give a "
                f"larger backbone.input_size than {self.backbone.input_size}"
            )
        with seeded(cfg.train.seed, "discriminator"):
            heads = PerceptualHeads if d.kind == "perceptual" else MultiScaleHeads
            self.heads: nn.Module = heads(d, channels, chosen, cfg.outputs)
            if isinstance(self.heads, MultiScaleHeads) and d.extra_rgb:
                self.heads.levels.append(on_rgb(cfg))
            if cfg.data.classes:
                self.heads = ConditionalHeads(self.heads, cfg.data.classes, d.cmap)
        self.extra_rgb = d.extra_rgb

    def features(self, images: Tensor, on_part: OnPart | None = None) -> list[Tensor]:
        """Return the projected maps of the chosen levels for images [N, 3, R, R] in [-1, 1].

        Args:
            on_part: called with the name of each frozen part, its inputs and its outputs.
        """
        features = self.backbone(images)
        if on_part is not None:
            on_part("backbone", [images], features)
        maps = self.projection(features)
        if on_part is not None:
            on_part("projection", features, maps)
        chosen = [maps[at] for at in self.taken]
        return [*chosen, images] if self.extra_rgb else chosen

    def logits(self, maps: list[Tensor], labels: Tensor | None = None) -> list[Tensor]:
        """Return logits of projected maps, one [N, 1, h, w] for each discriminator.

        Args:
            labels: [N] int64, classes, where the discriminators are conditional.
        """
        found: list[Tensor] = self.heads(maps) if labels is None else self.heads(maps, labels)
        return found

    def forward(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        return self.logits(self.features(images), labels)


def on_rgb(cfg: Config) -> LevelDiscriminator:
    """The blocks of a level's discriminator, as many as the image has halvings and one more."""
    d, size = cfg.discriminator, cfg.data.resolution
    return LevelDiscriminator(d, 3, size, math.ceil(math.log2(size / d.base)) + 1, cfg.outputs)


class RGBDiscriminator(OnImages):
    """An ordinary discriminator on images, of the same blocks (the baseline of Table 1)."""

    def __init__(self, cfg: Config):
        super().__init__()
        with seeded(cfg.train.seed, "discriminator"):
            self.heads = on_rgb(cfg)
            if cfg.data.classes:
                self.heads = ConditionalHeads(self.heads, cfg.data.classes, cfg.outputs)

    def logits(self, maps: list[Tensor], labels: Tensor | None = None) -> list[Tensor]:
        return [self.heads(maps[0])] if labels is None else self.heads(maps[0], labels)


def build_projection(cfg: Config, channels: tuple[int, ...]) -> Projection | Projections:
    """The frozen projection of a run, drawn from its seed alone.

    Args:
        channels: of the backbone's maps, four for each network.
    """
    with seeded(cfg.train.seed, "projection"):
        kind = Projection if len(channels) == LEVELS else Projections
        return kind(cfg.projection, channels)


ON_IMAGES: dict[str, Callable[[Config], OnImages | ProjectedDiscriminator]] = {
    "rgb": RGBDiscriminator,
    "stylegan2": StyleGAN2Discriminator,
    "fastgan": FastGANDiscriminator,
}


def build_discriminator(cfg: Config) -> ProjectedDiscriminator | OnImages:
    """The configured discriminator: images [N, 3, R, R] in [-1, 1] -> list of logit maps."""
    kind = ON_IMAGES.get(cfg.discriminator.kind, ProjectedDiscriminator)
    discriminator = kind(cfg)
    group_batch_norm(discriminator.heads, cfg.train.norm_group)
    return discriminator
