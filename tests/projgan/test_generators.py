"""FastGAN: sizes, blocks, noise, and what EMA and spectral norm do to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.config import grid as grids
from projgan.config import GENERATOR_NAMES, Config, Data, Generator
from projgan.ema import ema_beta, ema_update
from projgan.errors import ConfigError
from projgan.generators import GENERATORS, build_generator
from projgan.generators.fastgan import LargeBlock, Noise, SmallBlock
from projgan.layers import millions, seeded
from projgan.rng import Coordinates, Stream


def make(resolution: int = 32, **generator: object) -> torch.nn.Module:
    settings = Generator(width=8, z_dim=32, **generator)  # type: ignore[arg-type]
    with seeded(0, "generator"):
        return build_generator(Config(data=Data(resolution=resolution), generator=settings))


def where(*indices: int) -> Coordinates:
    return Coordinates(0, Stream.LATENT_EVAL, torch.tensor(indices))


def settle(generator: torch.nn.Module) -> torch.nn.Module:
    """Gives batch norm its running statistics, so that eval mode has images of usual size."""
    for part in generator.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # the mean over all steps, whose batches are small then
    for step in range(30):
        at = where(*range(2 * step, 2 * step + 2))
        generator(at.normal(32), at)
    return generator.eval()


# FastGAN in both of its accounts, and every other generator.
ACCOUNTS = [("fastgan", "paper"), ("fastgan", "released"), ("fastgan_lite", "paper"),
            ("stylegan2", "paper")]  # fmt: skip


def test_every_generator_has_an_account_here() -> None:
    assert {name for name, _ in ACCOUNTS} == set(GENERATORS)


@pytest.mark.parametrize(("name", "preset"), ACCOUNTS)
@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_images_have_their_size_at_every_resolution(
    name: str, preset: str, resolution: int
) -> None:
    generator = make(resolution, name=name, preset=preset)
    images = generator(where(0, 1).normal(32), where(0, 1))
    assert images.shape == (2, 3, resolution, resolution) and images.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "preset"), ACCOUNTS)
@pytest.mark.parametrize("resolution", [512, 1024])
def test_large_images_have_their_size_and_every_weight_learns(
    name: str, preset: str, resolution: int
) -> None:
    generator = make(resolution, name=name, preset=preset)
    images = generator(where(0, 1).normal(32), where(0, 1))
    assert images.shape == (2, 3, resolution, resolution) and images.isfinite().all()
    images.square().sum().backward()
    without = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_presets_differ_in_blocks_and_in_the_latents_sphere() -> None:
    paper, released = make(64, preset="paper"), make(64, preset="released")
    assert [type(b) for b in paper.blocks.values()] == [LargeBlock, SmallBlock, LargeBlock, SmallBlock]  # fmt: skip  # noqa: E501
    assert all(isinstance(b, LargeBlock) for b in released.blocks.values())
    z = where(0).normal(32)
    settle(released), settle(paper)
    assert torch.allclose(released(z, where(0)), released(3 * z, where(0)), atol=1e-4)
    assert not torch.allclose(paper(z, where(0)), paper(3 * z, where(0)), atol=1e-2)


def test_the_released_generator_ends_in_a_bias() -> None:
    """Three numbers: 30.62 M at width 64 and 256 px but for them. All else is as without it."""
    plain, released = make(64, preset="released"), make(64, preset="released", rgb_bias=True)
    before, after = dict(plain.named_parameters()), dict(released.named_parameters())
    assert set(after) - set(before) == {"to_rgb.bias"} and after["to_rgb.bias"].shape == (3,)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    z, at = where(0, 1).normal(32), where(0, 1)
    settle(plain), settle(released)
    shift = released(z, at) - plain(z, at)
    wanted = after["to_rgb.bias"][None, :, None, None].expand_as(shift)
    torch.testing.assert_close(shift, wanted, rtol=1e-4, atol=1e-4)
    with torch.device("meta"):
        cfg = Config(generator=Generator(preset="released", rgb_bias=True))
        whole = build_generator(cfg)
        bare = build_generator(Config(generator=replace(cfg.generator, rgb_bias=False)))
    assert millions(whole) == pytest.approx(30.62, abs=0.005)
    assert round(1e6 * (millions(whole) - millions(bare))) == 3
    with pytest.raises(ConfigError, match="rgb_bias is for FastGAN"):
        make(name="stylegan2", rgb_bias=True)


def test_the_papers_scale_runs_the_released_generator_with_its_bias() -> None:
    for scale, there in (("paper", True), ("lab", False)):  # lab runs stay what they were
        rows = {s.row: s.config.generator for s in grids.load("generators", scale).runs}
        assert rows["FastGAN (released code)"].rgb_bias is there
        assert not rows["FastGAN (paper)"].rgb_bias


def test_lite_is_smaller() -> None:
    assert (
        millions(make(name="fastgan_lite")) < millions(make()) < millions(make(preset="released"))
    )


def test_images_do_not_depend_on_their_batch() -> None:
    generator = make(preset="released")
    for module in generator.modules():
        if isinstance(module, Noise):
            torch.nn.init.ones_(module.scale)
    settle(generator)
    together = generator(where(0, 1, 2).normal(32), where(0, 1, 2))
    alone = generator(where(2).normal(32), where(2))
    assert torch.allclose(alone[0], together[2], atol=1e-4)
    elsewhere = generator(where(2).normal(32), where(5))  # the same latent, other noise
    assert not torch.allclose(alone, elsewhere, atol=1e-2)


def test_every_parameter_learns() -> None:
    generator = make(64)
    generator(where(*range(4)).normal(32), where(*range(4))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_unknown_generator_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'fastgan'"):
        make(name="fastgam")


def test_ema_half_life() -> None:
    assert ema_beta(10**9, 1000, 20, 0.05) == pytest.approx(0.5 ** (1 / 20))
    assert ema_beta(64, 64, 20, None) == pytest.approx(0.5 ** (64 / 20000))  # no ramp-up at all
    assert ema_beta(1000, 50, 20, 0.05) == pytest.approx(0.5)  # ramp-up: half-life of 50 images
    a, b = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    torch.nn.init.zeros_(a.weight)
    b.running_mean.fill_(7)  # type: ignore[union-attr]
    ema_update(a, b, beta=0.75)
    assert a.weight.item() == pytest.approx(0.25) and a.running_mean.item() == 7  # type: ignore[union-attr]


def test_the_configuration_knows_every_generator() -> None:
    assert tuple(GENERATORS) == GENERATOR_NAMES
