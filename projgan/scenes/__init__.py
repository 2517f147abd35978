"""Rendered scenes after CLEVR: images, labels and captions from (name, seed, index) alone.

"clevr" is the data set of the GANs at lab scale: one to four spheres, cubes and cylinders in
CLEVR's eight colours on a grey floor (Johnson et al. 2017 describe the original). "pretrain" is
wider and labelled, for pretraining feature networks: six shapes, patterned and coloured floors,
and cameras and lights from all sides. Its class is the main object's colour and shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from projgan.errors import UserError
from projgan.scenes.layout import check_name, draw
from projgan.scenes.tracer import trace
from projgan.scenes.words import CLASSES, caption, label

__all__ = ["CLASSES", "VERSION", "captions", "labels", "render"]

VERSION = 1  # raised whenever any pixel, label or caption changes; part of caches' fingerprints

RESOLUTIONS = (32, 64, 128, 256)

Indices = Sequence[int] | NDArray[np.integer]


def render(name: str, seed: int, indices: Indices, resolution: int) -> NDArray[np.uint8]:
    """Renders images; image i is the same to the byte whatever else is rendered with it.

    Args:
        name: "clevr" or "pretrain".
        seed: images of different seeds have nothing in common.
        indices: which images, each at least 0, in any order.
        resolution: 32, 64, 128 or 256 pixels.

    Returns:
        uint8 [N, 3, resolution, resolution]. Uses as many threads as torch does.
    """
    import torch  # only to ask for the number of threads

    check_name(name)
    if resolution not in RESOLUTIONS:
        raise UserError(
            f"Scenes cannot be rendered at resolution {resolution}; choose one of"
            f" {', '.join(map(str, RESOLUTIONS))}"
        )
    return trace(draw(name, seed, indices), resolution, torch.get_num_threads())


def labels(name: str, seed: int, indices: Indices) -> NDArray[np.int64]:
    """Class numbers, int64 [N], into CLASSES[name]."""
    return label(name, draw(name, seed, indices))


def captions(name: str, seed: int, indices: Indices) -> list[str]:
    """One English sentence per image, such as "a large shiny red cone on a gray floor"."""
    scenes = draw(name, seed, indices)
    return [caption(scenes, n) for n in range(len(scenes))]
