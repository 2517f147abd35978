"""DiffAugment (Zhao et al., NeurIPS 2020): differentiable, the same kind on real and fake images.

Ranges as in the published policy: brightness +-0.5, saturation 0-2, contrast 0.5-1.5, translation
up to 1/8 of the image with zero padding, cutout of a square of 1/5 of the image's side. Each is
drawn per image from the sample's coordinates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from projgan.rng import Coordinates


def color(x: Tensor, where: Coordinates) -> Tensor:
    """Brightness, then saturation about the pixel's grey, then contrast about the image's mean."""
    brightness, saturation, contrast = where.uniform(3, part=1)[:, :, None, None, None].unbind(1)
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translation(x: Tensor, where: Coordinates, ratio: float = 0.125) -> Tensor:
    """Shifts by whole pixels, up to `ratio` of the size each way; black comes in as zeros."""
    size = x.shape[-1]
    reach = int(size * ratio + 0.5)
    shift = (where.uniform(2, part=2) * (2 * reach + 1)).long()  # [N, 2] in 0..2*reach
    padded = F.pad(x, (reach, reach, reach, reach))
    steps = torch.arange(size, device=x.device)
    rows = (shift[:, :1] + steps)[:, None, :, None]
    columns = (shift[:, 1:] + steps)[:, None, None, :]
    batch = torch.arange(x.shape[0], device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[batch, channel, rows, columns]


def cutout(x: Tensor, where: Coordinates, ratio: float = 0.2) -> Tensor:
    """Sets a square of `ratio` of the size to zero; its centre lies anywhere in the image."""
    size = x.shape[-1]
    side = int(size * ratio + 0.5)
    start = (where.uniform(2, part=3) * (size + 1 - side % 2)).long() - side // 2  # [N, 2]
    steps = torch.arange(size, device=x.device)
    rows = (steps >= start[:, :1]) & (steps < start[:, :1] + side)
    columns = (steps >= start[:, 1:]) & (steps < start[:, 1:] + side)
    keep = ~(rows[:, None, :, None] & columns[:, None, None, :])
    return x * keep.to(x.dtype)


AUGMENTATIONS: dict[str, Callable[[Tensor, Coordinates], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augment(images: Tensor, policy: str, where: Coordinates) -> Tensor:
    """Applies a policy.

    Args:
        images: [N, 3, R, R] float, about [-1, 1].
        policy: names from AUGMENTATIONS, comma separated; "" changes nothing.
        where: coordinates of the samples.
    """
    for name in filter(None, policy.split(",")):
        images = AUGMENTATIONS[name](images, where)
    return images


def blur(images: Tensor, sigma: float) -> Tensor:
    """Images [N, C, H, W] after the filter 2^-(x / sigma)^2 in both directions, zeros around them.

    It reaches `floor(3 sigma)` pixels; where that is none, the images are returned as they are. The
    blur of the discriminator's images at the start of training (StyleGAN-XL,
    https://arxiv.org/abs/2202.00273, Section 3.2; the filter is that of its released code).
    """
    reach = int(3 * sigma)
    if reach < 1:
        return images
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp2(-(at / sigma).square())
    channels = images.shape[1]
    line = (taps / taps.sum()).expand(channels, 1, 1, -1)
    images = F.conv2d(images, line, padding=(0, reach), groups=channels)
    return F.conv2d(images, line.transpose(2, 3), padding=(reach, 0), groups=channels)
