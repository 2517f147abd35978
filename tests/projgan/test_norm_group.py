"""Batch norm over groups: as if each group were a batch that torch's own batch norm sees alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_config import OTHERS, SMALL
from torch import Tensor, nn

from projgan.config import Config, Train
from projgan.errors import ConfigError
from projgan.generators import build_generator
from projgan.layers import Normalised
from projgan.parallel import GroupedBatchNorm, group_batch_norm
from projgan.sample import load_generator, save_generator
from projgan.speed import fast
from projgan.trainer import Trainer, micro_batches

STEPS = {
    "released fastgan, plain": (SMALL, fast.NONE),
    "released fastgan": (SMALL, fast.ALL),
    **{name: (OTHERS[name], fast.ALL) for name in ("perceptual", "rgb", "fastgan")},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("group", [2, 4, 8])
def test_each_group_is_normalised_alone(group: int, layout: torch.memory_format) -> None:
    """Outputs, first and second derivatives, and running statistics moved once for each group."""
    whole, plain = nn.Sequential(nn.BatchNorm2d(3)), nn.BatchNorm2d(3)
    group_batch_norm(whole, group)
    x = torch.randn(8, 3, 4, 5, generator=torch.Generator().manual_seed(1)) + 3
    x = x.contiguous(memory_format=layout).requires_grad_()
    for _ in range(2):
        out = whole(x)
        expected = torch.cat([plain(part) for part in x.split(group)])
    assert torch.equal(out, expected)
    assert out.is_contiguous(memory_format=layout)
    towards = torch.linspace(-1, 2, x.numel()).sin().view_as(x)
    for a, b in ((out, expected),):
        ways = [torch.autograd.grad((y * towards).sum(), x, create_graph=True)[0] for y in (a, b)]
        assert torch.allclose(*ways, atol=1e-6)
        again = [torch.autograd.grad(way.square().sum(), x)[0] for way in ways]
        assert torch.allclose(*again, atol=1e-5)
    (norm,) = whole
    assert isinstance(norm, GroupedBatchNorm)
    for (name, one), two in zip(norm.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(one, two, atol=1e-6), name
    assert torch.equal(whole.eval()(x), norm(x))


def settled(cfg: Config, switches: frozenset[str]) -> Trainer:
    """Whose spectral norms are exact, so that a further power iteration changes nothing."""
    trainer = Trainer(cfg, torch.device("cpu"), switches=switches)
    for network in (trainer.generator, trainer.discriminator.heads):
        for part in network.modules():
            if isinstance(part, Normalised):
                parametrized: Any = part.parametrizations["weight"]  # type: ignore[index]
                norm = parametrized[0]
                matrix = parametrized.original.detach().movedim(norm.dim, 0).flatten(1)
                left, _, right = torch.linalg.svd(matrix, full_matrices=False)
                norm._u.copy_(left[:, 0])
                norm._v.copy_(right[0])
    for optimiser in (trainer.optim_g, trainer.optim_d):
        optimiser.param_groups[0]["lr"] = 0.0
    return trainer


def one_step(trainer: Trainer) -> dict[str, Tensor]:
    """Losses, gradients, and the generator's running statistics."""
    real = torch.linspace(-1, 1, 8 * 3 * 32 * 32).mul(99).sin().view(8, 3, 32, 32)
    losses = trainer.step(real, torch.arange(8))
    out = {"losses": torch.stack(losses)}
    for name, network in (("G", trainer.generator), ("D", trainer.discriminator.heads)):
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        out[f"gradients of {name}"] = torch.cat(gradients)
    statistics = [b for k, b in trainer.generator.named_buffers() if "running" in k]
    return out | {"statistics": torch.cat(statistics)}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_that_of_micro_batches_as_large_as_a_group(name: str) -> None:
    """The released loop: micro-batches one after the other, plain batch norm, no groups."""
    cfg, switches = STEPS[name]
    released = one_step(settled(replace(cfg, train=Train(batch=8, micro_batch=4)), switches))
    whole = one_step(settled(replace(cfg, train=Train(batch=8)), switches))
    for micro in (None, 4):
        train = Train(batch=8, norm_group=4, micro_batch=micro)
        grouped = one_step(settled(replace(cfg, train=train), switches))
        for part, expected in released.items():
            difference = (grouped[part] - expected).norm()
            assert difference <= 1e-3 * expected.norm(), (micro, part)
            assert (whole[part] - expected).norm() > 10 * difference, part


def test_groups_are_whole_in_every_micro_batch() -> None:
    def sizes(*given: int | None) -> list[int]:
        return [part.stop - part.start for part in micro_batches(*given)]  # type: ignore[arg-type]

    assert sizes(64, 24, 8) == [16, 24, 24] and sizes(64, 8, 8) == [8] * 8
    assert sizes(64, None, 8) == [64] and sizes(4, 4, 4) == [4]
    with pytest.raises(ConfigError, match=r"train\.micro_batch=4: batch norm takes 8 of the 64"):
        micro_batches(64, 4, 8)


def test_a_group_divides_the_batch() -> None:
    for group in (1, 3, 16):
        with pytest.raises(ConfigError, match=rf"train\.norm_group={group}: .* train\.batch=8"):
            Train(batch=8, norm_group=group)
    assert Train(batch=64, norm_group=8).least_part(8) == 8
    assert Train(batch=64, norm_group=8).least_part(16) == 4  # all that such a process has


def test_every_copy_of_a_generator_has_the_groups(tmp_path: object) -> None:
    """In training mode it normalises as in training, whoever made it."""
    cfg = replace(SMALL, train=Train(batch=8, norm_group=4))
    trainer = Trainer(cfg, torch.device("cpu"))
    path = tmp_path / "g.safetensors"  # type: ignore[operator]
    save_generator(path, trainer.average, cfg, 0)
    for generator in (trainer.generator, trainer.average, build_generator(cfg), load_generator(path)[0]):  # fmt: skip  # noqa: E501
        norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(isinstance(m, GroupedBatchNorm) and m.group == 4 for m in norms)
    frozen = trainer.discriminator.backbone
    assert frozen is not None
    assert not any(isinstance(m, GroupedBatchNorm) for m in frozen.modules())
