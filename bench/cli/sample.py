"""do=sample: images from the generator that a run kept, one by one, as a grid, and between two."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from bench.config.metrics import METRICS, record_key
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.run.preflight import check_folder
from bench.store import record as records
from projgan.classes import class_count
from projgan.data.sources import SUFFIXES
from projgan.errors import DataError, UserError
from projgan.files import write_bytes_atomic
from projgan.sample import generate, image_grid, interpolate, load_generator

COLUMNS = 8
IMAGES, OF_EACH_CLASS = 64, 8  # where n is not given


def draw(
    run: str,
    runs_dir: Path,
    out: Path,
    *,
    n: int | None = None,
    seed: int = 0,
    truncation: float = 1.0,
    steps: int = 0,
    metric: str | None = None,
    of_class: int | Literal["all"] | None = None,
    norms: str | None = None,
    echo: Callable[[str], None] = print,
) -> list[Path]:
    """Writes samples of a run's averaged generator.

    Args:
        run: a run's id, a run's folder, or a .safetensors file that a run kept.
        runs_dir: where ids are looked for.
        out: folder for `00000.png …` alone; beside it go `OUT-grid.png` and, with `steps`,
            `OUT-interpolation.png`, which are no samples.
        n: images, or images of each class. None = 64, or 8 of each class.
        seed: of the latents; the first 64 of seed 0 are those of the run's own pictures.
        truncation: pulls styles towards their mean; 1 = as trained.
        steps: images between each two latents of the interpolation; 0 = none.
        metric: take the snapshot that is best by it. None = the last one.
        of_class: the class of all images, of a class-conditional run; "all" = a row of the grid and
            a folder for each class, from the same latents. None = as often as in the data.

        norms: batch-norm statistics, standing or copied. None = those that the run is measured
            with, or standing ones of a file that stands alone.

    Returns:
        The files.

    Raises:
        UserError: no such run or snapshot, a metric that was not measured, a generator that has
            no styles to truncate or no such class, images in `out` that would not be replaced.
    """
    path = _snapshot(run, runs_dir, metric, norms)
    check_folder("out", out)
    out = out.resolve() if out.name in ("", "..") else out
    check_folder("out", out.parent)
    norms = norms or _norms(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator, cfg, nimg = load_generator(path, norms, device)
    if truncation != 1.0 and not hasattr(generator, "styles"):
        raise UserError(
            f"truncation={truncation}: generator.name={cfg.generator.name} has no styles; leave it"
        )
    every, known = of_class == "all", class_count(generator)
    if every and not known:
        raise UserError(f"class=all: {path} was trained without classes; leave class=")
    n = n or (OF_EACH_CLASS if every else IMAGES)
    classes = range(known) if of_class == "all" else [of_class]
    # As many digits for each, so that folders are sorted as the classes are.
    places = [out / f"{label:0{len(str(known - 1))}d}" if every else out for label in classes]
    files = [place / f"{i:05d}.png" for place in places for i in range(n)]
    _refuse_others(out, set(files))
    left = iter(files)
    rows, between, sheets = [], [], []
    for label in classes:
        images = _gather(generate(generator, seed, range(n), truncation=truncation, label=label))
        for image in images:
            _write(next(left), Image.fromarray(image.transpose(1, 2, 0)))
        rows.append(images)
        if steps:  # of every class one way, of one class as many as the grid has columns
            starts = range(2 if every else min(n, COLUMNS))
            ways = list(interpolate(generator, seed, starts, steps, truncation, label))
            between += ways[:1] if every else ways
    columns = n if every else min(COLUMNS, math.ceil(math.sqrt(n)))
    sheets.append(out.with_name(f"{out.name}-grid.png"))
    _write(sheets[-1], image_grid(np.concatenate(rows), columns))
    if steps:
        sheets.append(out.with_name(f"{out.name}-interpolation.png"))
        _write(sheets[-1], image_grid(_gather(between), steps + 1))
    said = "" if of_class is None else f" of class {of_class}"
    said = f" of each of {known} classes" if every else said
    after = f"after {nimg / 1000:g} thousand images, {norms} batch-norm statistics"
    echo(f"{n} images{said} of {path} ({after}) in {out}")
    echo(f"side by side in {' and '.join(map(str, sheets))}")
    return files + sheets


def _refuse_others(out: Path, files: set[Path]) -> None:
    """Refuses a folder that would hold other images beside the samples: no set of one generator."""
    found = (f for f in out.rglob("*") if f.suffix.lower() in SUFFIXES)
    if others := sorted(set(found) - files):
        raise UserError(
            f"out={out}: images lie there that are none of these samples ({len(others)}, "
            f"{others[0].relative_to(out)} first); give another out=, or empty it"
        )


def _norms(path: Path) -> str:
    """With which statistics the run of a generator is measured, if its folder tells."""
    try:
        return RunSpec.read(RunPaths(path.parent.parent).spec).eval.norms
    except DataError:
        return "standing"


def _snapshot(run: str, runs_dir: Path, metric: str | None, norms: str | None) -> Path:
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
    last = paths.snapshot(kept[-1])
    return last if metric is None else _best(paths, kept, record_key(metric, norms or _norms(last)))


def _best(paths: RunPaths, kept: list[int], metric: str) -> Path:
    record: dict[str, Any] = records.load(paths.record) or {}
    found = {
        s["nimg"]: s["metrics"][metric]
        for s in record.get("snapshots", [])
        if metric in s["metrics"] and not records.is_stale(s, metric) and s["nimg"] in kept
    }
    if not found or metric not in METRICS:
        measured = sorted({key for s in record.get("snapshots", []) for key in s["metrics"]})
        name = metric.rpartition(":")[2]
        raise UserError(f"metrics={name}: {metric} is not measured in {paths.dir}, but {measured}")
    sign = 1 if METRICS[metric].lower_is_better else -1
    return paths.snapshot(min(found, key=lambda nimg: sign * found[nimg]))


def _gather(batches: Any) -> np.ndarray:
    return np.concatenate([batch.cpu().numpy() for batch in batches])


def _write(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())
