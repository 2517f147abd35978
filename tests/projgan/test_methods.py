"""The methods that the paper compares with train, regularise in turn and resume to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from projgan.config import Augment, Config, Data, Discriminator, Generator, Optim, Train
from projgan.errors import ConfigError
from projgan.train import train
from projgan.trainer import Trainer

STYLEGAN2 = Config(
    data=Data(name="clevr", resolution=32, images=32),
    generator=Generator(
        name="stylegan2", width=4, z_dim=16, w_dim=16, style_mixing=0.9, path_length=2.0,
        path_length_every=2,
    ),
    discriminator=Discriminator(kind="stylegan2", width=32, r1=1.0, r1_every=2),
    augment=Augment("", ada_target=0.6),
    optim=Optim(lr_g=2e-3, lr_d=2e-3, rescale_g=True, rescale_d=True),
    train=Train(batch=8, total_kimg=0.08, ema_kimg=0.02, loss="nonsaturating"),
)  # fmt: skip
FASTGAN = replace(
    STYLEGAN2,
    generator=Generator(width=4, z_dim=16, output="tanh"),
    discriminator=Discriminator(kind="fastgan", width=32),
    augment=Augment(),
    train=Train(batch=8, total_kimg=0.04, ema_kimg=0.02),
)
METHODS = {"stylegan2": STYLEGAN2, "fastgan": FASTGAN}


def _weights(trainer: Trainer) -> torch.Tensor:
    parts = (trainer.generator, trainer.discriminator.heads)
    return torch.cat([p.detach().flatten() for m in parts for p in m.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_cut_ends_as_one_that_is_not(method: str, tmp_path: Path) -> None:
    cfg = METHODS[method]
    *_, whole = train(cfg, tmp_path / "whole", tmp_path, ())
    cut = train(cfg, tmp_path / "cut", tmp_path, (24,))
    assert next(cut).nimg == 24  # between two changes of the augmentation's probability
    cut.close()
    *_, resumed = train(cfg, tmp_path / "cut", tmp_path, (24,))
    for (name, a), b in zip(
        whole.generator.state_dict().items(), resumed.generator.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_regularisers_have_their_turn() -> None:
    """On the steps between, the weights move as if there were none."""
    plain = replace(
        STYLEGAN2,
        generator=replace(STYLEGAN2.generator, path_length=0.0),
        discriminator=replace(STYLEGAN2.discriminator, r1=0.0),
    )
    real = torch.rand(8, 3, 32, 32) * 2 - 1
    for number, alike in ((0, False), (1, True)):
        ends = []
        for cfg in (STYLEGAN2, plain):
            trainer = Trainer(cfg, torch.device("cpu"))
            trainer.number = number
            trainer.step(real, torch.arange(8))
            ends.append(_weights(trainer))
        assert torch.equal(*ends) == alike


def test_augmentation_grows_while_the_discriminator_is_sure() -> None:
    cfg = replace(STYLEGAN2, discriminator=replace(STYLEGAN2.discriminator, r1=0.0))
    trainer = Trainer(cfg, torch.device("cpu"))
    real = torch.rand(8, 3, 32, 32) * 2 - 1
    with torch.no_grad():  # all logits well above zero
        trainer.discriminator.heads.out.bias.fill_(100.0)
    for number in range(4):
        assert trainer.adaptive.p == 0.0
        trainer.number = number
        trainer.step(real, torch.arange(8) + 8 * number)
    assert trainer.adaptive.p == pytest.approx(4 * 8 / 500_000)


def test_fastgans_decoders_are_trained() -> None:
    trainer = Trainer(FASTGAN, torch.device("cpu"))
    before = [p.detach().clone() for p in trainer.discriminator.heads.part.parameters()]
    trainer.step(torch.rand(8, 3, 32, 32) * 2 - 1, torch.arange(8))
    after = trainer.discriminator.heads.part.parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_a_method_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no styles"):
        Generator(path_length=2.0)
