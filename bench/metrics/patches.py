"""Sliced Wasserstein distance on patches of a Laplacian pyramid: a metric without a network.

After Karras et al. (ICLR 2018), Section 5 and Appendix: 7x7 patches of every level of the pyramid
down to 16 px, each colour channel normalised over all patches of its set, and the 1-Wasserstein
distance of their projections onto random directions. Coarse levels tell of layout and colour, the
finest of texture. Their 16384 images with 128 patches each are 4096 with 16 here: images differ
more than the patches of one.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.metrics.extractors import PROTOCOL, Extractor, Source
from bench.metrics.statistics import SEED, Estimate, Features, Parts, equally_many
from projgan.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

PER_IMAGE = 16  # patches of an image on every level
SIDE = 7  # of a patch, px
SMALLEST = 16  # px of the coarsest level
DIRECTIONS = 512
_AT_ONCE = 64  # directions projected on at a time

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def load_patches(source: Source) -> Extractor:
    """Patches [B, 16, 147] of each pyramid level, named by its size; colours in 0 to 255."""
    size = source.resolution
    if size < SIDE:
        raise ConfigError(f"swd needs images of {SIDE} px or more, not {size}")
    identity = f"patches-{size}-{PER_IMAGE}-{SIDE}-{SMALLEST}-{PROTOCOL}"

    def forward(images: Tensor) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional as F

        shown = images.float()
        if images.shape[-2:] != (size, size):
            shown = F.interpolate(shown, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
        outputs = {}
        for level in laplacian_pyramid(shown):
            side = level.shape[-1]
            windows = level.unfold(2, SIDE, 1).unfold(3, SIDE, 1)  # [B, 3, Y, X, 7, 7]
            # Places follow from the image itself: neither order nor batch moves them.
            keys = [zlib.crc32(image.cpu().numpy().tobytes(), side) for image in images]
            places = np.stack([_places(key, windows.shape[2], windows.shape[3]) for key in keys])
            at = torch.from_numpy(places).to(level.device)
            of = torch.arange(len(images), device=level.device)[:, None]
            chosen = windows[of, :, at[:, 0], at[:, 1]]  # [B, P, 3, 7, 7]
            outputs[str(side)] = chosen.flatten(2)
        return outputs

    return Extractor(identity, source.device, forward)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Band-pass levels [B, 3, H / 2^l, W / 2^l], the finest first; they sum up to the images.

    Burt and Adelson (1983), with the binomial filter and mirrored borders.
    """
    levels = []
    while min(images.shape[-2:]) >= 2 * SMALLEST:
        smaller = _blur(images)[..., ::2, ::2]
        levels.append(images - _enlarge(smaller, images.shape))
        images = smaller
    return [*levels, images]


def _blur(images: Tensor) -> Tensor:
    import torch
    from torch.nn import functional as F

    channels = images.shape[1]
    row = torch.tensor(_BINOMIAL, dtype=images.dtype, device=images.device)
    kernel = torch.outer(row, row).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def _enlarge(smaller: Tensor, shape: tuple[int, ...]) -> Tensor:
    sparse = smaller.new_zeros(shape)
    sparse[..., ::2, ::2] = smaller
    return 4 * _blur(sparse)


def _places(key: int, rows: int, columns: int) -> NDArray[np.int64]:
    """[2, PER_IMAGE]: where the patches of one image begin."""
    rng = np.random.Generator(np.random.Philox(key=key))
    return np.stack([rng.integers(rows, size=PER_IMAGE), rng.integers(columns, size=PER_IMAGE)])


def compare(real: Features, fake: Features, certified: bool) -> Parts:
    """SWD x1000 of one level, of as many images on each side."""
    x, y = equally_many(real, fake)
    return {"": Estimate(1000.0 * patches_to_distance(x, y, seed=SEED), used=len(x))}


def patches_to_distance(
    real: NDArray[np.float32], fake: NDArray[np.float32], *, seed: int
) -> float:
    """Sliced Wasserstein distance of two sets of patches of one level.

    Args:
        real, fake: patches [K, P, 147] of as many images each.
        seed: of the directions.
    """
    if len(real) == 0:
        raise ValueError("there are no patches to compare")
    x, y = _normalised(real), _normalised(fake)
    directions = np.random.default_rng(seed).normal(size=(DIRECTIONS, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, DIRECTIONS, _AT_ONCE):
        along = directions[start : start + _AT_ONCE].astype(np.float32)
        a, b = (np.sort(along @ side.T, axis=1) for side in (x, y))
        total += float(np.abs(a - b).mean(axis=1, dtype=np.float64).sum())
    return total / DIRECTIONS


def _normalised(kept: NDArray[np.float32]) -> NDArray[np.float32]:
    """[K, P, 147] -> [K P, 147], each colour with mean 0 and deviation 1 over all patches."""
    colours = kept.reshape(-1, 3, SIDE * SIDE)
    mean = colours.mean(axis=(0, 2), dtype=np.float64)[:, None]
    deviation = colours.std(axis=(0, 2), dtype=np.float64)[:, None]
    # Below a thousandth of a grey level there is rounding alone.
    scaled = (colours - mean) / np.maximum(deviation, 1e-3)
    flat: NDArray[np.float32] = scaled.astype(np.float32).reshape(len(colours), -1)
    return flat
