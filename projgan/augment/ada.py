"""Adaptive discriminator augmentation (Karras et al., NeurIPS 2020, "Training Generative
Adversarial Networks with Limited Data").

The transformations of the paper's best pipeline for photos ("bgc": blits, geometry, colour), each
applied to an image with probability p, drawn from the sample's coordinates; and the rule that moves
p so that the discriminator is right about real images as often as a target says.

Geometry is resampled bilinearly with mirrored borders, without the paper's orthogonal wavelet
filters; this is the only difference in kind.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from projgan.parallel import World
from projgan.rng import Coordinates

EVERY = 4  # batches between two changes of p
KIMG = 500.0  # thousand images in which p can go from 0 to 1


def adjust(p: float, mean_sign: float, target: float, images: int) -> float:
    """The next probability: up where the discriminator is too sure of real images, else down.

    Args:
        p: the probability so far.
        mean_sign: mean of sign(D(real)) since the last change (r_t in Section 3 there).
        target: what `mean_sign` should be; 0.6 in the paper.
        images: shown to the discriminator since the last change.

    Returns:
        The new probability, in [0, 1].
    """
    step = math.copysign(images / (KIMG * 1000), mean_sign - target)
    return min(1.0, max(0.0, p + step))


def ada(images: Tensor, p: float, where: Coordinates) -> Tensor:
    """Augments each image with probability p per transformation.

    Args:
        images: [N, 3, R, R] float, about [-1, 1].
        p: probability, 0 changes nothing.
        where: coordinates of the samples.
    """
    if p <= 0:
        return images
    return _colour(_geometry(images, p, where), p, where)


def _geometry(x: Tensor, p: float, where: Coordinates) -> Tensor:
    """Flip, quarter turns, whole-pixel shifts, scale, rotation, stretch, shift: one resampling."""
    n, size = len(x), x.shape[-1]
    apply = where.uniform(8, part=10) < p  # [N, 8]
    u, g = where.uniform(6, part=11), where.normal(5, part=12)
    # The second rotation makes the direction of the stretch random; either comes with a
    # probability whose complement is the square root of 1 - p, so that both together have p.
    turned = where.uniform(2, part=13) < 1 - math.sqrt(1 - p)
    one, zero = torch.ones_like(u[:, 0]), torch.zeros_like(u[:, 0])

    def chosen(flag: Tensor, value: Tensor, neutral: Tensor) -> Tensor:
        return torch.where(flag, value, neutral)

    flip = chosen(apply[:, 0] & (u[:, 0] < 0.5), -one, one)
    quarter = chosen(apply[:, 1], (u[:, 1] * 4).floor() * (math.pi / 2), zero)
    whole = [
        chosen(apply[:, 2], ((u[:, 2 + i] * 2 - 1) * 0.125 * size).round() * 2 / size, zero)
        for i in (0, 1)
    ]
    scale = chosen(apply[:, 3], torch.exp2(0.2 * g[:, 0]), one)
    first = chosen(turned[:, 0], (u[:, 4] * 2 - 1) * math.pi, zero)
    stretch = chosen(apply[:, 4], torch.exp2(0.2 * g[:, 1]), one)
    second = chosen(turned[:, 1], (u[:, 5] * 2 - 1) * math.pi, zero)
    shift = [chosen(apply[:, 5], g[:, 2 + i] * 0.125 * 2, zero) for i in (0, 1)]

    # The grid asks where each output pixel comes from: the inverse transformations, in reverse.
    matrix = _scale(flip, one)
    for part in (
        _rotate(-quarter), _shift(-whole[0], -whole[1]), _scale(1 / scale, 1 / scale),
        _rotate(-first), _scale(1 / stretch, stretch), _rotate(-second),
        _shift(-shift[0], -shift[1]),
    ):  # fmt: skip
        matrix = matrix @ part
    grid = F.affine_grid(matrix[:, :2], [n, 3, size, size], align_corners=False)
    moved = F.grid_sample(x, grid.to(x.dtype), padding_mode="reflection", align_corners=False)
    still = ~(apply[:, :6].any(dim=1) | turned.any(dim=1))
    return torch.where(still[:, None, None, None], x, moved)


def _colour(x: Tensor, p: float, where: Coordinates) -> Tensor:
    """Brightness, contrast, flip of luma, hue, saturation: one affine map of each pixel."""
    apply = where.uniform(5, part=14) < p
    u, g = where.uniform(2, part=15), where.normal(3, part=16)
    one, zero = torch.ones_like(u[:, 0]), torch.zeros_like(u[:, 0])
    eye = torch.eye(3, device=x.device)
    grey = torch.full((3,), 1 / math.sqrt(3), device=x.device)
    luma = torch.outer(grey, grey)  # [3, 3], projects a colour onto its luma
    turn = eye.roll(1, dims=1)
    cross = turn.T - turn  # cross @ v is the cross product of (1, 1, 1) and v

    brightness = torch.where(apply[:, 0], 0.2 * g[:, 0], zero)
    contrast = torch.where(apply[:, 1], torch.exp2(0.5 * g[:, 1]), one)[:, None, None]
    inverted = torch.where(apply[:, 2] & (u[:, 0] < 0.5), one, zero)[:, None, None]
    angle = torch.where(apply[:, 3], (u[:, 1] * 2 - 1) * math.pi, zero)[:, None, None]
    saturation = torch.where(apply[:, 4], torch.exp2(g[:, 2]), one)[:, None, None]

    flip = eye - 2 * luma * inverted
    # Rodrigues' formula, about the grey axis.
    hue = luma + angle.cos() * (eye - luma) + angle.sin() * cross / math.sqrt(3)
    mix = (luma + (eye - luma) * saturation) @ hue @ flip * contrast
    # Brightness comes first, so all that follows acts on it too.
    offset = (mix @ torch.ones(3, device=x.device)) * brightness[:, None]
    mixed = torch.einsum("nij,njhw->nihw", mix.to(x.dtype), x)
    return mixed + offset[:, :, None, None].to(x.dtype)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _shift(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _rotate(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    c, s = angle.cos(), angle.sin()
    return _matrix([[c, -s, zero], [s, c, zero], [zero, zero, one]])


class Adaptive:
    """The probability of augmentation, moved so that the discriminator stays as sure as a target.

    Attributes:
        target: mean sign of the logits on real images that is aimed at; 0 = never augments.
        p: the current probability, in [0, 1].
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.p = 0.0
        self._signs: list[Tensor] = []

    def __call__(self, images: Tensor, where: Coordinates) -> Tensor:
        return ada(images, self.p, where) if self.target else images

    def observe(self, logits: list[Tensor]) -> None:
        """Keeps the mean sign of the logits on a batch (or part) of real images."""
        if self.target:
            self._signs.append(torch.stack([x.detach().sign().mean() for x in logits]).mean())

    def update(self, number: int, batch: int, world: World) -> None:
        """Moves p after every `EVERY` steps.

        Args:
            number: of the step, from 0.
            batch: images of a step, over all processes.
        """
        if not self.target or (number + 1) % EVERY or not self._signs:
            return
        mean = float(world.average(torch.stack(self._signs).mean(), ()))
        self.p = adjust(self.p, mean, self.target, EVERY * batch)
        self._signs = []

    def state(self) -> dict[str, Any]:
        return {"p": self.p, "signs": list(self._signs)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.p, self._signs = float(state["p"]), list(state["signs"])
