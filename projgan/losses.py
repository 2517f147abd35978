"""Adversarial losses over a set of discriminators, and what is added to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Logits = list[Tensor]  # one [N, 1, h, w] for each discriminator


def combine(per_level: list[Tensor], reduce: str, weights: Tensor | None = None) -> Tensor:
    """Return the sum of the levels' losses (Eq. 4 of the paper) or their mean (released code).

    Args:
        weights: [levels] float, the weight of each level. None = all alike.
    """
    stacked = torch.stack(per_level)
    stacked = stacked if weights is None else stacked * weights
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


def discriminator_loss(
    real: Logits,
    fake: Logits,
    reduce: str,
    kind: str = "hinge",
    weights: Tensor | None = None,
    balanced: bool = False,
) -> Tensor:
    """Return the loss that the discriminators minimise.

    Args:
        real, fake: logits, one [N, 1, h, w] for each level.
        reduce: "sum" or "mean" over the levels.
        kind: `hinge` (the paper: relu(1 - real) + relu(1 + fake)), `nonsaturating` (Goodfellow et
            al., 2014, with logits) or `wasserstein` (fake - real), each averaged over its logits;
            `relativistic`: softplus(fake - real) of each generated image and the real one at its
            place in the batch (R3GAN, https://arxiv.org/abs/2501.05441, Section 2).
        weights: [levels] float, the weight of each level. None = all alike.
        balanced: the side, real or fake, that a level is less right about counts for more, in
            proportion to its loss; together they count for two as ever.
    """
    losses = []
    for r, f in zip(real, fake, strict=True):
        if kind == "relativistic":
            losses.append(F.softplus(f - r).mean())
            continue
        sides = torch.stack([REAL[kind](r).mean(), FAKE[kind](f).mean()])
        if balanced:
            wrong = torch.stack([F.softplus(-r).mean(), F.softplus(f).mean()]).detach()
            sides = sides * (2 * wrong / wrong.sum())
        losses.append(sides[0] + sides[1])
    return combine(losses, reduce, weights)


def generator_loss(
    fake: Logits,
    reduce: str,
    kind: str = "hinge",
    weights: Tensor | None = None,
    balanced: bool = False,
    real: Logits | None = None,
) -> Tensor:
    """Return the loss that the generator minimises; arguments as for `discriminator_loss`.

    `real` is for the relativistic loss, softplus(real - fake), alone.
    `balanced`: an image counts for as much as the discriminator of a level is sure that it is
    generated, against the mean over the batch; the hard cases are those it rejects.
    """
    if kind == "relativistic":
        assert real is not None
        return discriminator_loss(fake, real, reduce, kind, weights)  # the sides change places
    losses = []
    for f in fake:
        loss = GENERATOR[kind](f)
        if balanced:
            sure = torch.sigmoid(-f.detach().mean(dim=(1, 2, 3), keepdim=True))
            loss = loss * (sure / sure.mean())
        losses.append(loss.mean())
    return combine(losses, reduce, weights)


def gradient_penalty(inputs: list[Tensor], logits: Logits) -> Tensor:
    """Mean squared norm of the logits' gradient at the inputs of all discriminators together.

    At real images it is R1, at generated ones R2 (Mescheder et al., ICML 2018, Eq. 9).

    Args:
        inputs: [N, C, H, W] each, images or projected maps, requiring gradients.
        logits: of these inputs; their sum is differentiated.
    """
    total = torch.stack([x.sum() for x in logits]).sum()
    gradients = torch.autograd.grad(total, inputs, create_graph=True)
    return torch.stack([g.float().square().sum(dim=(1, 2, 3)).mean() for g in gradients]).sum()


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """Return how far images move with w, in a random direction (Karras et al., CVPR 2020, 3.2).

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
