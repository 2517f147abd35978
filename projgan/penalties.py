"""Regularisers added to the losses: R1 and R2 on the discriminators, path length on G.

Each is computed on one step in several and weighs as much as all of them (lazy regularisation,
Karras et al., CVPR 2020, Section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from projgan import config
from projgan.classes import labels_for
from projgan.generators.stylegan2 import StyleGAN2
from projgan.losses import path_lengths
from projgan.parallel import World
from projgan.rng import Coordinates

MEAN_STEP = 0.01  # of the running mean of path lengths
SHRINK = 2  # path lengths are measured on one image in so many


def due(weight: float, every: int, number: int) -> bool:
    """Return whether a regulariser of this weight is computed on step `number`."""
    return weight > 0 and number % every == 0


class PathLength:
    """Keeps the lengths of steps in image space near their running mean."""

    def __init__(self, cfg: config.Generator, device: torch.device) -> None:
        self.cfg = cfg
        self.mean = torch.zeros((), device=device)

    def penalty(self, generator: StyleGAN2, where: Coordinates, world: World) -> Tensor:
        """The penalty on a part of the batch at `where`, weighed for all steps without it."""
        count = max(1, len(where.index) // SHRINK)
        where = Coordinates(where.seed, where.stream, where.index[:count])
        w = generator.styles(where.normal(generator.z_dim), where, labels_for(generator, where))
        images = generator.synthesis(w, where)
        # Another part of the samples' stream than latent, mixing and noise.
        noise = where.normal(images[0].numel(), part=3).view_as(images)
        lengths = path_lengths(images, w, noise)
        mean = self.mean.lerp(world.average(lengths.detach().mean(), ()), MEAN_STEP)
        self.mean = mean.detach()
        weight = self.cfg.path_length * self.cfg.path_length_every
        return (lengths - mean).square().mean() * weight
