"""One training loop for all: the same images seen, batch and schedule for every network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from projgan.pretrain.objectives import Objective
from projgan.pretrain.pictures import as_input

WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Budget:
    """Training budget of a network, the same whatever its size and family."""

    steps: int = 2000
    batch: int = 64
    train_images: int = 24_000
    held_out_images: int = 2_000


def order(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Indices [batch] of one shuffle after another."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < batch:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        yield rest[:batch]
        rest = rest[batch:]


def fit(
    objective: Objective,
    images: NDArray[np.uint8],
    budget: Budget,
    seed: int,
    bf16: bool = False,
    say: Callable[[str], None] = print,
) -> list[float]:
    """Trains the objective's modules in place; returns the loss of every step.

    AdamW, warm-up over the first twentieth, then a cosine to zero; gradients clipped at norm 1.
    """
    modules = objective.modules.train().to(memory_format=torch.channels_last)
    decayed = [p for p in modules.parameters() if p.ndim > 1]
    others = [p for p in modules.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=objective.lr, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    started = time.monotonic()

    batches = order(len(images), budget.batch, seed)
    for step in range(budget.steps):
        index = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = objective.lr * _schedule(step, budget.steps)
        batch = as_input(images[index.numpy()])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective.loss(batch, index, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % max(1, budget.steps // 10) == 0:
            recent = losses[-max(1, budget.steps // 10) :]
            spent = time.monotonic() - started
            say(f"  step {step + 1}/{budget.steps}  loss {np.mean(recent):.3f}  {spent:.0f} s")
    modules.eval()
    return losses


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
