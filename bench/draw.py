"""do=sample: images from the generator that a run kept, one by one, as a grid, and between two."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import record as records
from bench.metrics.table import METRICS
from bench.paths import RunPaths
from bench.preflight import check_folder
from projgan.errors import UserError
from projgan.files import write_bytes_atomic
from projgan.sample import generate, image_grid, interpolate, load_generator

COLUMNS = 8


def draw(
    run: str,
    runs_dir: Path,
    out: Path,
    *,
    n: int = 64,
    seed: int = 0,
    truncation: float = 1.0,
    steps: int = 0,
    metric: str | None = None,
    echo: Callable[[str], None] = print,
) -> list[Path]:
    """Writes samples of a run's averaged generator.

    Args:
        run: a run's id, a run's folder, or a .safetensors file that a run kept.
        runs_dir: where ids are looked for.
        out: folder for `00000.png …`, `grid.png` and, with `steps`, `interpolation.png`.
        n: images.
        seed: of the latents; the first 64 of seed 0 are those of the run's own pictures.
        truncation: pulls styles towards their mean; 1 = as trained.
        steps: images between each two latents of the interpolation; 0 = none.
        metric: take the snapshot that is best by it. None = the last one.

    Returns:
        The files.

    Raises:
        UserError: no such run or snapshot, a metric that was not measured, a generator that has
            no styles to truncate.
    """
    path = _snapshot(run, runs_dir, metric)
    check_folder("out", out)
    generator, cfg, nimg = load_generator(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = generator.to(device)
    if truncation != 1.0 and not hasattr(generator, "styles"):
        raise UserError(
            f"truncation={truncation}: generator.name={cfg.generator.name} has no styles; leave it"
        )
    images = _gather(generate(generator, seed, range(n), truncation=truncation))
    files = [out / f"{i:05d}.png" for i in range(n)]
    for file, image in zip(files, images, strict=True):
        _write(file, Image.fromarray(image.transpose(1, 2, 0)))
    files.append(out / "grid.png")
    _write(files[-1], image_grid(images, min(COLUMNS, math.ceil(math.sqrt(n)))))
    if steps:
        between = _gather(interpolate(generator, seed, range(min(n, COLUMNS)), steps, truncation))
        files.append(out / "interpolation.png")
        _write(files[-1], image_grid(between, steps + 1))
    echo(f"{n} images of {path} (after {nimg / 1000:g} thousand images) in {out}")
    return files


def _snapshot(run: str, runs_dir: Path, metric: str | None) -> Path:
    """The file of the generator that is meant."""
    given = Path(run).expanduser()
    if given.suffix == ".safetensors":
        if not given.is_file():
            raise UserError(f"run={run}: no such file")
        return given
    folder = given if given.is_dir() else runs_dir / run
    paths = RunPaths(folder)
    if not folder.is_dir() or folder.resolve() == runs_dir.resolve():
        known = sorted(p.parent.name for p in runs_dir.glob("*/spec.json"))
        raise UserError(
            f"run={run}: neither a folder nor a run in {runs_dir} ({len(known)} are there); "
            "grid=NAME do=plan lists a grid's runs by id"
        )
    kept = paths.kept()
    if not kept:
        raise UserError(f"run={run}: {folder} keeps no generator yet; train it first")
    return paths.snapshot(kept[-1] if metric is None else _best(paths, kept, metric))


def _best(paths: RunPaths, kept: list[int], metric: str) -> int:
    record: dict[str, Any] = records.load(paths.record) or {}
    found = {
        s["nimg"]: s["metrics"][metric]
        for s in record.get("snapshots", [])
        if metric in s["metrics"] and s["nimg"] in kept
    }
    if not found or metric not in METRICS:
        measured = sorted({key for s in record.get("snapshots", []) for key in s["metrics"]})
        raise UserError(f"metrics={metric}: not measured in {paths.dir}; it has {measured}")
    sign = 1 if METRICS[metric].lower_is_better else -1
    return min(found, key=lambda nimg: sign * found[nimg])


def _gather(batches: Any) -> np.ndarray:
    return np.concatenate([batch.cpu().numpy() for batch in batches])


def _write(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())
