"""Few images: what is measured of learning by heart, and what a step leaves out against it."""

from __future__ import annotations

import csv
import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli.main import main
from bench.config import grid as grids
from bench.config import paths
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.metrics.training_set import NO_HELD_OUT, logit_gap, mean_logits, memorised, split
from bench.run.runner import execute
from projgan.augment.features import augment_features, level_weights
from projgan.config import Backbone, Config, Data, Discriminator, Generator, Projection, Train
from projgan.data.dataset import Dataset, training_indices
from projgan.errors import ConfigError
from projgan.files import write_json_atomic
from projgan.losses import discriminator_loss, generator_loss
from projgan.rng import Coordinates
from projgan.train import train
from projgan.trainer import Trainer

CPU = torch.device("cpu")
LAB = Config(
    data=Data(name="clevr", resolution=32, images=32, subset=8),
    backbone=Backbone(name="resnet18", zoo="lab", weights="random"),
    projection=Projection(channels=16),
    discriminator=Discriminator(base=4, width=32),
    generator=Generator(width=4, z_dim=16, output="tanh"),
    train=Train(batch=8, total_kimg=0.016, ema_kimg=0.02),
)


def test_a_gap_is_counted_in_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    held = rng.normal(size=(4000, 2)) * [1.0, 5.0]
    assert logit_gap(held + np.array([2.0, 10.0]), held) == pytest.approx(2.0, abs=0.1)
    assert logit_gap(held, held) == 0.0


def test_copies_are_all_memorised_and_fresh_samples_by_halves() -> None:
    rng = np.random.default_rng(0)
    trained, held, fresh = (rng.normal(size=(400, 8)).astype(np.float32) for _ in range(3))
    assert memorised(trained[:50] + 0.01, trained, held) == 100.0
    assert memorised(held[:50], trained, held) == 0.0
    assert memorised(fresh, trained, held) == pytest.approx(50, abs=8)
    assert memorised(fresh, trained, trained) == 50.0


def test_the_split_is_of_trained_and_never_trained_images() -> None:
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 4), np.uint8)
    dataset = Dataset("made", pixels, "print")
    cfg = Data(name="made", path="x", resolution=32, subset=6)
    both = split(cfg, dataset)
    assert both is not None
    trained, held = ({int(x[0, 0, 0]) for x in side} for side in both)
    assert trained == set(training_indices(cfg, 20).tolist())
    assert len(held) == 6 and not trained & held
    assert split(replace(cfg, subset=None), dataset) is None
    assert [len(x) for x in split(replace(cfg, subset=17), dataset) or ()] == [3, 3]


def test_looking_at_logits_changes_nothing() -> None:
    trainer = Trainer(LAB, CPU)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)
    before = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
    found = mean_logits(trainer.discriminator, images, CPU)
    assert found.shape == (5, 4)
    after = trainer.discriminator.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert trainer.discriminator.heads.training
    np.testing.assert_allclose(mean_logits(trainer.discriminator, images[3:], CPU), found[3:], 1e-4)


def test_a_run_measures_both_and_says_why_not(tmp_path: Path) -> None:
    of_training = {"logit_gap", "copied:memorised"}  # the first looks at no generated image
    for subset, wanted in ((8, {"copied:swd", *of_training}), (None, {"copied:swd"})):
        cfg = replace(LAB, data=replace(LAB.data, subset=subset))
        metrics = ("swd", "logit_gap", "memorised")
        spec = RunSpec("g", "Row", {}, "lab", cfg, EvalSpec(metrics, fake=16))
        run = RunPaths(tmp_path / spec.run_id)
        write_json_atomic(run.spec, spec.to_json())
        record = execute(run.dir, tmp_path)
        assert record["status"] == "finished", record["error"]
        last = record["snapshots"][-1]
        assert set(last["metrics"]) == wanted
        assert last["missing"] == dict.fromkeys(of_training - wanted, NO_HELD_OUT)
        assert ("subset_sha256" in record["data"]) == (subset is not None)
    # A kept snapshot has no discriminator any more, but its images.
    spec = replace(spec, config=LAB, eval=replace(spec.eval, metrics=("logit_gap", "memorised")))
    run = RunPaths(tmp_path / spec.run_id)
    found = execute(run.dir, tmp_path)["snapshots"][-1]
    assert "copied:memorised" in found["metrics"] and found["metrics"]["logit_gap"] is not None


def test_a_step_leaves_out_the_same_channels_of_all_images() -> None:
    maps = [torch.ones(4, 64, 2, 2), torch.ones(4, 32, 2, 2)]
    where = Coordinates(0, 11, torch.arange(4))
    dropped = augment_features(maps, Projection(drop_channels=0.5), 0, 3, where)
    for x in dropped:
        alive = x[:, :, 0, 0] != 0
        assert (alive == alive[0]).all() and 0.2 < alive.float().mean() < 0.8
        assert x.mean() == pytest.approx(1.0)  # what is left stands for all
    again = augment_features(maps, Projection(drop_channels=0.5), 0, 3, where)
    other = augment_features(maps, Projection(drop_channels=0.5), 0, 4, where)
    assert torch.equal(again[0], dropped[0]) and not torch.equal(other[0], dropped[0])
    assert augment_features(maps, Projection(), 0, 3, where) is maps


def test_noise_is_relative_to_the_maps_and_follows_the_images() -> None:
    x = 10 * torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    where = Coordinates(0, 11, torch.arange(64))
    (noisy,) = augment_features([x], Projection(noise=0.5), 0, 0, where)
    assert (noisy - x).std() == pytest.approx(5.0, rel=0.05)
    (again,) = augment_features([x], Projection(noise=0.5), 0, 9, where)
    assert torch.equal(again, noisy)


def test_levels_sit_out_and_never_all() -> None:
    cfg = Projection(drop_levels=0.9)
    rows = [level_weights(cfg, 0, number, 4, CPU) for number in range(200)]
    weights = torch.stack([row for row in rows if row is not None])
    assert (weights.sum(dim=1) - 4).abs().max() < 1e-5
    assert 0.6 < (weights == 0).float().mean() < 0.9
    assert level_weights(Projection(), 0, 0, 4, CPU) is None
    real, fake = ([torch.randn(4, 1, 2, 2) for _ in range(2)] for _ in range(2))
    first = discriminator_loss(real[:1], fake[:1], "sum")
    one = discriminator_loss(real, fake, "sum", weights=torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(one, 2 * first)


def test_balanced_feedback_weighs_hard_cases() -> None:
    easy, hard = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), -3.0)
    fake = torch.cat([easy, hard]).requires_grad_()
    generator_loss([fake], "sum", balanced=True).backward()
    assert fake.grad is not None
    given = fake.grad.flatten().abs()
    assert given[1] > 5 * given[0] and given.sum() == pytest.approx(1.0)
    # Real images are judged rightly, generated ones wrongly: the latter count for more.
    real, wrong = (torch.full((2, 1, 1, 1), 0.5).requires_grad_() for _ in range(2))
    discriminator_loss([real], [wrong], "sum", balanced=True).backward()
    assert real.grad is not None and wrong.grad is not None
    assert wrong.grad.sum() > 1 > real.grad.abs().sum()
    assert wrong.grad.sum() + real.grad.abs().sum() == pytest.approx(2.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"projection": Projection(channels=16, drop_levels=0.5, drop_channels=0.3, noise=0.2)},
        {"train": replace(LAB.train, feedback="balanced")},
    ],
    ids=["disturbed", "balanced"],
)
def test_such_a_run_resumes_to_the_bit(changes: dict[str, object], tmp_path: Path) -> None:
    cfg = replace(LAB, **changes)  # type: ignore[arg-type]
    *_, whole = train(cfg, tmp_path / "whole", tmp_path, ())
    cut = train(cfg, tmp_path / "cut", tmp_path, (8,))
    next(cut)
    cut.close()
    *_, resumed = train(cfg, tmp_path / "cut", tmp_path, (8,))
    *_, plain = train(LAB, tmp_path / "plain", tmp_path, ())
    ends = [s.generator.state_dict()["to_rgb.parametrizations.weight.original"] for s in (
        whole, resumed, plain)]  # fmt: skip
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_what_makes_no_sense_is_refused() -> None:
    for settings in ({"drop_levels": 1.0}, {"drop_channels": -0.1}, {"noise": -1.0}):
        with pytest.raises(ConfigError):
            Projection(**settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_grid_shows_both_measures_of_every_row(tmp_path: Path) -> None:
    """The grid that ships, with fewer images and steps: table, records and page."""
    text = (paths.GRIDS / "small-data.yaml").read_text()
    for old, new in (
        ("data.subset: [100, 500, 1000, 10000]", "data.subset: [12, 24]"),
        ("memorised]}", "memorised], every_kimg: 1, also_at_kimg: [], fake: 32, real: 64}"),
        ("data.images: 16384", "data.images: 64, train.batch: 8, train.total_kimg: 0.016"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "small-data.yaml").write_text(text)
    here = {f"{part}_dir": tmp_path / part for part in ("runs", "results", "data")}
    words = [f"grid={tmp_path / 'small-data.yaml'}", "dispatch=inprocess"]
    assert main([*words, *(f"{key}={place}" for key, place in here.items())]) == 0

    rows = [row.label for row in grids.load("small-data").rows]
    assert len(rows) == 9
    results = tmp_path / "results" / "small-data"
    with (results / "records.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {(line["row"], line["data.subset"]) for line in lines} == {
        (row, str(n)) for row in rows for n in (12, 24)
    }
    for line in lines:
        assert line["status"] == "finished", line
        assert np.isfinite(float(line["logit_gap"])) and 0 <= float(line["memorised"]) <= 100
    with (results / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * len(rows)
    page = html.unescape((results / "index.html").read_text())
    for line in table:
        shown = [line[column] for column in table[0] if column in ("logit_gap", "memorised")]
        assert len(shown) == 2 and all(np.isfinite(float(value)) for value in shown)
    assert all(text in page for text in (*rows, "logit gap", "memorised"))
