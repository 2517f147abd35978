"""The truncated networks, one class per family of architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from projgan.backbones.network import STRIDES, Trunk
from projgan.errors import ConfigError


class CnnTrunk(Trunk):
    """EfficientNet and ResNet of timm: the last map at each stride, without what comes after.

    For EfficientNet that is after blocks 2, 3, 5 and 7; for ResNet after layer1 to layer4.
    """

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        by_stride = {info["reduction"]: i for i, info in enumerate(model.feature_info)}
        if absent := [stride for stride in STRIDES if stride not in by_stride]:
            raise ConfigError(
                f"{type(model).__name__} has no map at stride {absent[0]}: a discriminator needs "
                "maps at 4, 8, 16 and 32; choose another network"
            )
        indices = [by_stride[stride] for stride in STRIDES]
        chs = [model.feature_info[i]["num_chs"] for i in indices]
        self.channels = (chs[0], chs[1], chs[2], chs[3])
        self.mean, self.std = (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
        self.indices = model.prune_intermediate_layers(indices, prune_norm=True)
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(
            images, self.indices, intermediates_only=True
        )
        return maps


class ClipTrunk(Trunk):
    """CLIP's modified ResNet of open_clip: stem and four layers, without the attention pool."""

    def __init__(self, tower: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
        tower.attnpool = None
        self.model = tower
        layers = [tower.layer1, tower.layer2, tower.layer3, tower.layer4]
        chs = [layer[-1].conv3.out_channels for layer in layers]
        self.channels = (chs[0], chs[1], chs[2], chs[3])

    def forward(self, images: Tensor) -> list[Tensor]:
        m = self.model
        x = m.stem(images)
        maps = []
        for layer in (m.layer1, m.layer2, m.layer3, m.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class VitTrunk(Trunk):
    """ViT and DeiT of timm with the reassembling of DPT (Ranftl et al. 2021), readout ignored.

    The tokens after four blocks become maps of `widths` channels by a 1x1 convolution, then are
    brought from the patch grid to strides 4/8/16/32: a transposed convolution where the map grows,
    a strided one where it shrinks. These weights are random and, like all else here, never learn.
    """

    uncounted = ("cls_token", "dist_token", "pos_embed", "reg_token")

    def __init__(
        self,
        model: Any,
        mean: Sequence[float],
        std: Sequence[float],
        hooks: Sequence[int],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.mean, self.std = (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
        self.channels = (widths[0], widths[1], widths[2], widths[3])
        # Patches of 14 px have no map at those strides; their maps are as many pixels all the same.
        true = model.patch_embed.patch_size[0]
        patch = 2 ** round(math.log2(true))
        if true != patch:
            self.strides = tuple(stride * true / patch for stride in STRIDES)
        self.indices = model.prune_intermediate_layers([h - 1 for h in hooks], prune_norm=True)
        self.model = model
        self.reassemble = nn.ModuleList(
            nn.Sequential(nn.Conv2d(model.embed_dim, width, 1), _resample(width, patch, stride))
            for width, stride in zip(widths, STRIDES, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        tokens = self.model.forward_intermediates(images, self.indices, intermediates_only=True)
        return [layer(x) for layer, x in zip(self.reassemble, tokens, strict=True)]


def _resample(width: int, patch: int, stride: int) -> nn.Module:
    """From the patch grid to a map at `stride`: x4 and x2, identity, and halves at patch 16."""
    if stride == patch:
        return nn.Identity()
    if stride < patch:
        factor = patch // stride
        return nn.ConvTranspose2d(width, width, factor, stride=factor)
    factor = stride // patch
    return nn.Conv2d(width, width, factor + 1, stride=factor, padding=factor // 2)
