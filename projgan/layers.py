"""Building blocks shared by generators and discriminators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from projgan.speed import fast


def sn_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0,
            groups: int = 1, bias: bool = False) -> nn.Module:  # fmt: skip
    """Convolution under spectral normalisation (Miyato et al., 2018)."""
    return spectral_norm(
        NormalisedConv2d(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias
        )
    )


class Normalised(nn.Module):
    """A layer whose `weight` torch's spectral norm parametrizes."""

    fast: frozenset[str] = fast.NONE

    def normalised(self) -> Tensor:
        """The kernel divided by its spectral norm; in training one power iteration passes."""
        plain: Any = self.parametrizations["weight"]  # type: ignore[index]
        original, norm = plain.original, plain[0]
        with torch.autocast(original.device.type, enabled=False):  # float32 always
            if "spectral" in self.fast and self.training:
                return fast.spectral_weight(original, norm._u, norm._v, norm.dim, norm.eps)
            weight: Tensor = self.weight  # type: ignore[assignment]
            return weight


class NormalisedConv2d(nn.Conv2d, Normalised):
    """A convolution under spectral norm, as `sn_conv` makes it."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)

    def doubled(self, x: Tensor) -> Tensor:
        """Nearest upsampling by two, then the convolution, which is 3x3 and keeps the size."""
        if "upsampling" in self.fast and fast.pays_to_merge(x):
            return fast.doubled_conv(x, self.normalised())
        result: Tensor = self(F.interpolate(x, scale_factor=2, mode="nearest"))
        return result


class NormalisedStart(nn.ConvTranspose2d, Normalised):
    """Latents [N, C, 1, 1] to the first map [N, O, k, k], without bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__(in_channels, out_channels, kernel, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.normalised()
        if "latent" not in self.fast:
            return F.conv_transpose2d(x, weight)
        c, o, k, _ = weight.shape
        flat = x.flatten(1) @ weight.permute(0, 2, 3, 1).reshape(c, -1)
        return flat.view(-1, k, k, o).permute(0, 3, 1, 2)


def doubled(x: Tensor, conv: nn.Module) -> Tensor:
    """Nearest upsampling by two, then a layer of `sn_conv`."""
    assert isinstance(conv, NormalisedConv2d)
    return conv.doubled(x)


def gate(x: Tensor, switches: frozenset[str]) -> Tensor:
    """Gated linear unit over the channels."""
    return fast.gate(x) if "gate" in switches else F.glu(x, dim=1)


class EqualLinear(nn.Module):
    """Fully connected layer with equalised learning rate (Karras et al., ICLR 2018).

    Weights are drawn from N(0, 1) and scaled where they are used, so that Adam moves all layers
    alike. `rate` is the layer's learning rate relative to the optimiser's.
    """

    def __init__(self, in_features: int, out_features: int, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(in_features), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate; optionally filtered and halved before."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, bias: bool = True,
                 down: bool = False):  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        pad = kernel // 2 + 1  # so that the strided convolution ends at half the size
        self.blur = Blur(pad=(pad, pad)) if down else None

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight * self.scale).to(x.dtype)
        if self.blur is None:
            return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)
        return F.conv2d(self.blur(x), weight, self.bias, stride=2)


class Blur(nn.Module):
    """The low-pass filter 1-3-3-1 in both directions, on every channel.

    Args:
        pad: pixels of zeros before and after, in both directions.
        gain: factor; 4 where zeros were put between the pixels.
    """

    taps: Tensor

    def __init__(self, pad: tuple[int, int], gain: float = 1.0):
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.pad = pad
        self.register_buffer("taps", torch.outer(line, line) / 64 * gain, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.taps.to(x.dtype).expand(channels, 1, 4, 4)
        before, after = self.pad
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, kernel, groups=channels)

    def doubled(self, x: Tensor) -> Tensor:
        """Twice the size: zeros between the pixels, then the filter."""
        channels = x.shape[1]
        kernel = self.taps.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2 times sqrt(2), which keeps the second moment."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Makes initial weights that are drawn inside depend on the seed and the purpose only.

    Each network has a purpose of its own, so that changing the discriminator does not change the
    generator's initial weights. Draws happen on the CPU, so every device starts alike.
    """
    digest = 0
    for byte in purpose.encode():
        digest = (digest * 257 + byte) % (1 << 31)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * (1 << 31) + digest)
        yield


def millions(module: nn.Module) -> float:
    """Parameters of a module, in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6
