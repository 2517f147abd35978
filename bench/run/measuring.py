"""Measuring and showing the generators of a run."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.extractors import TRAINING
from bench.config.metrics import METRICS, looks_through
from bench.config.spec import RunSpec
from bench.metrics.evaluate import Scores, evaluate
from bench.metrics.reference import Progress, Reference
from bench.metrics.training_set import TrainingSet
from projgan.backbones import build_backbone
from projgan.data.dataset import Dataset
from projgan.discriminators.projected import build_projection
from projgan.files import write_bytes_atomic
from projgan.sample import generate, image_grid
from projgan.standing_statistics import standing_statistics

SAMPLE_SEED = 0  # of all images that are measured or shown; the same for every run
FRESH_SEED = 1  # of the images that a best snapshot is measured on once it is chosen
SHOWN = 64  # samples in the picture of a snapshot, eight by eight


class Generators:
    """The generators of a snapshot by their norms (`bench.config.metrics.NORMS`)."""

    def __init__(self, averaged: nn.Module, others: Mapping[str, nn.Module] | None = None):
        """
        Args:
            averaged: as training has it, with copied statistics.
            others: by their norms, such as raw. None = none was kept.
        """
        self._found: dict[str, nn.Module] = {"copied": averaged}
        self._without = {"standing": averaged, **(others or {})}  # statistics of their own

    def get(self, norms: str) -> nn.Module | None:
        """A generator, whose statistics are computed once; None = it was not kept."""
        if norms not in self._found and norms in self._without:
            self._found[norms] = standing_statistics(self._without[norms])
        return self._found.get(norms)


class Measuring:
    """The real side of a run's metrics, and what measures generators against it."""

    def __init__(
        self,
        spec: RunSpec,
        dataset: Dataset,
        data_dir: Path,
        progress: Progress,
        on_batch: Callable[[], None],
    ):
        """
        Args:
            progress: told how far the real side is.
            on_batch: called with every batch of generated images; may raise.
        """
        self.spec, self.on_batch = spec, on_batch
        self.reference = _reference(spec, dataset, data_dir, progress)
        usual = "lab" if spec.config.backbone.zoo == "lab" else "inception"
        network = looks_through(spec.eval.metrics) or usual
        self.training_set = TrainingSet(
            spec.config.data, dataset, lambda: self.reference.extractor(network), run_device()
        )

    def measure(
        self,
        generator: nn.Module,
        keys: Sequence[str],
        certified: bool,
        discriminator: nn.Module | None = None,
    ) -> Scores:
        """Measures a snapshot's generator.

        Args:
            keys: of METRICS.
            certified: see `evaluate`.
            discriminator: for metrics of training. None = it was not kept.
        """
        images = self._images(generator, SAMPLE_SEED, self.spec.eval.fake)
        scores = evaluate(images, self.reference, keys, certified=certified)
        self._add_training(scores, generator, keys, discriminator)
        return scores

    def measure_fresh(self, generator: nn.Module, keys: Sequence[str]) -> Scores:
        """Measures a generator on images that had no part in choosing it."""
        images = self._images(generator, FRESH_SEED, self.spec.eval.fake)
        return evaluate(images, self.reference, keys, certified=True)

    def _images(self, generator: nn.Module, seed: int, count: int) -> Iterator[Tensor]:
        for batch in generate(generator, seed, range(count)):
            self.on_batch()
            yield batch

    def _add_training(
        self,
        scores: Scores,
        generator: nn.Module,
        keys: Sequence[str],
        discriminator: nn.Module | None,
    ) -> None:
        """Adds what only training has at hand: its images, those held out, its discriminator."""
        wanted = {key.rpartition(":")[2]: key for key in keys if METRICS[key].extractor == TRAINING}
        if not wanted:
            return

        def fake(count: int) -> np.ndarray:
            images = self._images(generator, SAMPLE_SEED, min(count, self.spec.eval.fake))
            return _as_array(images)

        values, missing = self.training_set.measure(list(wanted), fake, discriminator)
        scores.update({wanted[name]: value for name, value in values.items()})
        for key in wanted.values():
            scores.missing.pop(key, None)
        scores.missing |= {wanted[name]: reason for name, reason in missing.items()}


def write_samples(generator: nn.Module, path: Path) -> None:
    """Writes the picture of a generator's first samples."""
    write_grid(_as_array(generate(generator, SAMPLE_SEED, range(SHOWN))), path)


def write_grid(images: np.ndarray, path: Path) -> None:
    """Writes the first of images [N, 3, R, R] uint8 as one picture, eight in a row."""
    buffer = io.BytesIO()
    image_grid(images[:SHOWN], columns=8).save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())


def run_device() -> torch.device:
    """The device of a run: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _as_array(batches: Iterable[Tensor]) -> np.ndarray:
    return np.concatenate([batch.cpu().numpy() for batch in batches])


def _reference(spec: RunSpec, dataset: Dataset, data_dir: Path, progress: Progress) -> Reference:
    """The real side of the metrics."""
    cfg, device = spec.config, run_device()
    wants_own = any(name.startswith("own") for name in spec.eval.metrics)
    own = projection = None
    if wants_own and not cfg.discriminator.on_images:
        own = build_backbone(cfg.backbone, cfg.data.resolution).to(device)
        projection = build_projection(cfg, own.channels).to(device)
    return Reference(
        dataset.images,
        dataset.fingerprint,
        data_dir,
        device,
        levels=spec.levels_backbone,
        own=own,
        projection=projection,
        count=spec.eval.real,
        progress=progress,
    )
