"""Our modules against a re-derivation of the method in a few lines of plain functions.

The functions below are written from the paper's text and what is known of the released code, and
share nothing with ours but the weights: shapes, logits, parameters and numbers must agree. Table
2's column of parameters is held in test_backbones.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgan.config import Discriminator
from projgan.config import Projection as Settings
from projgan.discriminators.projected import MultiScaleHeads
from projgan.discriminators.projection import Projection
from projgan.layers import millions
from projgan.losses import discriminator_loss, generator_loss

CHANNELS = (24, 40, 112, 320)  # EfficientNet-Lite1 at strides 4, 8, 16, 32
RELEASED = Discriminator(depth="matched", logits="native", reduce="mean")


def maps(size: int, count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(size)
    sides = [size // stride for stride in (4, 8, 16, 32)]
    return [
        torch.randn(count, c, s, s, generator=generator)
        for c, s in zip(CHANNELS, sides, strict=True)
    ]


def up(x: Tensor) -> Tensor:
    """Bilinear with aligned corners as a matrix on each side."""
    n = x.shape[-1]
    place = torch.arange(2 * n, dtype=torch.float64) * (n - 1) / (2 * n - 1)
    weight = (1 - (place[:, None] - torch.arange(n)[None, :]).abs()).clamp(min=0).to(x.dtype)
    return torch.einsum("ij,ncjk,lk->ncil", weight, x, weight)


def one_by_one(x: Tensor, conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], x) + conv.bias[:, None, None]


def three_by_three(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """By unfolding into patches, not by a convolution."""
    assert conv.bias is not None
    n, _, h, w = x.shape
    patches = F.unfold(x, 3, padding=1)
    y = torch.einsum("op,npl->nol", conv.weight.flatten(1), patches)
    return y.view(n, -1, h, w) + conv.bias[:, None, None]


def projected(p: Projection, given: list[Tensor], form: str) -> list[Tensor]:
    """Section 3.2 and the three accounts of it."""
    mixed = [one_by_one(x, c) for x, c in zip(given, p.ccm, strict=True)]  # type: ignore[arg-type]
    out: list[Tensor] = []
    deeper: Tensor | None = None
    for level in (3, 2, 1, 0):
        x, block = mixed[level], p.csm[level]
        if form == "author" and level != 3:
            x = x + three_by_three(x, block.skip.conv)  # type: ignore[union-attr, arg-type]
        x = x if deeper is None else x + deeper
        if form == "author":
            x = x + three_by_three(x, block.sum.conv)  # type: ignore[union-attr, arg-type]
        if form == "text":
            deeper = up(three_by_three(x, block.out))  # type: ignore[arg-type]
        else:
            deeper = one_by_one(up(x), block.out)  # type: ignore[arg-type]
        out.insert(0, deeper)
    return out


def normalised(module: nn.Module) -> Tensor:
    """A spectrally normalised kernel, from the parametrisation's original and its vectors."""
    parts = module.parametrizations.weight
    original, norm = parts.original, parts[0]
    matrix = original.flatten(1)
    return original / (norm._u @ matrix @ norm._v)


def judged(heads: MultiScaleHeads, given: list[Tensor]) -> list[Tensor]:
    """Each level: SN conv 4x4/2, batch norm, leaky ReLU 0.2, down to 8 px; SN conv 4x4 head."""
    out = []
    for level, x in zip(heads.levels, given, strict=True):
        for conv, norm, _ in level.blocks:  # type: ignore[union-attr]
            x = F.conv2d(x, normalised(conv), stride=2, padding=1)
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
            x = (x - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
            x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
            x = torch.maximum(x, 0.2 * x)
        out.append(F.conv2d(x, normalised(level.head.conv)))  # type: ignore[union-attr, arg-type]
    return out


@pytest.mark.parametrize("form", ["text", "author", "released"])
def test_projections_are_the_papers(form: str) -> None:
    torch.manual_seed(0)
    ours = Projection(Settings(csm=form, init="torch"), CHANNELS)  # type: ignore[arg-type]
    given = maps(64)
    wanted = projected(ours, given, form)
    found = ours(given)
    assert [tuple(x.shape[1:]) for x in found] == [
        (64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4),
    ]  # fmt: skip
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "logits"), [(224, 4), (256, 5)])
def test_discriminators_and_their_losses_are_the_papers(size: int, logits: int) -> None:
    torch.manual_seed(0)
    sides = [size // stride * 2 for stride in (4, 8, 16, 32)]
    cfg = Discriminator(depth="matched", logits="native", reduce="mean", width=64)
    heads = MultiScaleHeads(cfg, [8, 8, 16, 32], sides)
    assert [len(level.blocks) for level in heads.levels] == [4, 3, 2, 1]  # type: ignore[arg-type]
    given = [torch.randn(4, c, s, s) for c, s in zip([8, 8, 16, 32], sides, strict=True)]
    with torch.no_grad():
        found = heads(given)
        # One step of the power iteration has moved the vectors: they are those that were used.
        wanted = judged(heads, given)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == (4, 1, logits, logits)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    # The logits of all levels side by side, then one mean: each level weighs alike.
    real, fake = found, [-x for x in found]
    both = [torch.cat([x.flatten(1) for x in side], dim=1) for side in (real, fake)]
    hinge = (1 - both[0]).clamp(min=0).mean() + (1 + both[1]).clamp(min=0).mean()
    torch.testing.assert_close(discriminator_loss(real, fake, "mean"), hinge)
    torch.testing.assert_close(generator_loss(fake, "mean"), -both[1].mean())
    torch.testing.assert_close(discriminator_loss(real, fake, "sum"), 4 * hinge)  # Eq. 4


@pytest.mark.parametrize(("size", "logits"), [(224, 4), (256, 5), (512, 13), (1024, 29)])
def test_logits_of_every_size(size: int, logits: int) -> None:
    """Four blocks at most: what is not halved to 8 px gives more logits."""
    sides = [size // stride * 2 for stride in (4, 8, 16, 32)]
    given = [torch.zeros(2, 4, s, s) for s in sides]
    for how, expected in (("native", logits), ("4x4", 4)):  # 4x4: as the paper's text says
        cfg = replace(RELEASED, logits=how, width=16)  # type: ignore[arg-type]
        with torch.no_grad():
            found = MultiScaleHeads(cfg, [4] * 4, sides)(given)
        assert {tuple(x.shape) for x in found} == {(2, 1, expected, expected)}


def test_parameters_are_those_of_the_released_code() -> None:
    """10.33 M, and 0.70 M separable; by hand from the widths."""
    sides = [128, 64, 32, 16]
    by_hand = 0
    for channels, widths in ((64, (64, 128, 256, 512)), (64, (128, 256, 512)), (128, (256, 512)),
                             (256, (512,))):  # fmt: skip
        before = channels
        for width in widths:
            by_hand += before * width * 16 + 2 * width
            before = width
        by_hand += before * 16
    with torch.device("meta"):
        standard = MultiScaleHeads(RELEASED, [64, 64, 128, 256], sides)
        separable = MultiScaleHeads(Discriminator(separable=True), [64, 64, 128, 256], sides)
    assert sum(p.numel() for p in standard.parameters()) == by_hand
    assert millions(standard) == pytest.approx(10.33, abs=0.005)
    assert millions(separable) == pytest.approx(0.70, abs=0.005)
