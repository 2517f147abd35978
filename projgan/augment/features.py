"""What a discriminator is denied or shown falsely, so that it learns less of few images by heart.

Of the projected maps some levels or channels are left out for a step, the same for real and fake
images, and noise is added to them. All of it follows from the run's seed and the number of the step
or image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from projgan import config
from projgan.rng import Coordinates, Stream

_LEVELS, _CHANNELS = 1, 16  # parts of the stream; each level has channels of its own


def disturb(
    maps: list[Tensor],
    cfg: config.Projection,
    seed: int,
    number: int,
    noise: Coordinates,
) -> list[Tensor]:
    """Maps with channels left out and noise added.

    Args:
        maps: [N, C_l, H_l, W_l].
        seed, number: of the run and of the step: the channels are the same throughout a step.
        noise: coordinates of the images.
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
            drawn = noise.normal(x[0].numel(), _CHANNELS + level).view(x.shape)
            scale = x.detach().float().std() * cfg.noise
            x = x + (scale * drawn).to(x.dtype)
        out.append(x)
    return out


def level_weights(
    cfg: config.Projection, seed: int, number: int, count: int, device: torch.device
) -> Tensor | None:
    """What each discriminator's loss counts for in a step; None = all alike.

    Left out are those whose draw lies below `drop_levels`; were it all of them, the one with the
    largest draw stays. Those that stay count for as much as all of them would.

    Returns:
        [count], with a sum of `count`.
    """
    if not cfg.drop_levels:
        return None
    drawn = _step(seed, number, device).uniform(count, _LEVELS)[0]
    kept = (drawn >= cfg.drop_levels) | (drawn == drawn.max())
    return kept * (count / kept.sum())


def _step(seed: int, number: int, device: torch.device) -> Coordinates:
    return Coordinates(seed, Stream.DISTURB, torch.full((1,), number, device=device))
