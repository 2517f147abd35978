"""Moving average of the generator's weights, with a half-life counted in images."""

from __future__ import annotations

import torch
from torch import nn


def ema_beta(nimg: int, batch: int, half_life_kimg: float, rampup: float | None) -> float:
    """Share of the old average that is kept after a batch.

    The half-life is `half_life_kimg`, but at most `rampup` of the images shown so far, so that the
    average forgets the untrained generator quickly; with `rampup` None there is no such bound.
    """
    half_life = half_life_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, max(nimg, 1) * rampup)
    return float(0.5 ** (batch / max(half_life, 1e-8)))


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, beta: float, together: bool = True) -> None:
    """Moves `average` towards `model`: parameters are blended, buffers are copied.

    Args:
        together: one operator over all weights instead of one for each.
    """
    targets: list[torch.Tensor] = list(average.parameters())
    sources: list[torch.Tensor] = list(model.parameters())
    if together:
        torch._foreach_lerp_(targets, sources, 1 - beta)
    else:
        for target, source in zip(targets, sources, strict=True):
            target.lerp_(source, 1 - beta)
    for target, source in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(source)
