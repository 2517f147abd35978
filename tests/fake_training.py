"""Training and measuring in milliseconds: the real generator, no discriminator, made-up metrics.

Stands in for `projgan.train.train` and `bench.metrics` where the harness around them is tested.
Like the real one it resumes from a checkpoint, and yields the snapshot that it resumed from again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.config.metrics import metric_keys
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.metrics.evaluate import Scores
from bench.run import measuring, run_record, runner
from bench.store.record import Record
from projgan.config import Config, Data, Generator, Train
from projgan.data.dataset import Dataset
from projgan.generators import build_generator
from projgan.train import Snapshot

CONFIG = replace(
    Config(),
    data=Data(name="clevr", resolution=32),
    generator=Generator(width=4, z_dim=8),
    train=Train(total_kimg=0.4, batch=50),
)
SPEC = RunSpec("g", "Row", {}, "lab", CONFIG, EvalSpec(("fd_lab",), every_kimg=0.2, fake=10))


class NoDiscriminator(nn.Module):
    backbone = None
    projection = None

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(2, 1)


@dataclass
class Engine:
    """What the stand-ins did, and what they shall do."""

    trained: list[tuple[str, int]] = field(default_factory=list)  # (backbone, nimg) of each step
    measured: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)  # (images, keys)
    fail: Callable[[Config, int], None] = lambda cfg, nimg: None  # may raise in a step
    value: float = 1.0

    def train(
        self,
        cfg: Config,
        run_dir: Path,
        data_dir: Path,
        snapshot_at: Sequence[int],
        on_progress: Callable[[int], None] | None = None,
        on_data: object = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Snapshot]:
        checkpoint = run_dir / "checkpoint.pt"
        nimg = load(checkpoint)["nimg"] if checkpoint.exists() else 0
        total = round(cfg.train.total_kimg * 1000)

        def snapshot() -> Snapshot:
            generator = build_generator(cfg).eval()
            return Snapshot(nimg, generator, NoDiscriminator(), DATASET, torch.device("cpu"),  # type: ignore[arg-type]
                            nimg / 100, 100.0, 0.5, nimg >= total)  # fmt: skip

        if nimg in snapshot_at:
            yield snapshot()
        while nimg < total:
            self.fail(cfg, nimg)
            nimg += cfg.train.batch
            self.trained.append((cfg.backbone.name, nimg))
            if on_progress:
                on_progress(nimg)
            stop = should_stop()
            if nimg in snapshot_at or stop:
                checkpoint.write_text(str(nimg))
            if nimg in snapshot_at:
                yield snapshot()
            if stop:
                return

    def evaluate(
        self,
        batches: Iterable[Any],
        reference: object,
        keys: Sequence[str],
        certified: bool = False,
    ) -> Scores:
        scores = Scores()
        scores.fake, scores.real = sum(len(batch) for batch in batches), 64
        self.measured.append((scores.fake, tuple(keys)))
        scores.update(dict.fromkeys(metric_keys(keys), self.value))
        if certified:
            scores.certificates = dict.fromkeys(metric_keys(keys), 1e-12)
            scores.intervals = dict.fromkeys(metric_keys(keys), (0.5, 2.0))
        return scores


def load(checkpoint: Path, needs: Collection[str] = ()) -> dict[str, Any]:
    """What the harness reads of a checkpoint."""
    nimg = int(checkpoint.read_text())
    return {"nimg": nimg, "train_seconds": nimg / 100}


class NoReference:
    def __init__(self, *args: object, **options: object) -> None: ...

    def prepare(self, metrics: Iterable[str]) -> None: ...


DATASET = Dataset("clevr", np.zeros((64, 3, 32, 32), np.uint8), "f00d")


def install(patch: pytest.MonkeyPatch) -> Engine:
    """Puts the stand-ins in place."""
    engine = Engine()
    patch.setattr(runner, "train", engine.train)
    patch.setattr(measuring, "evaluate", engine.evaluate)
    patch.setattr(run_record, "load_checkpoint", load)
    patch.setattr(measuring, "standing_statistics", lambda generator: generator)
    patch.setattr(measuring, "Reference", NoReference)
    patch.setattr(runner, "open_dataset", lambda *args: DATASET)
    return engine


def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / SPEC.run_id)


def metrics(record: Record) -> dict[int, dict[str, float]]:
    return {s["nimg"]: s["metrics"] for s in record["snapshots"]}
