"""The resizes of metrics' networks, as their authors or published tools have them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def quiet() -> Iterator[None]:
    """Silences clean-fid, whose imports and constructors warn of moved names and change filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cleanfid_resizer(
    library: str, kernel: str, size: int, in_8_bits: bool = False
) -> Callable[[Tensor], Tensor]:
    """clean-fid's resize to a square: [B, 3, H, W] uint8 -> [B, 3, size, size] float, 0 to 255.

    Args:
        library: "PIL", with antialiasing, or "PyTorch", without.
        kernel: such as "bicubic".
        in_8_bits: whole images in 8 bits; else each channel as float.
    """
    import torch

    with quiet():
        from cleanfid.resize import make_resizer

        resize = make_resizer(library, in_8_bits, kernel, (size, size))
    threads = ThreadPoolExecutor()  # Pillow lets others run while it resizes

    def resized(images: Tensor) -> Tensor:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
        shown = np.stack(list(threads.map(resize, pixels))).transpose(0, 3, 1, 2)
        return torch.from_numpy(shown).to(images.device).float()

    return resized


def tensorflow_bilinear(images: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize: output i lies at input i * H / size; no antialiasing."""
    import torch

    for axis in (2, 3):
        length = images.shape[axis]
        if length == size:
            continue
        place = torch.arange(size, device=images.device, dtype=images.dtype) * (length / size)
        low = place.floor().long()
        high = (low + 1).clamp(max=length - 1)
        share = (place - low).view(-1, 1) if axis == 2 else (place - low)
        below, above = images.index_select(axis, low), images.index_select(axis, high)
        images = below + (above - below) * share
    return images
