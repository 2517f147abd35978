"""Grouped batch norm on 24 samples, alone or in the processes of torchrun: argv is a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from projgan.parallel import World, group_batch_norm, join

GROUPS = (None, 4, 6, 8, 24)


def normalised(group: int | None, world: World) -> dict[str, Tensor]:
    """What comes out of this process's share, gradients, and the running statistics after it."""
    network = nn.Sequential(nn.BatchNorm2d(5))
    group_batch_norm(network, group, world)
    (norm,) = network
    assert isinstance(norm, nn.BatchNorm2d)
    x = torch.randn(24, 5, 3, 2, generator=torch.Generator().manual_seed(0)) * 3 + 5
    x += torch.arange(24.0)[:, None, None, None]
    towards = torch.sin(torch.arange(x.numel())).view_as(x)
    mine = world.share(24)
    own = x[mine].requires_grad_()
    out = network(own)
    loss = (out * towards[mine]).sum()
    (into,) = torch.autograd.grad(loss, own, create_graph=True)
    (again,) = torch.autograd.grad(into.square().sum(), own, retain_graph=True)  # as R1's
    loss.backward()
    assert own.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    assert norm.running_mean is not None and norm.running_var is not None
    return {
        "out": out.detach(),
        "into": own.grad,
        "again": again,
        "weights": torch.cat([norm.weight.grad, norm.bias.grad]),
        "running": torch.cat([norm.running_mean, norm.running_var]),
    }


if __name__ == "__main__":
    world = join()
    for group in GROUPS:
        result = normalised(group, world)
        torch.save(result, Path(sys.argv[1]) / f"{world.size}-{group}-{world.rank}.pt")
