"""Pretraining: every objective learns, files say what they hold, shipped accuracies are true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from projgan import scenes
from projgan.backbones import registry
from projgan.backbones.build import read_weights
from projgan.backbones.extractor import build_lab_extractor
from projgan.backbones.lab import classifier
from projgan.pretrain.__main__ import main
from projgan.pretrain.card import read_facts
from projgan.pretrain.loop import Budget, fit, order
from projgan.pretrain.make import CLASSES, held_out_accuracy, make
from projgan.pretrain.objectives import (
    Contrastive,
    Distilled,
    Objective,
    SelfSupervised,
    Supervised,
    tokenised,
    vocabulary,
)
from projgan.pretrain.pictures import (
    HELD_OUT,
    RESOLUTION,
    TRAIN,
    as_input,
    cropped,
    jittered,
    rendered,
)

SMALL = 64


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return scenes.render("pretrain", TRAIN, range(SMALL), RESOLUTION)


def objective(kind: str) -> Objective:
    torch.manual_seed(0)
    labels = torch.from_numpy(scenes.labels("pretrain", TRAIN, range(SMALL)))
    if kind == "contrastive":
        captions = scenes.captions("pretrain", TRAIN, range(SMALL))
        return Contrastive("r50_clip", captions, CLASSES)
    if kind == "distilled":
        path = registry.WEIGHTS / "efficientnet_lite1-s0.safetensors"
        teacher = classifier("efficientnet_lite1", read_weights(path, ""))
        return Distilled("deit", labels, len(CLASSES), teacher)
    if kind == "self":
        return SelfSupervised()
    return Supervised(kind, labels, len(CLASSES))


@pytest.mark.parametrize(
    "kind", ["efficientnet_lite1", "resnet18", "vit", "contrastive", "distilled", "self"]
)
def test_every_objective_learns(kind: str, pictures: np.ndarray) -> None:
    budget = Budget(steps=16, batch=24, train_images=SMALL)
    learner = objective(kind)
    losses = fit(learner, pictures, budget, seed=0, say=lambda _: None)
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1
    assert all(torch.isfinite(t).all() for t in learner.shipped().values())


def test_same_seed_same_weights(pictures: np.ndarray) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        learner = objective("efficientnet_lite0")
        fit(learner, pictures, Budget(steps=3, batch=16), seed, say=lambda _: None)
        return learner.shipped()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b, c = trained(0), trained(0), trained(1)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["conv_stem.weight"], c["conv_stem.weight"])


def test_every_image_is_shown_once_before_any_is_shown_again() -> None:
    batches = order(10, 4, seed=0)
    shown = torch.cat([next(batches) for _ in range(5)])
    assert sorted(shown[:10].tolist()) == sorted(shown[10:].tolist()) == list(range(10))
    assert shown[:10].tolist() != shown[10:].tolist()


def test_whole_image_is_the_largest_crop() -> None:
    images = torch.rand(8, 3, 32, 32)
    shown = cropped(images, 1.0, torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear")
    same = [torch.allclose(s, i, atol=1e-4) for s, i in zip(shown, large, strict=True)]
    flipped = [torch.allclose(s, i.flip(2), atol=1e-4) for s, i in zip(shown, large, strict=True)]
    assert all(a != b for a, b in zip(same, flipped, strict=True))
    assert any(same) and any(flipped)


def test_jitter_keeps_which_channel_is_strongest() -> None:
    images = torch.full((16, 3, 64, 64), -0.6)
    images[:, 0] = 0.6
    means = jittered(images, torch.Generator().manual_seed(0)).mean((2, 3))
    assert (means.argmax(1) == 0).all() and means.std(0).min() > 0.01


def test_caption_words_are_told_apart_by_place() -> None:
    captions = ["a red cube on a blue floor", "a blue cube on a red floor"]
    words, length = vocabulary(captions)
    tokens = tokenised(captions, words, length)
    assert tokens.shape == (2, 7) and not torch.equal(tokens[0], tokens[1])
    assert sorted(tokens[0].tolist()) == sorted(tokens[1].tolist())
    tower = Contrastive("r50_clip", captions, ()).text_tower.eval()
    a, b = tower(tokens)
    assert not torch.allclose(a, b, atol=1e-4)
    padded = torch.cat([tokens, torch.zeros(2, 3, dtype=torch.int64)], 1)
    tower.place.data = torch.cat([tower.place.data, torch.randn(3, tower.place.shape[1])])
    torch.testing.assert_close(tower(padded)[0], a, rtol=1e-4, atol=1e-5)


def test_rendered_images_are_cached(tmp_path: Path) -> None:
    said: list[str] = []
    first = rendered(tmp_path, "pretrain", 5, 6, said.append)
    again = rendered(tmp_path, "pretrain", 5, 6, said.append)
    assert len(said) == 1 and np.array_equal(first, again)
    assert np.array_equal(first, scenes.render("pretrain", 5, range(6), RESOLUTION))
    assert as_input(first).min() >= -1 and as_input(first).max() <= 1

    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert np.array_equal(rendered(tmp_path, "pretrain", 5, 6, said.append), first)
    assert "damaged" in said[1]


def test_a_network_from_nothing_to_its_file(tmp_path: Path) -> None:
    budget = Budget(steps=2, batch=8, train_images=16, held_out_images=10)
    path = make("efficientnet_lite4", 3, budget, tmp_path, tmp_path / "data", False)
    facts = read_facts(path)
    assert facts["images_seen"] == 16 and facts["pretrain_seed"] == 3
    assert path.name in (tmp_path / "card.json").read_text()
    assert "efficientnet_lite4-s3" in (tmp_path / "CARD.md").read_text()
    assert all(t.dtype == torch.float32 for t in read_weights(path, "").values())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("vitt", "Did you mean 'vit'"),
        ("vit --steps 0", "--steps: give 1 or more"),
        ("vit --steps 10", "would replace the weights that ship"),
        ("vit --seeds=-1", "--seeds: give 0 or more"),
        ("deit", "efficientnet_lite4-s0.safetensors: deit's teacher is missing"),
        ("vit --out file/weights", "--out file/weights: cannot be written"),
        ("vit --data-dir file", "--data-dir file: cannot be written"),
    ],
)
def test_what_is_refused_before_anything_is_rendered(
    command: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("rendering or training began")

    monkeypatch.setattr("projgan.pretrain.make.make", refuse)
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    out = [] if "--steps 10" in command else ["--out=weights"]
    assert main([*out, *command.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["efficientnet_lite1", "r50_clip", "deit"])
def test_shipped_accuracy_is_what_the_card_says(name: str) -> None:
    card = registry.card_of(name, 0)
    assert card is not None
    n = 300
    images = scenes.render("pretrain", HELD_OUT, range(n), RESOLUTION)
    state = read_weights(registry.WEIGHTS / card["file"], "")
    accuracy = held_out_accuracy(classifier(name, state), images)
    p = card["accuracy"] / 100
    assert abs(accuracy - p) < 4 * (p * (1 - p) / n) ** 0.5


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features [N, D]."""
    first, second = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second) - 2 * root)


def test_extractor_reacts_to_what_generators_get_wrong() -> None:
    images = as_input(scenes.render("clevr", 77, range(900), RESOLUTION))
    extractor = build_lab_extractor()

    def features(x: torch.Tensor) -> np.ndarray:
        return torch.cat([extractor(part) for part in x.split(100)]).double().numpy()

    half, rest = features(images[:450]), images[450:]
    floor = _distance(half, features(rest))
    wrong = {
        "blurred": torch.nn.functional.avg_pool2d(rest, 5, 1, 2),
        "other colours": rest[:, [1, 2, 0]],
        "two halves": torch.cat([rest[..., :16], rest.roll(1, 0)[..., 16:]], 3),
        "few modes": rest[:20].repeat(23, 1, 1, 1)[:450],
    }
    for what, x in wrong.items():
        assert _distance(half, features(x)) > 1.3 * floor, what
