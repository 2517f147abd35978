"""Adversarial losses over a set of discriminators, and what is added to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Logits = list[Tensor]  # one [N, 1, h, w] for each discriminator


def combine(per_level: list[Tensor], reduce: str) -> Tensor:
    """Sums the levels' losses (Eq. 4 of the paper) or averages them (released code)."""
    stacked = torch.stack(per_level)
    return stacked.sum() if reduce == "sum" else stacked.mean()


# How a discriminator's logits on real and on fake images become losses, element by element.
REAL: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda real: F.relu(1 - real),
    "nonsaturating": lambda real: F.softplus(-real),
    "wasserstein": lambda real: -real,
}
FAKE: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda fake: F.relu(1 + fake),
    "nonsaturating": lambda fake: F.softplus(fake),
    "wasserstein": lambda fake: fake,
}
GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda fake: -fake,
    "nonsaturating": lambda fake: F.softplus(-fake),
    "wasserstein": lambda fake: -fake,
}


def discriminator_loss(real: Logits, fake: Logits, reduce: str, kind: str = "hinge") -> Tensor:
    """What the discriminators minimise.

    Args:
        real, fake: logits, one [N, 1, h, w] for each level.
        reduce: "sum" or "mean" over the levels.
        kind: `hinge` (the paper: relu(1 - real) + relu(1 + fake)), `nonsaturating` (Goodfellow et
            al., 2014, with logits) or `wasserstein` (fake - real), each averaged over its logits.
    """
    pairs = zip(real, fake, strict=True)
    return combine([REAL[kind](r).mean() + FAKE[kind](f).mean() for r, f in pairs], reduce)


def generator_loss(fake: Logits, reduce: str, kind: str = "hinge") -> Tensor:
    """What the generator minimises; arguments as for `discriminator_loss`."""
    return combine([GENERATOR[kind](f).mean() for f in fake], reduce)


def r1_penalty(images: Tensor, logits: Logits) -> Tensor:
    """Mean squared norm of the logits' gradient at real images (Mescheder et al., ICML 2018).

    Args:
        images: [N, 3, R, R], requires gradient.
        logits: of these images; their sum is differentiated.
    """
    total = torch.stack([x.sum() for x in logits]).sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """How far images move with w in a random direction (Karras et al., CVPR 2020, Section 3.2).

    Args:
        images: [N, 3, R, R], made from `w`.
        w: [N, w_dim] or [N, layers, w_dim], in the graph of the images.
        noise: like the images, standard normal.

    Returns:
        [N]: the norm of the gradient, averaged over the layers within the square root.
    """
    direction = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * direction).sum(), w, create_graph=True)
    squares = gradient.square().sum(dim=-1)
    return (squares.mean(dim=1) if squares.ndim == 2 else squares).sqrt()
