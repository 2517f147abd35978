"""Class-conditional training: classes of generated images, and conditional discriminators.

The generator gets an embedding of the class beside the latent; the discriminators end in a vector
for each place, which is projected onto an embedding of the class (Miyato and Koyama, ICLR 2018).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from projgan.data.dataset import Dataset
from projgan.errors import ConfigError
from projgan.rng import Coordinates

_PART = 4  # of a latent's stream: latent, mixing, path noise have others


def labels_for(generator: nn.Module, where: Coordinates) -> Tensor | None:
    """Return classes [N] int64 for the samples at `where`, as frequent as in the data.

    None = the generator is not conditional.
    """
    shares = getattr(generator, "class_share", None)
    if shares is None:
        return None
    u = where.uniform(1, _PART)
    return (u >= shares.cumsum(0)[None, :-1]).sum(dim=1)


def class_count(generator: nn.Module) -> int:
    """Return the number of classes that a generator was trained with; 0 = none."""
    shares = getattr(generator, "class_share", None)
    return 0 if shares is None else len(shares)


def labels_or(generator: nn.Module, where: Coordinates, label: int | None) -> Tensor | None:
    """Return classes as `labels_for` does, or the class `label` for every sample at `where`.

    Raises:
        ConfigError: the generator has no such class, or none at all.
    """
    if label is None:
        return labels_for(generator, where)
    known = class_count(generator)
    if not known:
        raise ConfigError(f"class={label}: the generator was trained without classes; leave class=")
    if not 0 <= label < known:
        raise ConfigError(f"class={label}: the generator has classes 0 to {known - 1}")
    return torch.full((len(where.index),), label, dtype=torch.int64, device=where.index.device)


def class_frequencies(
    dataset: Dataset, chosen: np.ndarray, classes: int
) -> tuple[Tensor, np.ndarray]:
    """Return how often each class is among the training images, and their classes.

    Args:
        chosen: [n] int64, indices of the training images in the data set.

    Returns:
        [classes] float32 with a sum of 1, and [n] int64.
    """
    assert dataset.labels is not None  # as projgan.data.dataset.check_data has seen
    labels = dataset.labels[chosen]
    counts = torch.from_numpy(np.bincount(labels, minlength=classes)).float()
    return counts / counts.sum(), labels


class ConditionalHeads(nn.Module):
    """Discriminators whose outputs [N, cmap, h, w] are projected onto the class: [N, 1, h, w]."""

    def __init__(self, heads: nn.Module, classes: int, cmap: int):
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(classes, cmap)
        self.scale = 1 / math.sqrt(cmap)

    def forward(self, maps: list[Tensor] | Tensor, labels: Tensor) -> list[Tensor]:
        found = self.heads(maps)
        each = self.embed(labels)
        each = each * torch.rsqrt(each.square().mean(dim=1, keepdim=True) + 1e-8)
        each = each[:, :, None, None] * self.scale
        outputs: list[Tensor] = found if isinstance(found, list) else [found]
        return [(x * each.to(x.dtype)).sum(dim=1, keepdim=True) for x in outputs]
