"""Every row of every grid trains one step and is measured once, through the path of a real run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.config import grid as grids
from bench.config import paths
from bench.config.metrics import metric_keys
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.run.runner import execute
from projgan.config import Config
from projgan.files import write_json_atomic

NAMES = sorted(file.stem for file in paths.GRIDS.glob("*.yaml"))
BATCH = 2  # batch norm needs two
IMAGES = 12
# Nothing of these is fetched: patches need no network, the own levels have random weights.
METRICS = ("swd", "own_levels")


def shrunk(spec: RunSpec, folder: Path) -> RunSpec:
    """The same networks on the same size of images, with random weights and for one step."""
    c = spec.config
    subset = c.data.subset and min(c.data.subset, IMAGES // 2)
    few = {"micro_batch": c.train.micro_batch and BATCH, "norm_group": c.train.norm_group and BATCH}
    tiny = replace(
        c,
        data=replace(c.data, name="made", path=str(folder), images=None, subset=subset),
        backbone=replace(c.backbone, weights="random"),
        train=replace(c.train, seed=0, batch=BATCH, total_kimg=BATCH / 1000, **few),
    )
    return RunSpec(spec.grid, spec.row, {}, spec.scale, tiny, EvalSpec(METRICS, fake=4))


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture of a snapshot would take most of the time."""
    monkeypatch.setattr("bench.run.measuring.SHOWN", 2)


def once(spec: RunSpec, place: Path) -> None:
    """One step and one evaluation, and what must come of them."""
    folder = place / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    spec = shrunk(spec, folder)
    run = RunPaths(place / spec.run_id)
    write_json_atomic(run.spec, spec.to_json())
    record = execute(run.dir, place / "data")
    assert record["status"] == "finished", record["error"]
    (snapshot,) = record["snapshots"]
    own = not spec.config.discriminator.on_images
    assert set(snapshot["metrics"]) == {
        f"copied:{key}" for key in metric_keys(METRICS if own else ("swd",))
    }
    assert snapshot["nimg"] == BATCH and np.isfinite(list(snapshot["metrics"].values())).all()


# One of each kind of discriminator and generator, and what only one grid has.
QUICK = [
    ("convergence", "FastGAN"),
    ("convergence", "StyleGAN2-ADA auto"),
    ("extra-rgb", "With an RGB discriminator"),
    ("norm-group", "4"),
    ("penalties", "Pairing with R1 and R2 (R3GAN)"),
    ("penalties", "Blur that fades (StyleGAN-XL)"),
]


@pytest.mark.parametrize(("name", "label"), QUICK)
def test_a_row_of_the_lab_trains_and_is_measured(name: str, label: str, tmp_path: Path) -> None:
    (run,) = grids.load(name, only=label).runs
    once(run, tmp_path)


seen: set[Config] = set()  # rows that other grids have as well are done once


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["lab", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_row(name: str, scale: str, tmp_path: Path) -> None:
    """Most rows need less than 4 GB of memory; StyleGAN2-ADA 9 GB at 512 px, and more at 1024.

    -k "sota-high and paper" and the like do one grid: all of paper scale takes long on a CPU.
    """
    failed: dict[str, Exception] = {}
    for number, run in enumerate(grids.load(name, scale).runs):
        if (config := shrunk(run, Path("x")).config) in seen:
            continue
        seen.add(config)
        print(f"{name} {scale} {run.label}", flush=True)
        place = tmp_path / str(number)
        place.mkdir()
        try:
            once(run, place)
        except Exception as error:  # the other rows are tried too
            failed[run.label] = error
    assert not failed
