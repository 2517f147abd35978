"""Consecutive fixed linear maps of the projection as one, where that is fewer products.

Merging is exact but for rounding. Two convolutions become one unless zeros at the borders come
between them: a 3x3 kernel after another pads a map that the first one did not, and a bias before a
3x3 kernel is missing in the border. A 1x1 kernel commutes with bilinear upsampling, because it
mixes channels, and upsampling mixes pixels with weights that sum to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Linear2d:
    """A fixed convolution that keeps the size of a map.

    Attributes:
        weight: [O, I, k, k], k odd.
        bias: [O].
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, conv: nn.Conv2d, residual: bool = False) -> Linear2d:
        """A convolution as float64; with `residual` what comes in is added to what comes out."""
        weight = conv.weight.double().clone()
        if residual:
            middle = weight.shape[-1] // 2
            weight[:, :, middle, middle] += torch.eye(len(weight)).to(weight)
        bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias
        return cls(weight, bias.to(weight))

    @property
    def products(self) -> int:
        """For each pixel."""
        return self.weight.numel()

    def after(self, inner: Linear2d) -> Linear2d | None:
        """Both as one; None where that is not the same or no fewer products."""
        k, size = self.weight.shape[-1], inner.weight.shape[-1]
        if k > 1 and (size > 1 or bool(inner.bias.any())):
            return None
        weight = torch.einsum("omkl,mirs->oikrls", self.weight, inner.weight)
        side = max(k, size)
        both = Linear2d(
            weight.reshape(*weight.shape[:2], side, side),
            self.weight.sum((2, 3)) @ inner.bias + self.bias,
        )
        return both if both.products <= self.products + inner.products else None

    def ready(self, like: Tensor) -> Linear2d:
        """In the type, place and layout of another kernel."""
        last = torch.channels_last
        layout = last if like.is_contiguous(memory_format=last) else torch.contiguous_format
        return Linear2d(self.weight.to(like).contiguous(memory_format=layout), self.bias.to(like))

    def __call__(self, x: Tensor, bias: bool = True) -> Tensor:
        padding = self.weight.shape[-1] // 2
        return F.conv2d(x, self.weight, self.bias if bias else None, padding=padding)


def merge(chain: Sequence[Linear2d]) -> list[Linear2d]:
    """A chain of maps, first to last, with neighbours merged that can be."""
    done: list[Linear2d] = []
    for step in chain:
        both = step.after(done[-1]) if done else None
        done[-1:] = [both] if both else [*done[-1:], step]
    return done


class MergedLevel:
    """A level of cross-scale mixing with the cross-channel mixing before it.

    Args:
        own: maps that only this level's features pass.
        common: maps that the sum with the deeper level's result passes before it is doubled.
        deepest: whether there is no deeper level.
        like: a kernel whose type, place and layout the merged ones get.
    """

    def __init__(
        self, own: Sequence[Linear2d], common: Sequence[Linear2d], deepest: bool, like: Tensor
    ):
        if deepest:
            own, common = [*own, *common], []
        own, common = merge(own), merge(common)
        self.deeper: Linear2d | None = None
        if len(common) == 1 and common[0].weight.shape[-1] == 1:
            both = common[0].after(own[-1])
            if both is not None:  # the narrower maps are summed instead of the wide ones
                own, common, self.deeper = [*own[:-1], both], [], common[0].ready(like)
        self.own = [step.ready(like) for step in own]
        self.common = [step.ready(like) for step in common]

    def __call__(self, x: Tensor, deeper: Tensor | None) -> Tensor:
        for step in self.own:
            x = step(x)
        if deeper is not None:
            x = x + (deeper if self.deeper is None else self.deeper(deeper, bias=False))
        for step in self.common:
            x = step(x)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
