"""Random numbers from coordinates: (seed, stream, index of the image, position) -> a number.

Nothing is stateful: a training sample's latent, noise and augmentation depend on the run's seed and
the sample's global index only. Resuming needs no saved generator state, evaluating cannot disturb
training, and the batch size does not change which samples are drawn.

The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied
once per key part and once per position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Stream(IntEnum):
    """Independent sequences; the numbers are part of a run's identity and never reused."""

    LATENT_D = 1  # latents of the discriminator step
    LATENT_G = 2  # latents of the generator step
    LATENT_EVAL = 3  # latents of evaluation samples
    NOISE = 4  # per-layer noise inside the generator
    FLIP = 5  # mirroring of real images
    AUGMENT_REAL = 6
    AUGMENT_FAKE_D = 7
    AUGMENT_FAKE_G = 8
    QUADRANT = 9  # which quarter of a real image FastGAN's discriminator rebuilds
    FEATURE_DROPOUT = 10  # levels and channels of the projection that a step drops
    NOISE_REAL = 11  # noise on projected maps of real images
    NOISE_FAKE_D = 12
    NOISE_FAKE_G = 13
    LATENT_STANDING = 14  # latents that batch-norm statistics are computed from


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch can hold."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_C1 = _signed(0xBF58476D1CE4E5B9)
_C2 = _signed(0x94D049BB133111EB)


def _key(seed: int, stream: int, part: int) -> int:
    """The same mixing as `_mix`, of numbers that the host knows: no operator on the device."""
    mask, key = (1 << 64) - 1, 0
    for value in (seed, stream, part):
        key = (key + _GOLDEN + value) & mask
        key = ((key ^ (key >> 30)) * _C1) & mask
        key = ((key ^ (key >> 27)) * _C2) & mask
        key ^= key >> 31
    return _signed(key)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's >> on int64 copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _C1
    x = (x ^ _shift(x, 27)) * _C2
    return x ^ _shift(x, 31)


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of a batch of samples, from which its random numbers follow.

    Attributes:
        seed: the run's seed.
        stream: which sequence.
        index: [N] int64, the global index of each sample; its device is the device of the draws.
    """

    seed: int
    stream: int
    index: Tensor

    def with_stream(self, stream: int) -> Coordinates:
        return Coordinates(self.seed, stream, self.index)

    def bits(self, n: int, part: int = 0) -> Tensor:
        """[N, n] int64, uniform over all 64 bits. `part` separates draws of one stream."""
        key = _key(self.seed, int(self.stream), part)
        sample = _mix(self.index * _GOLDEN + key)
        position = torch.arange(1, n + 1, device=self.index.device) * _GOLDEN
        return _mix(sample[:, None] + position[None, :])

    def uniform(self, n: int, part: int = 0) -> Tensor:
        """[N, n] float32 in [0, 1), multiples of 2^-24."""
        return _shift(self.bits(n, part), 40).float() * 2.0**-24

    def normal(self, n: int, part: int = 0) -> Tensor:
        """[N, n] float32, standard normal by Box-Muller; the tails end at 5.8."""
        half = (n + 1) // 2
        bits = self.bits(half, part)
        radius = torch.sqrt(-2 * torch.log((_shift(bits, 40).float() + 1) * 2.0**-24))
        angle = (bits & 0xFFFFFF).float() * (2 * math.pi * 2.0**-24)
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :n]
