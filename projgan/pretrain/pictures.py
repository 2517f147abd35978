"""The rendered images that lab networks learn from, cached as one array, and their augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from projgan import scenes
from projgan.backbones.lab import SIZE
from projgan.files import replacing

RESOLUTION = 32  # pixels that images are rendered at, as the GANs of the lab scale see them
# Seeds of the scenes. GANs train on seed 0, so that no backbone and no extractor sees their images.
TRAIN, HELD_OUT, EXTRACTOR = 1001, 1002, 2001


def rendered(
    folder: Path, name: str, seed: int, count: int, say: Callable[[str], None] = print
) -> NDArray[np.uint8]:
    """Images 0..count-1 of a scene, uint8 [count, 3, 32, 32], rendered on first use."""
    probe = scenes.render(name, seed, range(4), RESOLUTION).tobytes()
    mark = hashlib.sha256(probe).hexdigest()[:8]  # another renderer, another file
    path = folder / f"pretraining-{name}-s{seed}-{count}-{RESOLUTION}px-{mark}.npy"
    shape = (count, 3, RESOLUTION, RESOLUTION)
    images = _read(path)
    if images is None or images.shape != shape:
        if path.exists():
            say(f"{path} is damaged; making it again")
        say(f"rendering {count} images of {name}, seed {seed}")
        parts = [
            scenes.render(name, seed, range(i, min(i + 1000, count)), RESOLUTION)
            for i in range(0, count, 1000)
        ]
        images = np.concatenate(parts)
        with replacing(path) as file:
            np.save(file, images)
    return images


def _read(path: Path) -> NDArray[np.uint8] | None:
    """The array of a file; None = there is none, or it is damaged."""
    try:
        images: NDArray[np.uint8] = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return images


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, 3, H, W] to float32 in [-1, 1]."""
    return torch.from_numpy(images).float().div_(127.5).sub_(1.0)


def cropped(images: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """Random square crops and flips, shown at 64 px in one bilinear step.

    Args:
        images: [N, 3, R, R] in [-1, 1].
        smallest: side of the smallest crop, as a share of the image's.
        generator: where the random numbers come from.

    Returns:
        [N, 3, 64, 64] in [-1, 1].
    """
    n = len(images)
    u = torch.rand(4, n, generator=generator)
    side = smallest + (1 - smallest) * u[0]
    flip = (u[1] < 0.5).float() * 2 - 1
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = side * flip, side
    affine[:, 0, 2], affine[:, 1, 2] = (1 - side) * (2 * u[2] - 1), (1 - side) * (2 * u[3] - 1)
    grid = F.affine_grid(affine, [n, 3, SIZE, SIZE], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jittered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mild changes of brightness and tint, a grey square, and noise; colours stay what they are.

    Args:
        images: [N, 3, H, W] in [-1, 1].
    """
    n, _, height, width = images.shape
    u = torch.rand(5, n, 1, 1, 1, generator=generator)
    tint = torch.rand(n, 3, 1, 1, generator=generator)
    images = images * (0.85 + 0.3 * u[0]) + 0.3 * (u[1] - 0.5) + 0.1 * (tint - 0.5)
    images = images + 0.08 * u[2] * torch.randn(images.shape, generator=generator)
    side = 0.25 * height
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    hole = ((rows - u[3] * height).abs() < side / 2) & ((columns - u[4] * width).abs() < side / 2)
    return images.masked_fill(hole, 0.0)
