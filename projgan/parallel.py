"""Several processes that train one network on shares of each batch, as if they were one.

Each takes its share of the batch by the samples' global indices, so every random number is the one
that a single process would draw. Gradients are averaged, the statistics of batch norm are those of
the whole batch, and the first process has the say. What is left is the order of summation: training
equals that of one process up to rounding. Without torchrun there is one process and nothing of this
happens.
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

    def said(self, value: Any) -> Any:
        """What the first process said, in every process; `value` is a plain JSON value."""
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


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the samples of all processes, on any device (torch's own is for GPUs).

    A cumulative average (momentum None) is that of one process, which evaluates alone.
    Every process has equally many samples. Mean and variance are summed one after the other, which
    keeps the digits that the difference of two large sums would lose.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of this process -> the same, normalised by the whole batch."""
        if not self.training or self.momentum is None:
            return super().forward(x)
        size = world().size
        over, shape = (0, 2, 3), (1, -1, 1, 1)
        wide = x.float()
        mean = _sum(wide.mean(over)) / size
        centred = wide - mean.view(shape)
        var = _sum(centred.square().mean(over)) / size
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            count = x.numel() // x.shape[1] * size
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(var.detach() * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Replaces every BatchNorm2d inside; names, parameters and buffers stay the same."""
    for name, child in module.named_children():
        if type(child) is not nn.BatchNorm2d:
            synchronise_batch_norm(child)
            continue
        synced = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum)
        synced.weight, synced.bias = child.weight, child.bias
        synced.running_mean, synced.running_var = child.running_mean, child.running_var
        synced.num_batches_tracked = child.num_batches_tracked
        setattr(module, name, synced.train(child.training))


class _Sum(torch.autograd.Function):
    """The sum over all processes. The loss is the sum of theirs, and so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
