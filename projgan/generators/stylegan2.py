"""StyleGAN2's generator (Karras et al., CVPR 2020, "Analyzing and Improving the Image Quality of
StyleGAN") in plain torch operators: mapping, modulated convolutions, skip connections to RGB.

A modulated convolution scales its weights per sample (Section 2.2 there). Because scaling the
input channels of a kernel is scaling the input, and demodulation scales its output channels, one
ordinary convolution serves the whole batch:

    y_o = d_o * sum_i w_oi * (s_i x_i),   d_o = 1 / sqrt(sum_i s_i^2 sum_k w_oik^2 + eps)
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgan.config import Config
from projgan.layers import Blur, EqualLinear, scaled_leaky_relu
from projgan.rng import Coordinates, Stream

MAPPING_RATE = 0.01  # learning rate of the mapping network, relative to the others'
MEAN_DECAY = 0.998  # of the running mean of w, per batch, for truncation


def channels_at(resolution: int, width: int, fmaps: float = 1.0) -> int:
    """Channels: `512 width fmaps / resolution`, at most `8 width` (512 at width 64)."""
    return max(1, min(int(512 * width * fmaps) // resolution, 8 * width))


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style; optionally doubles the size.

    Args:
        demodulate: bring every output channel back to unit variance.
        up: transposed convolution by two, then the low-pass filter 1-3-3-1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, w_dim: int,
                 demodulate: bool = True, up: bool = False):  # fmt: skip
        super().__init__()
        self.style = EqualLinear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.demodulate = demodulate
        self.blur = Blur(pad=(1, 1), gain=4.0) if up else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [N, C, H, W], w: [N, w_dim] -> [N, out_channels, H or 2H, W or 2W]."""
        style = self.style(w)
        weight = self.weight * self.scale
        x = x * style[:, :, None, None].to(x.dtype)
        if self.blur is None:
            x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)
        else:
            kernel = weight.flip(2, 3).transpose(0, 1)
            x = self.blur(F.conv_transpose2d(x, kernel.to(x.dtype), stride=2))
        if self.demodulate:
            energy = style.square() @ weight.square().sum(dim=(2, 3)).T
            x = x * torch.rsqrt(energy + 1e-8)[:, :, None, None].to(x.dtype)
        return x


class StyledConv(nn.Module):
    """Modulated convolution, noise of a learnt strength, bias, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, part: int, up: bool):
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, w_dim, up=up)
        self.part = part
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, noise: Coordinates) -> Tensor:
        x = self.conv(x, w)
        n, _, height, width = x.shape
        drawn = noise.normal(height * width, self.part).view(n, 1, height, width)
        x = x + (self.noise_strength * drawn).to(x.dtype) + self.bias[None, :, None, None]
        return scaled_leaky_relu(x)


class ToRGB(nn.Module):
    """Features to an image of three channels, added to the image so far at twice its size."""

    def __init__(self, in_channels: int, w_dim: int):
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, 3, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))
        self.blur = Blur(pad=(2, 1), gain=4.0)

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        rgb: Tensor = self.conv(x, w) + self.bias[None, :, None, None]
        return rgb if image is None else rgb + self.blur.doubled(image)


class Mapping(nn.Module):
    """Latents z, and classes where there are any, to w.

    The latent (and the embedded class) is scaled to unit second moment, then goes through fully
    connected layers that learn at a hundredth of the rate.
    """

    mean: Tensor

    def __init__(self, z_dim: int, w_dim: int, layers: int, classes: int = 0):
        super().__init__()
        self.embed = EqualLinear(classes, w_dim) if classes else None
        sizes = [z_dim + (w_dim if classes else 0), *[w_dim] * layers]
        self.layers = nn.ModuleList(
            EqualLinear(i, o, rate=MAPPING_RATE) for i, o in itertools.pairwise(sizes)
        )
        self.register_buffer("mean", torch.zeros(w_dim))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z: [N, z_dim] -> [N, w_dim]. labels: [N] int64, for a class-conditional network."""
        x = _unit(z)
        if self.embed is not None:
            assert labels is not None, "a class-conditional generator needs labels"
            classes = self.embed.weight.shape[1]
            x = torch.cat([x, _unit(self.embed(F.one_hot(labels, classes).to(x.dtype)))], dim=1)
        for layer in self.layers:
            x = scaled_leaky_relu(layer(x))
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean(dim=0), 1 - MEAN_DECAY)
        return x


class StyleGAN2(nn.Module):
    """Latents to images, 32 to 1024 px.

    Args:
        z_dim, w_dim: lengths of the latent and of the style vector.
        mapping_layers: fully connected layers between them.
        resolution: pixels of the images, a power of two.
        width: channel multiplier; 64 gives 512 channels up to 64 px.
        classes: 0 = unconditional.
        mixing: share of training images whose later layers have another latent's style.
        bounded: pass the images through tanh.
        fmaps: factor on channels below their maximum.
    """

    def __init__(self, z_dim: int, w_dim: int, mapping_layers: int, resolution: int, width: int,
                 classes: int = 0, mixing: float = 0.0, bounded: bool = False,
                 fmaps: float = 1.0):  # fmt: skip
        super().__init__()
        self.z_dim, self.w_dim, self.mixing = z_dim, w_dim, mixing
        self.resolution, self.classes, self.bounded = resolution, classes, bounded
        self.mapping = Mapping(z_dim, w_dim, mapping_layers, classes)
        if classes:  # how often each is drawn; training sets it to what the data have
            self.register_buffer("class_share", torch.full((classes,), 1 / classes))
        first = channels_at(4, width, fmaps)
        self.const = nn.Parameter(torch.randn(first, 4, 4))
        self.convs = nn.ModuleList([StyledConv(first, first, w_dim, part=8, up=False)])
        self.to_rgb = nn.ModuleList([ToRGB(first, w_dim)])
        r = 8
        while r <= resolution:
            before, here = (channels_at(size, width, fmaps) for size in (r // 2, r))
            self.convs.append(StyledConv(before, here, w_dim, part=2 * r, up=True))
            self.convs.append(StyledConv(here, here, w_dim, part=2 * r + 1, up=False))
            self.to_rgb.append(ToRGB(here, w_dim))
            r *= 2

    def styles(self, z: Tensor, noise: Coordinates, labels: Tensor | None = None) -> Tensor:
        """[N, z_dim] -> [N, w_dim], or [N, layers, w_dim] where styles are mixed in training."""
        w: Tensor = self.mapping(z, labels)
        if not (self.training and self.mixing):
            return w
        other = self.mapping(noise.normal(self.z_dim, part=1), labels)
        u = noise.uniform(2, part=2)
        layers = len(self.convs)
        start = 1 + (u[:, 1] * (layers - 1)).long()  # the first layer of the other style
        start = torch.where(u[:, 0] < self.mixing, start, layers)
        first = torch.arange(layers, device=z.device)[None, :] < start[:, None]
        return torch.where(first[:, :, None], w[:, None], other[:, None])

    def synthesis(self, w: Tensor, noise: Coordinates) -> Tensor:
        """w: [N, w_dim], or [N, layers, w_dim] with a style for each convolution -> images."""
        if w.ndim == 2:
            w = w[:, None].expand(-1, len(self.convs), -1)
        noise = noise.with_stream(Stream.NOISE + 256 * int(noise.stream))
        # No view: one that is made where no gradients are kept would still say that it has one.
        x = self.const[None].repeat(w.shape[0], 1, 1, 1)
        x = self.convs[0](x, w[:, 0], noise)
        image = self.to_rgb[0](x, w[:, min(1, len(self.convs) - 1)], None)
        for level, rgb in enumerate(list(self.to_rgb)[1:]):
            at = 2 * level + 1
            x = self.convs[at](x, w[:, at], noise)
            x = self.convs[at + 1](x, w[:, at + 1], noise)
            image = rgb(x, w[:, min(at + 2, len(self.convs) - 1)], image)
        return torch.tanh(image) if self.bounded else image

    def forward(self, z: Tensor, noise: Coordinates, labels: Tensor | None = None,
                truncation: float = 1.0) -> Tensor:  # fmt: skip
        """z: [N, z_dim] float, standard normal -> [N, 3, R, R] float, about [-1, 1].

        Args:
            labels: [N] int64, for a class-conditional generator.
            truncation: pulls w towards its mean; 1 = as trained, 0 = the mean image.
        """
        w = self.styles(z, noise, labels)
        if truncation != 1.0:
            w = self.mapping.mean.lerp(w, truncation)
        return self.synthesis(w, noise)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def stylegan2(cfg: Config) -> nn.Module:
    g = cfg.generator
    return StyleGAN2(
        g.z_dim, g.w_dim, g.mapping_layers, cfg.data.resolution, g.width,
        mixing=g.style_mixing, bounded=g.output == "tanh", classes=cfg.data.classes,
        fmaps=g.fmaps,
    )  # fmt: skip
