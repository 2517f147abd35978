"""Learning by heart: is the discriminator surer of training images, are they copied?

Both compare the images that were trained on with as many that were held out (those that follow in
the subsets' order), so that only having been trained on tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.metrics.extractors import BATCH, Extractor, Images
from projgan.classes import ConditionalHeads
from projgan.config import Data
from projgan.data.dataset import Dataset, subset_order

LIMIT = 2000  # images of each kind that are looked at, at most
NO_HELD_OUT = "no images are held out: data.subset is the whole data set"

Logits = NDArray[np.float64]  # [N, discriminators]


def split(cfg: Data, dataset: Dataset, limit: int = LIMIT) -> tuple[Images, Images] | None:
    """Return as many training images as held-out ones; None = nothing is held out.

    Returns:
        Two arrays [N, 3, R, R] uint8.
    """
    total = len(dataset.images)
    if cfg.subset is None or cfg.subset >= total:
        return None
    order = subset_order(total, dataset.order)
    count = min(cfg.subset, total - cfg.subset, limit)
    trained, held = order[:count], order[cfg.subset : cfg.subset + count]
    return np.asarray(dataset.images[trained]), np.asarray(dataset.images[held])


def logit_gap(trained: Logits, held: Logits) -> float:
    """Return how much surer the discriminators are of training images than of held-out ones.

    Args:
        trained, held: [N, discriminators], the mean logit of each image.

    Returns:
        Difference of the means over the held-out images' standard deviation, averaged over the
        discriminators: 0 where nothing was learned by heart.
    """
    spread = held.std(axis=0)
    gaps = (trained.mean(axis=0) - held.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return float(gaps.mean())


def memorised(
    fake: NDArray[np.float32], trained: NDArray[np.float32], held: NDArray[np.float32]
) -> float:
    """Share of generated images that are nearer to a training image than to any held-out one.

    Args:
        fake: [M, D] features.
        trained, held: [N, D], equally many, so that chance alone gives a half.

    Returns:
        Per cent: 50 = training images are no nearer than others, 100 = all are copies.
    """
    nearest = [_nearest(fake, real) for real in (trained, held)]
    closer = (nearest[0] < nearest[1]).mean() + 0.5 * (nearest[0] == nearest[1]).mean()
    return float(100.0 * closer)


def _nearest(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distance [len(a)] of each row of a to its nearest row of b."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    origin = y.mean(axis=0)  # distances do not change, rounding shrinks
    x, y = x - origin, y - origin
    norms = (y**2).sum(axis=1)
    out = np.empty(len(x))
    for start in range(0, len(x), BATCH):
        rows = x[start : start + BATCH]
        squares = (rows**2).sum(axis=1)[:, None] - 2 * rows @ y.T + norms
        out[start : start + BATCH] = squares.min(axis=1)
    return out


@torch.no_grad()
def mean_logits(discriminator: Any, images: Images, device: torch.device) -> Logits:
    """The mean logit of each image from each discriminator, in eval mode; training sees nothing.

    Returns:
        [N, discriminators].
    """
    modes = [(module, module.training) for module in discriminator.modules()]
    discriminator.eval()
    try:
        rows = []
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).to(device).float() / 127.5 - 1
            logits: list[Tensor] = discriminator(batch)
            rows.append(torch.stack([x.float().mean(dim=(1, 2, 3)) for x in logits], dim=1))
        return torch.cat(rows).double().cpu().numpy()
    finally:
        for module, mode in modes:
            module.training = mode


def features(extractor: Extractor, images: Images) -> NDArray[np.float32]:
    """[N, D] of an extractor's first output."""
    batches = range(0, len(images), BATCH)
    found = [next(iter(extractor(images[at : at + BATCH]).values())) for at in batches]
    return np.concatenate(found)


class TrainingSet:
    """Measures a run's snapshots against its training and held-out images.

    Args:
        cfg, dataset: what is trained on.
        extractor: gives the network whose features tell near from far.
        device: where the discriminator is.
    """

    def __init__(
        self,
        cfg: Data,
        dataset: Dataset,
        extractor: Callable[[], Extractor],
        device: torch.device,
    ):
        self._split = split(cfg, dataset)
        self._extractor, self._device = extractor, device
        self._features: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def measure(
        self, keys: list[str], fake: Callable[[int], Images], discriminator: Any | None
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Values by metric key, and why others are missing.

        Args:
            keys: `logit_gap`, `memorised` or both.
            fake: so many generated images [N, 3, R, R] uint8.
            discriminator: that of the snapshot. None = it was not kept.
        """
        if self._split is None:
            return {}, dict.fromkeys(keys, NO_HELD_OUT)
        values: dict[str, float] = {}
        missing: dict[str, str] = {}
        if "logit_gap" in keys:
            if discriminator is not None and isinstance(discriminator.heads, ConditionalHeads):
                missing["logit_gap"] = "not measured of class-conditional discriminators"
            elif discriminator is None:
                missing["logit_gap"] = "the discriminator of a kept snapshot is gone"
            else:
                sides = [mean_logits(discriminator, x, self._device) for x in self._split]
                values["logit_gap"] = logit_gap(*sides)
        if "memorised" in keys:
            extractor = self._extractor()
            if self._features is None:
                trained, held = (features(extractor, x) for x in self._split)
                self._features = trained, held
            values["memorised"] = memorised(features(extractor, fake(LIMIT)), *self._features)
        return values, missing
