"""Augmentation of projected features: dropout of channels and levels, and noise.

It keeps a discriminator from memorising a small training set. Channels and levels are dropped for a
whole step, the same for real and fake images; noise is drawn for each image. All of it follows from
the run's seed and the number of the step or image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from projgan import config
from projgan.rng import Coordinates, Stream

_LEVELS, _CHANNELS = 1, 16  # parts of the stream; each level has channels of its own


def augment_features(
    maps: list[Tensor],
    cfg: config.Projection,
    seed: int,
    number: int,
    noise: Coordinates,
) -> list[Tensor]:
    """Return projected maps with channels dropped and noise added.

    Args:
        maps: [N, C_l, H_l, W_l] float, one for each level.
        cfg: `drop_channels`, the probability of dropping a channel, and `noise`, in standard
            deviations of a map.
        seed, number: of the run and of the step; the channels are the same throughout a step.
        noise: coordinates of the images [N].
    """
    if not (cfg.drop_channels or cfg.noise):
        return maps
    step = _step(seed, number, maps[0].device)
    out = []
    for level, x in enumerate(maps):
        if cfg.drop_channels:
            kept = step.uniform(x.shape[1], _CHANNELS + level)[0] >= cfg.drop_channels
            share = kept.float().mean().clamp(min=1 / x.shape[1])
            x = x * (kept / share).to(x.dtype)[None, :, None, None]
        if cfg.noise:
            added = noise.normal(x[0].numel(), _CHANNELS + level).view(x.shape)
            scale = x.detach().float().std() * cfg.noise
            x = x + (scale * added).to(x.dtype)
        out.append(x)
    return out


def level_weights(
    cfg: config.Projection, seed: int, number: int, count: int, device: torch.device
) -> Tensor | None:
    """Return the weight of each discriminator's loss in a step; None = all alike.

    A level is dropped when its random number lies below `drop_levels`; were it all of them, the one
    with the largest number stays. Those that stay weigh as much as all of them would.

    Returns:
        [count] float, with a sum of `count`.
    """
    if not cfg.drop_levels:
        return None
    chance = _step(seed, number, device).uniform(count, _LEVELS)[0]
    kept = (chance >= cfg.drop_levels) | (chance == chance.max())
    return kept * (count / kept.sum())


def _step(seed: int, number: int, device: torch.device) -> Coordinates:
    return Coordinates(seed, Stream.FEATURE_DROPOUT, torch.full((1,), number, device=device))
