"""Building blocks shared by generators and discriminators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def sn_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0,
            groups: int = 1) -> nn.Module:  # fmt: skip
    """Convolution without bias under spectral normalisation (Miyato et al., 2018)."""
    return spectral_norm(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    )


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Initial weights drawn inside depend on the seed and the purpose only.

    Each network has a purpose of its own, so that changing the discriminator does not change the
    generator's initial weights. Draws happen on the CPU, so every device starts alike.
    """
    digest = 0
    for byte in purpose.encode():
        digest = (digest * 257 + byte) % (1 << 31)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * (1 << 31) + digest)
        yield


def millions(module: nn.Module) -> float:
    """Parameters of a module, in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6
