"""Batch-norm statistics of a generator's own weights: right, cheap, and nobody else's business."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from small_config import SMALL, fingerprint
from torch import Tensor, nn

from bench.metrics.evaluate import evaluate
from bench.metrics.reference import Reference
from projgan import standing_statistics as standing
from projgan.config import Augment, Discriminator, Generator, Optim, Train
from projgan.generators import GENERATORS, build_generator
from projgan.generators.fastgan import FastGAN
from projgan.layers import Normalised
from projgan.parallel import World, group_batch_norm
from projgan.rng import Coordinates, Stream
from projgan.sample import generate
from projgan.speed import fast
from projgan.standing_statistics import standing_statistics
from projgan.train import Snapshot, train

LATENTS = 50_000
FD, MEANS = 0.02, 0.02  # relative; in standard deviations

# As small as a generator can be, so that 50,000 latents take seconds.
CFG = replace(
    SMALL,
    discriminator=Discriminator(kind="rgb", base=4, width=16, depth="by_map", layers=(1,)),
    generator=Generator(z_dim=16),
    augment=Augment(policy=""),
    optim=Optim(lr_g=5e-3, lr_d=5e-3),
    train=Train(batch=8, total_kimg=0.8, ema_kimg=0.8, ema_rampup=1.0),
)


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """FastGAN with one channel where the narrowest that can be configured has four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            GENERATORS,
            "fastgan",
            lambda cfg: FastGAN(cfg.generator.z_dim, 32, 1, "small", True, True),
        )
        yield


class Trained(NamedTuple):
    """An averaged generator after 100 fast steps; with its own statistics; with those by hand."""

    averaged: nn.Module
    own: nn.Module
    expected: nn.Module
    reference: Reference

    def fd(self, generator: nn.Module) -> float:
        return evaluate(generate(generator, 1, range(500)), self.reference, ["fd_lab"])["fd_lab"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trained(narrow: None, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    *_, last = train(CFG, tmp_path_factory.mktemp("run"), data_dir, ())
    real = last.dataset
    reference = Reference(real.images, real.fingerprint, data_dir, last.device)
    own = standing_statistics(last.generator)
    return Trained(last.generator, own, by_hand(last.generator), reference)


@torch.no_grad()
def by_hand(generator: nn.Module) -> nn.Module:
    """Exact singular vectors, and the means over batches of 50,000 latents drawn by torch."""
    own: Any = deepcopy(generator).to(memory_format=torch.contiguous_format)
    fast.enable(own, fast.NONE)
    for part in normalised(own):
        norm = part.parametrizations["weight"][0]
        left, _, right = torch.linalg.svd(matrix(part), full_matrices=False)
        norm._u.copy_(left[:, 0])
        norm._v.copy_(right[0])
    for norm in norms(own):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    drawn = torch.Generator().manual_seed(0)
    for start in range(0, LATENTS, 250):
        where = Coordinates(7, Stream.LATENT_EVAL, torch.arange(start, start + 250))
        own(torch.randn(250, own.z_dim, generator=drawn), where)
    return own.eval()


def norms(generator: nn.Module) -> list[Any]:
    return [part for part in generator.modules() if isinstance(part, nn.BatchNorm2d)]


def normalised(generator: nn.Module) -> list[Any]:
    return [part for part in generator.modules() if isinstance(part, Normalised)]


def matrix(part: Any) -> Tensor:
    """The kernel that spectral norm divides, as the matrix whose singular values count."""
    plain = part.parametrizations["weight"]
    return plain.original.detach().movedim(plain[0].dim, 0).flatten(1)


def strayed(generator: nn.Module, expected: nn.Module) -> float:
    """How far the mean of a channel is off at most, in standard deviations."""
    pairs = zip(norms(generator), norms(expected), strict=True)
    off = [(a.running_mean - b.running_mean) / b.running_var.sqrt() for a, b in pairs]
    return float(torch.cat(off).abs().max())


def test_statistics_are_those_of_fifty_thousand_latents(trained: Trained) -> None:
    right = trained.fd(trained.expected)
    assert strayed(trained.own, trained.expected) < MEANS
    assert trained.fd(trained.own) == pytest.approx(right, rel=FD)
    # What the moving average copied from the raw generator is far off.
    assert strayed(trained.averaged, trained.expected) > 2 * MEANS
    assert abs(trained.fd(trained.averaged) - right) > 2 * FD * right


def test_spectral_norms_are_those_of_the_averaged_weights(trained: Trained) -> None:
    """Nothing rescales what leaves to_rgb and the excitations: there the copied ones would show."""

    def error(generator: nn.Module) -> float:
        found = [
            matrix(part).norm() / part.normalised().norm() / torch.linalg.svdvals(matrix(part))[0]
            for name, part in generator.named_modules()
            if isinstance(part, Normalised) and name.startswith(("to_rgb", "excitations"))
        ]
        assert len(found) == 3
        return float((torch.stack(found) - 1).abs().max())

    assert error(trained.averaged) > 5e-3
    assert error(trained.own) < 1e-3


def test_the_generator_itself_stays_as_it_was(trained: Trained) -> None:
    own, raw = trained.own, deepcopy(trained.averaged).train().requires_grad_(True)
    before = fingerprint(raw)
    # From the weights alone: neither the copied statistics nor torch's random state have a say.
    for norm in norms(raw):
        norm.running_mean.add_(1)
    changed = fingerprint(raw)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = standing_statistics(raw)
    assert before != changed == fingerprint(raw) and fingerprint(again) == fingerprint(own)
    assert all(part.training for part in raw.modules())
    assert not any(part.training for part in own.modules())
    assert not any(p.requires_grad for p in own.parameters())
    assert {norm.momentum for norm in norms(own)} == {0.1}


def test_classes_come_as_often_as_in_the_data() -> None:
    """The first layer is linear: its mean is that of the classes' mean embedding."""
    torch.manual_seed(0)
    generator = FastGAN(16, 32, 1, "small", False, True, classes=3, embed=16)
    assert generator.embed is not None

    def means(share: Tensor) -> Tensor:
        x = torch.cat([torch.zeros(16), share @ generator.embed.weight.detach()])
        return generator.start(x[None, :, None, None]).detach().mean(dim=(0, 2, 3))

    rare, even = torch.tensor([0.9, 0.1, 0.0]), torch.full((3,), 1 / 3)
    generator.eval()
    for part in normalised(generator):
        part.requires_grad_(False)
    for share, other in ((rare, even), (even, rare)):
        generator.get_buffer("class_share").copy_(share)
        own: Any = standing_statistics(generator)
        got, deviation = own.start_norm.running_mean, own.start_norm.running_var.sqrt()
        assert ((got - means(share)) / deviation).abs().max() < 0.03
        assert ((got - means(other)) / deviation).abs().max() > 0.3


def test_a_generator_without_batch_norm_comes_back_untouched() -> None:
    generator = build_generator(replace(SMALL, generator=Generator(name="stylegan2", width=4)))
    before = fingerprint(generator)
    assert standing_statistics(generator) is generator
    assert fingerprint(generator) == before and generator.training


@pytest.mark.parametrize("blocks", ["large", "small"])
def test_faster_forms_give_the_same_statistics(
    blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "LATENTS", 256)
    torch.manual_seed(0)
    plain = FastGAN(16, 32, 1, blocks, True, True)
    quick = deepcopy(plain).to(memory_format=torch.channels_last)
    fast.enable(quick, fast.ALL)
    pairs = zip(
        standing_statistics(plain).state_dict().items(),
        standing_statistics(quick).state_dict().values(),
        strict=True,
    )
    for (key, a), b in pairs:
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4), key


def test_every_process_computes_them_by_itself(trained: Trained) -> None:
    """While the first one evaluates the others wait: statistics of all would wait for ever.

    A kept generator knows nothing of the groups that it was trained in, so they do not count.
    """
    together = deepcopy(trained.averaged)
    group_batch_norm(together, 8, World(1, 2))
    assert fingerprint(standing_statistics(together)) == fingerprint(trained.own)


def test_the_copy_of_a_compiled_generator_is_not_compiled(trained: Trained) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("compiled")

    raw = deepcopy(trained.averaged)
    raw.compile(backend=refuse)
    assert fingerprint(standing_statistics(raw)) == fingerprint(trained.own)


def test_evaluating_does_not_change_what_is_trained(
    narrow: None, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without snapshots, one with, and one that was stopped and resumed among them."""
    monkeypatch.setattr(standing, "LATENTS", 128)
    cfg = replace(CFG, train=replace(CFG.train, total_kimg=0.048))

    def final(name: str, at: tuple[int, ...], stop: int | None = None) -> tuple[str, str]:
        seen: list[Snapshot] = []
        stopping = None if stop is None else lambda: bool(seen) and seen[-1].nimg >= stop
        for snapshot in train(cfg, tmp_path / name, data_dir, at, should_stop=stopping):
            seen.append(snapshot)
            standing_statistics(snapshot.generator)
        return fingerprint(seen[-1].generator), fingerprint(seen[-1].discriminator.heads)

    straight = final("straight", ())
    assert final("evaluated", (16, 32)) == straight
    stopped = final("resumed", (16, 32), stop=32)
    assert stopped != straight
    assert final("resumed", (16, 32)) == straight
