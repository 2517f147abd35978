"""One run: it resumes exactly, its evaluation disturbs nothing, and it learns."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_config import SMALL, fingerprint

from projgan.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from projgan.config import (
    MAX_SEED,
    Config,
    Discriminator,
    Generator,
    Optim,
    Train,
)
from projgan.data.dataset import open_dataset, sample_order
from projgan.data.loading import as_floats
from projgan.errors import ConfigError, UserError
from projgan.layers import seeded
from projgan.rng import Coordinates, Stream
from projgan.sample import generate, image_grid, load_generator, save_generator, to_uint8
from projgan.train import TrainingDiverged, round_up, train
from projgan.trainer import Trainer, micro_batches

CFG = replace(
    SMALL,
    generator=Generator(width=4, z_dim=16),
    train=Train(batch=8, total_kimg=0.064),
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def final(cfg: Config, run_dir: Path, data_dir: Path, at: tuple[int, ...] = ()) -> tuple[str, str]:
    """Hashes of the averaged generator and of the discriminators at the end."""
    *_, last = train(cfg, run_dir, data_dir, at)
    assert last.final and last.nimg == 64
    return fingerprint(last.generator), fingerprint(last.discriminator.heads)


def test_resume_equals_a_straight_run_to_the_bit(tmp_path: Path, data_dir: Path) -> None:
    straight = final(CFG, tmp_path / "straight", data_dir)
    for step in (16, 40):
        stopped = train(CFG, tmp_path / f"cut{step}", data_dir, (step,))
        assert next(stopped).nimg == step
        stopped.close()  # type: ignore[attr-defined]
        snapshots = list(train(CFG, tmp_path / f"cut{step}", data_dir, (step,)))
        # The snapshot that was resumed from comes again: its evaluation may have been lost.
        assert [s.nimg for s in snapshots] == [step, 64]
        assert fingerprint(snapshots[-1].generator) == straight[0]
        assert fingerprint(snapshots[-1].discriminator.heads) == straight[1]


def test_a_request_to_stop_loses_no_step(tmp_path: Path, data_dir: Path) -> None:
    steps: list[int] = []
    assert not list(train(CFG, tmp_path, data_dir, (), steps.append, None, lambda: len(steps) == 3))
    assert steps == [8, 16, 24]
    assert final(CFG, tmp_path, data_dir) == final(CFG, tmp_path / "straight", data_dir)
    list(train(CFG, tmp_path, data_dir, (), steps.append))
    assert steps == [8, 16, 24]  # the end comes again, no step does


def test_reading_ahead_changes_no_bit_and_no_thread_outlives_its_run(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: stopped, broken off by an error, and gone on with to the end."""
    straight = final(CFG, tmp_path / "straight", data_dir)
    monkeypatch.setattr("projgan.train.ahead_for", lambda device: 3)
    steps: list[int] = []

    def watch(nimg: int) -> None:
        assert loader_threads()
        steps.append(nimg)
        if nimg == 40:
            raise OSError("no such luck")

    run = tmp_path / "run"
    assert not list(train(CFG, run, data_dir, (), watch, None, lambda: len(steps) == 2))
    assert not loader_threads()
    with pytest.raises(OSError, match="no such luck") as held:  # with all frames of the run
        list(train(CFG, run, data_dir, (), watch))
    assert not loader_threads() and held.tb is not None and steps == [8, 16, 24, 32, 40]
    assert final(CFG, run, data_dir) == straight
    assert not loader_threads()


def loader_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("loader")]


def test_evaluating_does_not_disturb_training(tmp_path: Path, data_dir: Path) -> None:
    for snapshot in train(CFG, tmp_path / "seen", data_dir, (8, 24, 48)):
        list(generate(snapshot.generator, 5, range(20)))
        torch.rand(7)
        last = snapshot
    assert fingerprint(last.generator) == final(CFG, tmp_path / "unseen", data_dir)[0]


def test_a_finished_run_yields_its_end_again(tmp_path: Path, data_dir: Path) -> None:
    final(CFG, tmp_path, data_dir)
    assert [s.nimg for s in train(CFG, tmp_path, data_dir, ())] == [64]


def test_seeds_differ(tmp_path: Path, data_dir: Path) -> None:
    other = replace(CFG, train=replace(CFG.train, seed=1))
    assert final(CFG, tmp_path / "a", data_dir) != final(other, tmp_path / "b", data_dir)


def test_another_configuration_is_not_resumed(tmp_path: Path, data_dir: Path) -> None:
    final(CFG, tmp_path, data_dir)
    with pytest.raises(UserError, match="another configuration"):
        list(train(replace(CFG, optim=Optim(lr_g=1e-3)), tmp_path, data_dir, ()))


def test_a_checkpoint_from_before_a_field_was_added_is_resumed(
    tmp_path: Path, data_dir: Path
) -> None:
    next(train(CFG, tmp_path, data_dir, (16,)))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state is not None
    config = json.loads(state["config"])
    del config["generator"]["output"]
    save_checkpoint(tmp_path / "checkpoint.pt", state | {"config": json.dumps(config)})
    assert next(train(CFG, tmp_path, data_dir, (16,))).nimg == 16


def test_the_released_rescaling_of_d() -> None:
    """Facts of the released code: D's Adam at 16/17 of its rate, its betas to that power."""
    released = replace(CFG, optim=Optim(rescale_d=True))
    plain, lazy = (Trainer(cfg, torch.device("cpu")).optim_d.defaults for cfg in (CFG, released))
    assert plain["lr"] == 2e-4 and plain["betas"] == (0.0, 0.99)
    assert lazy["lr"] == pytest.approx(2e-4 * 16 / 17)
    assert lazy["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_the_largest_seed_is_one_that_every_draw_takes() -> None:
    with seeded(MAX_SEED, "projection"):
        assert torch.rand(1) >= 0
    where = Coordinates(MAX_SEED, Stream.FLIP, torch.arange(2))
    assert where.uniform(1).shape == (2, 1)
    assert sorted(sample_order(MAX_SEED, 0, 8, 8)) == list(range(8))
    with pytest.raises(ConfigError, match=f"from 0 to {MAX_SEED}"):
        Train(seed=MAX_SEED + 1)


def test_divergence_stops_at_its_step_and_keeps_the_evidence(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = Trainer.generator_loss, {}

    def generator_loss(self: Trainer, real: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen[int(index[0])] = real
        return whole(self, real, index) * (float("nan") if index[0] == 40 else 1)

    monkeypatch.setattr(Trainer, "generator_loss", generator_loss)
    steps = train(CFG, tmp_path, data_dir, (32,))
    assert next(steps).nimg == 32
    with pytest.raises(TrainingDiverged, match="generator's loss is nan after 48 images"):
        list(steps)
    evidence = json.loads((tmp_path / "diverged" / "diverged.json").read_text())
    assert evidence["losses"][-1]["generator"] == "nan" and evidence["losses"][-1]["nimg"] == 48
    assert float(evidence["losses"][0]["generator"]) < 100 and len(evidence["images"]) == 8
    images = open_dataset(CFG.data, data_dir).images
    named = as_floats(torch.from_numpy(images[evidence["images"]]))
    for a, b in zip(seen[40], named, strict=True):
        assert torch.equal(a, b) or torch.equal(a, b.flip(2))
    state = read_checkpoint(tmp_path / "diverged" / "state.pt")
    assert not all(bool(w.isfinite().all()) for w in state["generator"].values())
    # The run's own checkpoint is the last good state, and leads to the same end.
    assert read_checkpoint(tmp_path / "checkpoint.pt")["nimg"] == 32
    with pytest.raises(TrainingDiverged, match="after 48 images"):
        list(train(CFG, tmp_path, data_dir, (32,)))


def test_weights_that_are_no_numbers_never_become_a_checkpoint(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer.step

    def step(self: Trainer, real: torch.Tensor, index: torch.Tensor) -> object:
        losses = whole(self, real, index)
        with torch.no_grad():
            next(self.generator.parameters()).fill_(float("inf"))
        return losses

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(TrainingDiverged, match="weight is not finite after 8 images"):
        list(train(CFG, tmp_path, data_dir, (8,)))
    assert not (tmp_path / "checkpoint.pt").exists()
    assert (tmp_path / "diverged" / "state.pt").exists()


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(8, None, [8]), (8, 8, [8]), (8, 4, [4, 4]), (8, 3, [2, 3, 3]), (64, 10, [9, 9] * 3 + [10])],
)
def test_micro_batches_cover_the_batch_evenly(n: int, size: int | None, sizes: list[int]) -> None:
    parts = micro_batches(n, size)
    assert sorted(p.stop - p.start for p in parts) == sorted(sizes)
    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(n))


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    """Without batch norm and spectral norm's own steps, which see each part apart."""
    gradients = []
    for micro in (None, 4, 3):
        cfg = replace(CFG, train=replace(CFG.train, micro_batch=micro))
        trainer = Trainer(cfg, torch.device("cpu"))
        trainer.generator.eval(), trainer.discriminator.heads.eval()
        for optimiser in (trainer.optim_g, trainer.optim_d):
            optimiser.param_groups[0]["lr"] = 0.0
        real = torch.linspace(-1, 1, 8 * 3 * 32 * 32).view(8, 3, 32, 32)
        losses = trainer.step(real, torch.arange(8))
        networks = (trainer.generator, trainer.discriminator.heads)
        flat = [p.grad.flatten() for m in networks for p in m.parameters() if p.grad is not None]
        gradients.append((torch.cat(flat), torch.stack(losses)))
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_goes_on_with_smaller_micro_batches(tmp_path: Path, data_dir: Path) -> None:
    first = next(train(CFG, tmp_path, data_dir, (16,)))
    assert first.nimg == 16
    smaller = replace(CFG, train=replace(CFG.train, micro_batch=4))
    assert [s.nimg for s in train(smaller, tmp_path, data_dir, (16,))] == [16, 64]


def test_it_learns(tmp_path: Path, data_dir: Path) -> None:
    """A real end: the samples' mean image comes much nearer to the data's."""
    cfg = replace(
        CFG,
        discriminator=Discriminator(kind="rgb", base=4, width=32),
        optim=Optim(lr_g=2e-3, lr_d=2e-3),
        train=Train(batch=16, total_kimg=2, ema_kimg=0.2),
    )
    distances = []
    for snapshot in train(cfg, tmp_path, data_dir, (16,)):
        samples = torch.cat(list(generate(snapshot.generator, 0, range(128)))).float()
        real = torch.from_numpy(np.array(snapshot.dataset.images)).float()
        distances.append(float((samples.mean(0) - real.mean(0)).abs().mean()))
    assert distances[-1] < 0.6 * distances[0], distances


def test_generator_file_round_trip(tmp_path: Path, data_dir: Path) -> None:
    *_, last = train(CFG, tmp_path / "run", data_dir, ())
    save_generator(tmp_path / "g.safetensors", last.generator, CFG, last.nimg)
    loaded, cfg, nimg = load_generator(tmp_path / "g.safetensors", "copied")
    assert cfg == CFG and nimg == 64
    for a, b in zip(generate(loaded, 3, range(6), 4), generate(last.generator, 3, range(6), 4),
                    strict=True):  # fmt: skip
        assert (a.int() - b.int()).abs().max() <= 1
    whole = (tmp_path / "g.safetensors").read_bytes()
    for _ in range(10):  # the same generator is the same file
        save_generator(tmp_path / "again.safetensors", last.generator, CFG, last.nimg)
        assert (tmp_path / "again.safetensors").read_bytes() == whole
    (tmp_path / "g.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="Cannot load a generator"):
        load_generator(tmp_path / "g.safetensors")


def test_small_parts() -> None:
    assert [round_up(n, 8) for n in (0, 1, 8, 9)] == [8, 8, 8, 16]
    pixels = np.array([0, 255] * 6, np.uint8).reshape(1, 3, 2, 2)
    batch = as_floats(torch.from_numpy(pixels))
    assert batch.flatten()[:2].tolist() == [-1, 1]
    assert torch.equal(to_uint8(batch), torch.from_numpy(pixels))
    grid = image_grid(np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8), 2)  # fmt: skip  # noqa: E501
    assert np.asarray(grid)[:, :, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 0, 0]] * 2
