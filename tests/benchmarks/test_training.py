"""Speed of the parts of a training step at lab scale, plain and fast.

    OMP_NUM_THREADS=1 pytest tests/benchmarks --benchmark-only

Every round ends with the device's work done; no time is asserted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.config import grid as grids
from bench.run.throughput import synchronise
from projgan.augment.diffaug import augment
from projgan.data.dataset import open_dataset
from projgan.data.loading import Loader
from projgan.rng import Coordinates, Stream
from projgan.speed import fast
from projgan.trainer import Trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PATHS = {"plain": fast.NONE, "fast": fast.ALL}
ROUNDS = 10


def timed(benchmark: BenchmarkFixture, work: Callable[[], object]) -> None:
    def whole() -> None:
        work()
        synchronise(DEVICE)

    benchmark.pedantic(whole, rounds=ROUNDS, warmup_rounds=2)


@pytest.fixture(scope="module", params=list(PATHS))
def trainer(request: pytest.FixtureRequest) -> Iterator[Trainer]:
    config = grids.load("backbones", only="EfficientNet-lite1").runs[0].config
    yield Trainer(config, DEVICE, switches=PATHS[request.param])


@pytest.fixture(scope="module")
def index() -> Tensor:
    return torch.arange(16, device=DEVICE)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.linspace(0, 40, 16 * 3 * 32 * 32, device=DEVICE).sin().view(16, 3, 32, 32)


def test_training_step(
    benchmark: BenchmarkFixture, trainer: Trainer, images: Tensor, index: Tensor
) -> None:
    def step() -> None:
        trainer.step(images, index)
        trainer.update_average(16)

    timed(benchmark, step)
    benchmark.extra_info["images"] = 16


def test_generator(benchmark: BenchmarkFixture, trainer: Trainer, index: Tensor) -> None:
    where = Coordinates(0, Stream.LATENT_G, index)
    z = where.normal(trainer.cfg.generator.z_dim)
    trainer.generator.requires_grad_(True)
    timed(benchmark, lambda: trainer.generator(z, where).square().mean().backward())


def test_frozen_features(benchmark: BenchmarkFixture, trainer: Trainer, images: Tensor) -> None:
    backbone = trainer.discriminator.backbone
    assert backbone is not None
    shown = images.clone().requires_grad_()
    timed(benchmark, lambda: sum(m.mean() for m in backbone(shown)).backward())


def test_projection(benchmark: BenchmarkFixture, trainer: Trainer, images: Tensor) -> None:
    d = trainer.discriminator
    assert d.backbone is not None and d.projection is not None
    projection = d.projection
    with torch.no_grad():
        maps = d.backbone(images)
    maps = [m.detach().requires_grad_() for m in maps]
    timed(benchmark, lambda: sum(m.mean() for m in projection(maps)).backward())


def test_discriminator(benchmark: BenchmarkFixture, trainer: Trainer, images: Tensor) -> None:
    d = trainer.discriminator
    with torch.no_grad():
        maps = d.features(images)
    d.heads.requires_grad_(True)
    timed(benchmark, lambda: sum(x.mean() for x in d.logits(maps)).backward())


def test_diffaugment(benchmark: BenchmarkFixture, images: Tensor, index: Tensor) -> None:
    where = Coordinates(0, Stream.AUGMENT_REAL, index)
    timed(benchmark, lambda: augment(images, "color,translation,cutout", where))


@pytest.mark.parametrize("ahead", [0, 4])
def test_loader(benchmark: BenchmarkFixture, tmp_path: Path, ahead: int) -> None:
    """Batches of 64 at 256 px by index from the memory map, as uint8 on the device.

    The map is in the page cache: what a disk adds is not in it.
    """
    pixels = np.lib.format.open_memmap(
        tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(1024, 3, 256, 256)
    )
    pixels[:] = 7
    loader = Loader(pixels, np.arange(1024), None, 0, 64, slice(0, 64), DEVICE, ahead)
    with closing(loader.batches(0, 10**9)) as batches:
        cpu = time.process_time()
        timed(benchmark, lambda: [next(batches) for _ in range(8)])
        cpu = time.process_time() - cpu
    images = 64 * 8
    benchmark.extra_info["images"] = images
    benchmark.extra_info["images_per_core_second"] = images * (ROUNDS + 2) / cpu


def test_opening_a_data_set_again(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    config = grids.load("backbones", only="EfficientNet-lite1").runs[0].config
    small = replace(config.data, images=256)
    open_dataset(small, tmp_path)
    timed(benchmark, lambda: open_dataset(small, tmp_path))
