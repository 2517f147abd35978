"""Discriminators against the counts in FACTS of the paper and the released code."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from projgan.config import Backbone, Config, Data, Discriminator, Projection
from projgan.discriminators.projected import MultiScaleHeads, block_count, build_discriminator
from projgan.errors import ConfigError
from projgan.layers import millions

LITE = [24, 40, 112, 320]
CSM = [64, 64, 128, 256]
CCM = [64, 128, 256, 512]
RELEASED = Discriminator(depth="by_map", logits="native", reduce="mean")


@pytest.mark.parametrize(
    ("channels", "sizes", "settings", "expected"),
    [
        (CSM, [128, 64, 32, 16], RELEASED, 10.33),
        (CSM, [128, 64, 32, 16], replace(RELEASED, separable=True), 0.70),
        (CCM, [64, 32, 16, 8], RELEASED, 7.5),
        (LITE, [64, 32, 16, 8], RELEASED, 5.9),
        (CSM, [128, 64, 32, 16], replace(RELEASED, depth="matched"), 10.33),
    ],
)
def test_parameter_counts_of_the_released_code(
    channels: list[int], sizes: list[int], settings: Discriminator, expected: float
) -> None:
    heads = MultiScaleHeads(settings, channels, sizes)
    assert millions(heads) == pytest.approx(expected, abs=0.005 if expected > 10 else 0.05)


def test_the_released_depth_changes_with_the_projection_and_matched_does_not() -> None:
    for settings, plain, projected in [
        (RELEASED, [3, 2, 1, 0], [4, 3, 2, 1]),
        (Discriminator(), [4, 3, 2, 1], [4, 3, 2, 1]),
    ]:
        sizes = [64, 32, 16, 8]
        assert [block_count(settings, i + 1, s) for i, s in enumerate(sizes)] == plain
        assert [block_count(settings, i + 1, 2 * s) for i, s in enumerate(sizes)] == projected


@pytest.mark.parametrize("size", [224, 256, 512])
@pytest.mark.parametrize(("logits", "expected"), [("4x4", 4), ("native", None)])
def test_logit_maps_are_equal_on_all_levels(size: int, logits: str, expected: int | None) -> None:
    settings = Discriminator(depth="by_map", logits=logits, width=64)  # type: ignore[arg-type]
    sizes = [size // stride * 2 for stride in (4, 8, 16, 32)]
    heads = MultiScaleHeads(settings, [8] * 4, sizes)
    maps = [torch.zeros(2, 8, s, s) for s in sizes]
    shapes = {tuple(logit.shape) for logit in heads(maps)}
    # 4x4 at 224 and 5x5 at 256 come out of the released network by themselves.
    native = {224: 4, 256: 5, 512: 5}[size]
    assert shapes == {(2, 1, expected or native, expected or native)}


def lab(**sections: object) -> Config:
    base = Config(
        data=Data(name="clevr", resolution=32),
        backbone=Backbone(zoo="lab", weights="random"),
        projection=Projection(channels=32),
        discriminator=Discriminator(base=4, width=64),
    )
    return replace(base, **sections)  # type: ignore[arg-type]


@pytest.mark.parametrize("projection", ["none", "ccm", "ccm_csm"])
@pytest.mark.parametrize("kind", ["projected", "perceptual"])
@pytest.mark.parametrize("layers", [(1,), (1, 2), (1, 2, 3, 4), (3, 4)])
def test_every_row_of_table_1_builds(projection: str, kind: str, layers: tuple[int, ...]) -> None:
    cfg = lab(
        projection=Projection(kind=projection, channels=32),  # type: ignore[arg-type]
        discriminator=Discriminator(kind=kind, layers=layers, base=4, width=64),  # type: ignore[arg-type]
    )
    discriminator = build_discriminator(cfg)
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    logits = discriminator(images)
    assert len(logits) == (1 if kind == "perceptual" else len(layers))
    assert {tuple(logit.shape) for logit in logits} == {(4, 1, 4, 4)}
    sum(logit.sum() for logit in logits).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.backbone.parameters())  # type: ignore[union-attr]


def test_the_rgb_baseline_has_no_backbone() -> None:
    discriminator = build_discriminator(lab(discriminator=Discriminator(kind="rgb", base=4)))
    assert discriminator.backbone is None
    assert [tuple(x.shape) for x in discriminator(torch.randn(2, 3, 32, 32))] == [(2, 1, 4, 4)]


def test_the_projection_follows_the_seed_and_heads_do_not_move_it() -> None:
    one, two = build_discriminator(lab()), build_discriminator(lab())
    wide = build_discriminator(lab(discriminator=Discriminator(base=4, width=128)))
    other = build_discriminator(replace(lab(), train=replace(lab().train, seed=1)))

    def weight(d: object) -> torch.Tensor:
        return d.projection.ccm[0].weight  # type: ignore[attr-defined, no-any-return]

    assert torch.equal(weight(one), weight(two)) and torch.equal(weight(one), weight(wide))
    assert not torch.equal(weight(one), weight(other))


def test_training_mode_leaves_the_backbone_in_eval_mode() -> None:
    discriminator = build_discriminator(lab())
    discriminator.train()
    backbone = discriminator.backbone
    assert backbone is not None and not any(m.training for m in backbone.modules())


def test_maps_too_small_for_native_logits_are_refused() -> None:
    cfg = lab(
        projection=Projection(kind="none"),
        discriminator=Discriminator(base=4, width=64, logits="native"),
    )
    with pytest.raises(ConfigError, match="too small"):
        build_discriminator(cfg)


def test_a_set_of_discriminators_on_two_networks() -> None:
    """Each network has its own projection and a discriminator on each of its chosen levels."""
    cfg = lab(
        backbone=Backbone(name="resnet18+vit", zoo="lab", weights="random"),
        discriminator=Discriminator(base=4, width=64, layers=(1, 3)),
    )
    discriminator = build_discriminator(cfg)
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    logits = discriminator(images)
    assert len(logits) == 4 and {tuple(x.shape) for x in logits} == {(4, 1, 4, 4)}
    # The deepest projected map of one network does not follow the maps of the other.
    maps = discriminator.backbone(images)
    other = [*maps[:4], *(torch.zeros_like(m) for m in maps[4:])]
    kept, moved = discriminator.projection(maps), discriminator.projection(other)
    assert all(torch.equal(a, b) for a, b in zip(kept[:4], moved[:4], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(kept[4:], moved[4:], strict=True))
    with pytest.raises(ConfigError, match="perceptual is for one network"):
        build_discriminator(replace(cfg, discriminator=Discriminator(kind="perceptual", base=4)))


def test_the_extra_rgb_discriminator_sees_the_image_and_moves_no_other() -> None:
    plain, extra = (
        build_discriminator(lab(discriminator=Discriminator(base=4, width=64, extra_rgb=on)))
        for on in (False, True)
    )
    images = torch.randn(4, 3, 32, 32)
    plain.eval(), extra.eval()
    *others, last = extra(images)
    assert all(torch.equal(a, b) for a, b in zip(plain(images), others, strict=True))
    assert last.shape == (4, 1, 4, 4)
    rgb = build_discriminator(lab(discriminator=Discriminator(kind="rgb", base=4, width=64)))
    assert millions(extra.heads) - millions(plain.heads) == pytest.approx(millions(rgb.heads))
