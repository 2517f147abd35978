"""The order in which a metric takes some of the images: that of a hash of their pixels.

So neither the names of files nor their order decide what is compared, on either side. Images with
the same pixels are counted: the second of a kind has another number than the first, so that a
generator that repeats itself is taken a share of its repetitions, and not of all or none of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.metrics.statistics import on_host

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.metrics.extractors import Images

Keys = NDArray[np.uint64]

_WEIGHTS_KEY = 20211101  # of the weights of pixels; one for all, so that everybody orders alike
_AT_ONCE = 2**24  # pixels that are weighted at a time: eight bytes each


class ContentOrder:
    """Numbers images by their content, and equal ones by how many there were before."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, images: Images | Sequence[Images] | Tensor) -> Keys:
        """Keys [N], evenly spread over 64 bits: the smallest come first.

        Args:
            images: [N, 3, H, W] uint8, or N arrays [3, H, W] of any sizes. Of images on a GPU the
                sums alone are read.
        """
        alike = [images] if not isinstance(images, Sequence) else [image[None] for image in images]
        names = [f"{tuple(one.shape[1:])} {s}" for one in alike for s in _weighted_sums(one)]
        keys = np.empty(len(names), np.uint64)
        for i, name in enumerate(names):
            text = f"{name} {self._seen[name]}".encode()
            keys[i] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
            self._seen[name] += 1
        return keys


def _weighted_sums(images: Images | Tensor) -> list[int]:
    """Sums of the pixels of each image, times fixed random odd numbers, modulo 2^64.

    Two images that differ have the same sum with a chance of about 2^-56. Whole numbers: each kind
    of device gives the same.
    """
    import torch

    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images))  # a copy: memory maps cannot be written
    pixels = images.flatten(1)
    weights = _weights(pixels.shape[1], pixels.device)
    parts = pixels.split(max(1, _AT_ONCE // pixels.shape[1]))
    found: list[int] = torch.cat([(part.long() * weights).sum(1) for part in parts]).tolist()
    return found


@lru_cache(maxsize=8)
def _weights(count: int, device: torch.device) -> Tensor:
    import torch

    raw = np.random.Philox(key=_WEIGHTS_KEY).random_raw(count) | np.uint64(1)
    return torch.from_numpy(raw.view(np.int64)).to(device)


class First:
    """Holds the features of the images that come first."""

    def __init__(self, limit: int | None) -> None:
        """
        Args:
            limit: of how many images. None = of all.
        """
        self._limit = limit
        self._last = np.iinfo(np.uint64).max  # what comes after it is not among the first
        self._keys: list[Keys] = []
        self._features: list[NDArray[np.float32]] = []

    def add(self, features: NDArray[np.float32] | Tensor, keys: Keys) -> None:
        """Adds features [B, ...] of images with `keys` [B]; what is held comes to the host."""
        if self._limit == 0:
            return
        at = np.flatnonzero(keys <= self._last)
        if len(at):
            self._keys.append(keys[at])
            self._features.append(on_host(features if len(at) == len(keys) else features[at]))
        if self._limit and sum(map(len, self._keys)) > 1.25 * self._limit:
            self._cut()

    def _cut(self) -> None:
        keys = np.concatenate(self._keys)
        features = np.concatenate(self._features)
        first = np.argsort(keys)[: self._limit]
        self._keys, self._features = [keys[first]], [features[first]]
        if self._limit and len(first) == self._limit:
            self._last = keys[first[-1]]

    def ordered(self) -> NDArray[np.float32] | None:
        """Features [K, ...] in the order of their keys; None = there are none."""
        if not self._keys:
            return None
        self._cut()
        return self._features[0]
