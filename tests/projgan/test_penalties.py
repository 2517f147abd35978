"""Penalties on projected features, pairing, and a blur that fades, each against another account."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_config import SMALL
from torch import Tensor, nn

from projgan.augment.diffaug import augment, blur
from projgan.config import Augment, Config, Discriminator, Projection, Train
from projgan.errors import ConfigError
from projgan.losses import discriminator_loss, generator_loss
from projgan.rng import Coordinates, Stream
from projgan.trainer import Trainer

ONE_LEVEL = replace(
    SMALL,
    projection=Projection(channels=2),
    discriminator=Discriminator(base=4, width=16, layers=(4,)),
    train=Train(batch=2),
)
REAL = torch.linspace(-1, 1, 2 * 3 * 32 * 32).mul(99).sin().view(2, 3, 32, 32)
INDEX = torch.arange(2)


def still(cfg: Config) -> Any:
    """A trainer whose spectral norms stay, while batch norm sees the batch."""
    trainer = Trainer(cfg, torch.device("cpu"))
    for network in (trainer.generator, trainer.discriminator.heads):
        network.eval()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.train()
    return trainer


def by_differences(heads: nn.Module, x: Tensor) -> float:
    """Mean squared norm of the gradient at maps [N, C, H, W], by moving each value a little."""
    heads, x, step = deepcopy(heads).double(), x.double().contiguous(), 1e-5
    total = 0.0
    with torch.no_grad():
        for i in range(x.numel()):
            ends = []
            for way in (step, -step):
                moved = x.clone()
                moved.view(-1)[i] += way
                ends.append(sum(float(logits.sum()) for logits in heads([moved])))
            total += ((ends[0] - ends[1]) / (2 * step)) ** 2
    return total / len(x)


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_a_penalty_on_features_is_the_gradient_at_the_projected_maps(name: str) -> None:
    weights = replace(ONE_LEVEL.discriminator, r1_every=3, **{name: 0.5})
    penalised, plain = still(replace(ONE_LEVEL, discriminator=weights)), still(ONE_LEVEL)
    losses = [trainer.discriminator_loss(REAL, INDEX) for trainer in (penalised, plain)]
    stream = Stream.AUGMENT_REAL if name == "r1" else Stream.AUGMENT_FAKE_D
    with torch.no_grad():
        images = REAL
        if name == "r2":
            where = Coordinates(0, Stream.LATENT_D, INDEX)
            images = plain.generator(where.normal(16), where)
        shown = augment(images, "color,translation,cutout", Coordinates(0, stream, INDEX))
        (maps,) = plain.discriminator.features(shown)
    expected = 0.5 / 2 * 3 * by_differences(plain.discriminator.heads, maps)
    assert expected > 0
    assert (losses[0] - losses[1]).item() == pytest.approx(expected, rel=1e-3)
    penalised.number = 1  # not its turn
    assert torch.equal(penalised.discriminator_loss(REAL, INDEX), losses[1])


def test_a_penalty_moves_the_heads_and_nothing_frozen() -> None:
    """Over all levels and on the image; the gradient of the gradient reaches every weight."""
    some = replace(SMALL.discriminator, extra_rgb=True, r1=1.0, r2=1.0)
    trainer = Trainer(replace(SMALL, discriminator=some), torch.device("cpu"))
    trainer.step(torch.rand(8, 3, 32, 32) * 2 - 1, torch.arange(8))
    assert all(p.grad is not None for p in trainer.discriminator.heads.parameters())
    frozen = (trainer.discriminator.backbone, trainer.discriminator.projection)
    assert all(p.grad is None for part in frozen if part is not None for p in part.parameters())


def test_pairs_are_judged_against_each_other() -> None:
    """R3GAN: log(1 + exp(fake - real)) for D and log(1 + exp(real - fake)) for G."""
    rng = np.random.default_rng(0)
    real, fake = ([rng.normal(size=(5, 1, 4, 4)), rng.normal(size=(5, 1, 2, 2))] for _ in range(2))
    both = [[torch.from_numpy(x) for x in side] for side in (real, fake)]
    of_d = [np.log1p(np.exp(f - r)).mean() for r, f in zip(real, fake, strict=True)]
    of_g = [np.log1p(np.exp(r - f)).mean() for r, f in zip(real, fake, strict=True)]
    kind = "relativistic"
    assert float(discriminator_loss(*both, "sum", kind)) == pytest.approx(sum(of_d))
    assert float(discriminator_loss(*both, "mean", kind)) == pytest.approx(sum(of_d) / 2)
    assert float(generator_loss(both[1], "sum", kind, real=both[0])) == pytest.approx(sum(of_g))


def test_the_generators_step_sees_the_real_images_of_the_discriminators() -> None:
    trainer = still(replace(ONE_LEVEL, train=Train(batch=2, loss="relativistic")))
    loss = trainer.generator_loss(REAL, INDEX).item()
    with torch.no_grad():
        where = Coordinates(0, Stream.LATENT_G, INDEX)
        logits = []
        for images, stream in (
            (REAL, Stream.AUGMENT_REAL),
            (trainer.generator(where.normal(16), where), Stream.AUGMENT_FAKE_G),
        ):
            shown = augment(images, "color,translation,cutout", Coordinates(0, stream, INDEX))
            logits.append(trainer.discriminator(shown)[0])
    real, fake = logits
    assert loss == pytest.approx(float(torch.log1p(torch.exp(real - fake)).mean()), rel=1e-4)
    with pytest.raises(ConfigError, match=r"relativistic has one term .* train\.feedback=plain"):
        Train(loss="relativistic", feedback="balanced")


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_the_blur_is_a_gaussian_filter(sigma: float) -> None:
    """2^-(x / sigma)^2 is a Gaussian of standard deviation sigma / sqrt(2 ln 2)."""
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.manual_seed(0))
    found = blur(images, sigma).numpy()
    deviation = sigma / np.sqrt(2 * np.log(2))
    for image, expected in zip(found.reshape(6, 16, 16), images.reshape(6, 16, 16), strict=True):
        smooth = gaussian_filter(
            expected.numpy(), deviation, mode="constant", radius=int(3 * sigma)
        )
        assert np.allclose(image, smooth, atol=1e-12)


def test_the_blur_fades_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = replace(SMALL, augment=Augment("", blur_sigma=2.0, blur_fade_kimg=0.8))
    trainer, seen = Trainer(cfg, torch.device("cpu")), []
    monkeypatch.setattr("projgan.trainer.blur", lambda x, sigma: seen.append(sigma) or x)
    for number in (0, 50, 100, 1000):  # batches of 8
        trainer.number = number
        trainer.step(torch.zeros(8, 3, 32, 32), torch.arange(8))
    assert seen == [2.0] * 3 + [1.0] * 3 + [0.0] * 6  # real and fake of D's step, fake of G's
    images = torch.rand(1, 3, 8, 8)
    assert blur(images, 0.0) is images and blur(images, 0.3) is images
