"""Class-conditional training: labels in the data, in the generator and in the discriminators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from projgan.classes import labels_for
from projgan.config import Backbone, Config, Data, Discriminator, Generator, Projection, Train
from projgan.data.prepare import prepare
from projgan.discriminators.projected import build_discriminator
from projgan.errors import ConfigError, DataError
from projgan.generators import build_generator
from projgan.rng import Coordinates, Stream
from projgan.sample import generate, interpolate, load_generator, save_generator
from projgan.standing_statistics import standing_statistics
from projgan.train import train
from projgan.trainer import Trainer

CPU = torch.device("cpu")
CFG = Config(
    data=Data(name="made", resolution=32, classes=3),
    backbone=Backbone(name="resnet18", zoo="lab", weights="random"),
    projection=Projection(channels=16),
    discriminator=Discriminator(base=4, width=32, cmap=8),
    generator=Generator(width=4, z_dim=16, embed=12, output="tanh"),
    train=Train(batch=8, total_kimg=0.016, ema_kimg=0.02),
)
STYLEGAN2 = replace(
    CFG,
    generator=Generator(name="stylegan2", width=4, z_dim=16, w_dim=16, path_length=2.0),
    discriminator=Discriminator(kind="stylegan2", width=32, cmap=8, r1=1.0),
    train=replace(CFG.train, loss="nonsaturating"),
)
METHODS = {
    "projected": CFG,
    "rgb": replace(CFG, discriminator=replace(CFG.discriminator, kind="rgb")),
    "perceptual": replace(CFG, discriminator=replace(CFG.discriminator, kind="perceptual")),
    "extra_rgb": replace(CFG, discriminator=replace(CFG.discriminator, extra_rgb=True)),
    "stylegan2": STYLEGAN2,
}


def where(count: int = 4, stream: int = Stream.LATENT_EVAL) -> Coordinates:
    return Coordinates(0, stream, torch.arange(count))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Three classes, of which the first has six of nine images."""
    rng = np.random.default_rng(0)
    for name, count in (("a", 6), ("b", 2), ("c", 1)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    prepare("made", tmp_path / "images", 32, tmp_path)
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_the_class_reaches_images_and_logits(method: str) -> None:
    cfg = METHODS[method]
    generator = build_generator(cfg)
    z, one = where().normal(16), torch.zeros(4, dtype=torch.int64)
    generator.eval()
    images = [generator(z, where(), labels=one + c) for c in (0, 1)]
    assert images[0].shape == (4, 3, 32, 32) and not torch.allclose(*images)
    discriminator = build_discriminator(cfg).eval()
    logits = [discriminator(images[0], one + c) for c in (0, 1)]
    for a, b in zip(*logits, strict=True):
        assert a.shape == b.shape and a.shape[1] == 1 and not torch.allclose(a, b)
    with pytest.raises((AssertionError, TypeError)):
        generator(z, where())


def test_projecting_is_an_inner_product() -> None:
    discriminator = build_discriminator(CFG).eval()
    heads = discriminator.heads
    maps = discriminator.features(torch.randn(4, 3, 32, 32))
    labels = torch.tensor([0, 1, 2, 1])
    plain = heads.heads(maps)
    each = heads.embed.weight[labels]
    each = each / each.square().mean(dim=1, keepdim=True).sqrt()
    for x, y in zip(plain, heads(maps, labels), strict=True):
        assert x.shape[1] == 8
        wanted = torch.einsum("nchw,nc->nhw", x, each)[:, None] / 8**0.5
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_trains_every_embedding(method: str) -> None:
    trainer = Trainer(METHODS[method], CPU)
    parts = (trainer.generator, trainer.discriminator.heads)
    before = [{n: p.detach().clone() for n, p in part.named_parameters()} for part in parts]
    trainer.step(torch.rand(8, 3, 32, 32) * 2 - 1, torch.arange(8))
    for part, old in zip(parts, before, strict=True):
        found = {n: p for n, p in part.named_parameters() if "embed" in n}
        assert found and all(not torch.equal(p, old[n]) for n, p in found.items())


@pytest.mark.parametrize("method", ["projected", "stylegan2"])
def test_such_a_run_resumes_to_the_bit_and_draws_classes_as_the_data_have_them(
    method: str, data_dir: Path
) -> None:
    cfg = METHODS[method]
    *_, whole = train(cfg, data_dir / "whole", data_dir, ())
    cut = train(cfg, data_dir / "cut", data_dir, (8,))
    next(cut)
    cut.close()
    *_, resumed = train(cfg, data_dir / "cut", data_dir, (8,))
    for (name, a), b in zip(
        whole.generator.state_dict().items(), resumed.generator.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    torch.testing.assert_close(whole.generator.class_share, torch.tensor([6.0, 2, 1]) / 9)
    drawn = labels_for(whole.generator, where(6000))
    assert drawn is not None
    share = torch.bincount(drawn, minlength=3) / 6000
    torch.testing.assert_close(share, torch.tensor([6.0, 2, 1]) / 9, atol=0.03, rtol=0)
    own = standing_statistics(whole.generator)
    # As a file it knows its classes, and its images are those of then.
    save_generator(data_dir / "g.safetensors", whole.generator, cfg, 16)
    for norms, then in (("copied", whole.generator), ("standing", own)):
        loaded, _, _ = load_generator(data_dir / "g.safetensors", norms)
        one, two = (next(generate(g, 0, range(4))) for g in (then, loaded))
        assert torch.equal(one, two)
    assert [len(x) for x in interpolate(loaded, 0, range(2), 3)] == [4, 4]


def test_real_images_are_shown_with_their_own_class(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from projgan.data.dataset import open_dataset

    dataset = open_dataset(CFG.data, data_dir)
    by_pixels = {x.tobytes(): int(c) for x, c in zip(dataset.images, dataset.labels, strict=True)}  # type: ignore[arg-type]
    seen: list[int] = []
    step = Trainer.step

    def watched(self: Trainer, real: torch.Tensor, index: torch.Tensor) -> object:
        pixels = ((real + 1) * 127.5).round().to(torch.uint8).numpy()
        labels = self.real_labels(index).tolist()
        assert labels == [by_pixels[x.tobytes()] for x in pixels]
        seen.extend(labels)
        return step(self, real, index)

    monkeypatch.setattr(Trainer, "step", watched)
    cfg = replace(CFG, data=replace(CFG.data, mirror=False))
    list(train(cfg, data_dir / "run", data_dir, ()))
    assert len(seen) == 16 and set(seen) == {0, 1, 2}


def test_what_makes_no_sense_is_refused(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="knows no classes"):
        replace(CFG, discriminator=Discriminator(kind="fastgan"))
    with pytest.raises(ConfigError, match="2 or more"):
        Data(classes=1)
    few = replace(CFG, data=replace(CFG.data, classes=2))
    with pytest.raises(DataError, match=r"give data\.classes=3"):
        next(train(few, data_dir / "few", data_dir, ()))
    lab = replace(CFG, data=Data(name="clevr", resolution=32, classes=3))
    with pytest.raises(DataError, match="has no classes"):
        next(train(lab, data_dir / "lab", data_dir, ()))
