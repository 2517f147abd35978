"""Several processes that train one network on shares of each batch, as if they were one.

Each takes its share of the batch by the samples' global indices, so every random number is the one
that a single process would draw. Gradients are averaged, the statistics of batch norm are those of
the whole batch or of its groups, and what the first process decides holds for all. What is left is
the order of summation: training equals that of one process up to rounding. Without torchrun there
is one process and nothing of this happens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from projgan.errors import ConfigError

# The others wait for the first one while it measures; a dead one is noticed by torchrun.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and measures."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Which samples of a batch are this process's."""
        if batch % self.size:
            raise ConfigError(
                f"train.batch={batch} cannot be shared by {self.size} processes; "
                f"give a multiple of {self.size}"
            )
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Puts the mean of all processes' gradients into each; returns the mean of their losses."""
        if self.size == 1:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([loss.reshape(1), *(g.reshape(-1) for g in gradients)])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([1, *(g.numel() for g in gradients)])
        for gradient, mean in zip(gradients, parts[1:], strict=True):
            gradient.copy_(mean.view_as(gradient))
        return parts[0].reshape(())

    def broadcast(self, value: Any) -> Any:
        """The first process's value, in every process; a plain JSON value."""
        if self.size == 1:
            return value
        text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(text)])
        distributed.broadcast(length, 0)
        if not self.is_first:
            text = torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))


def world() -> World:
    """The processes that were joined; one alone where none were."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


def join() -> World:
    """Joins the processes that torchrun started together with this one; each takes a GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=_PATIENCE)
    return world()


class GroupedBatchNorm(nn.BatchNorm2d):
    """Batch norm over groups of a batch, whichever processes hold them.

    A group is `group` samples that follow each other by their global index, so that it is the same
    one on any number of processes and in micro-batches of whole groups. Running statistics move
    once for each group, in the samples' order, as if the groups came one after the other. For a
    cumulative average (momentum None), which is not training, neither groups nor other processes
    count.

    Attributes:
        group: samples that are normalised together. None = the whole batch.
        world: the processes that share the batch, equally many samples each.
    """

    group: int | None = None
    world: World = World()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of this process -> the same, each group normalised."""
        if not self.training or self.momentum is None:
            return super().forward(x)
        n, world = len(x), self.world
        total = n * world.size
        group = min(self.group or total, total)
        if world.size > 1 and n % group:
            return self._across(x, group, total // group)
        # Torch's own operator on each group: faster than one formula over all of them.
        parts = x.split(group)
        seen = torch.zeros(len(parts), 2, x.shape[1], device=x.device)  # means, unbiased variances
        out = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            for part, (mean, variance) in zip(parts, seen, strict=True)
        ]
        self._move_statistics(seen, world.rank * len(parts), world.size * len(parts))
        return out[0] if len(out) == 1 else torch.cat(out)

    def _across(self, x: Tensor, group: int, groups: int) -> Tensor:
        """Groups of which several processes have a part (torch's own operator is for GPUs).

        Mean and variance are summed one after the other, which keeps the digits that the difference
        of two large sums would lose.
        """
        n, c, pixels = len(x), x.shape[1], x.shape[2] * x.shape[3]
        at = torch.arange(n, device=x.device).add_(self.world.rank * n) // group

        def mean_of(values: Tensor) -> Tensor:
            """[n, C, H, W] -> [groups, C]."""
            own = values.new_zeros(groups, c).index_add(0, at, values.mean((2, 3)))
            return _sum(own) / group

        wide = x.float()
        mean = mean_of(wide)
        centred = wide - mean[at][:, :, None, None]
        var = mean_of(centred.square())
        unbiased = var * (group * pixels / (group * pixels - 1))
        self._move_statistics(torch.stack([mean, unbiased], dim=1), 0, groups)
        scale = (self.weight * torch.rsqrt(var + self.eps))[at]
        return (centred * scale[:, :, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _move_statistics(self, seen: Tensor, first: int, groups: int) -> None:
        """Moves the running statistics.

        Args:
            seen: [k, 2, C], mean and unbiased variance of the groups from `first` on.
            groups: of the whole batch; where k is fewer, other processes saw the others.
        """
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += groups
        age = groups - 1 - first - torch.arange(len(seen), device=seen.device)
        keep = (1 - self.momentum) ** groups
        weights = self.momentum * (1 - self.momentum) ** age
        moved = torch.einsum("k,ksc->sc", weights.to(seen), seen)
        if len(seen) < groups:
            distributed.all_reduce(moved)
        self.running_mean.mul_(keep).add_(moved[0])
        self.running_var.mul_(keep).add_(moved[1])


def group_batch_norm(module: nn.Module, group: int | None, world: World | None = None) -> None:
    """Has every BatchNorm2d inside normalise groups of a batch that processes share.

    Names, parameters and buffers stay the same; without groups and alone, nothing changes.
    """
    world = world or World()
    if group is None and world.size == 1:
        return
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.BatchNorm2d):
            group_batch_norm(child, group, world)
            continue
        grouped = GroupedBatchNorm(child.num_features, child.eps, child.momentum)
        grouped.__dict__.update(child.__dict__)  # the same tensors
        grouped.group, grouped.world = group, world
        setattr(module, name, grouped)


class _Sum(torch.autograd.Function):
    """The sum over all processes. The loss is the sum of theirs, and so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Sum.apply(gradients[0])  # which has a gradient too, for gradient penalties


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
