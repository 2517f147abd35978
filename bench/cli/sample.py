"""do=sample: images from the generator that a run kept, one by one, as a grid, and between two."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.cli.options import Options
from bench.config.metrics import METRICS, record_key
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.config.yaml_types import parse_overrides
from bench.run.preflight import check_folder
from bench.store import record as records
from projgan.classes import class_count
from projgan.data.sources import SUFFIXES
from projgan.errors import DataError, UserError
from projgan.files import write_bytes_atomic
from projgan.sample import generate, image_grid, interpolate, load_generator

COLUMNS = 8
IMAGES, OF_EACH_CLASS = 64, 8  # where n is not given


def sample(options: Options, echo: Callable[[str], None]) -> None:
    """Writes samples of a run's averaged generator.

    `00000.png …` lie alone in their folder; beside it go `OUT-grid.png` and, with `interpolate=`,
    `OUT-interpolation.png`, which are no samples. The first 64 latents of seed 0 are those of the
    run's own pictures. Every class has the same latents, and a row of the grid.

    Args:
        options: of do=sample.
        echo: takes lines for the user.

    Raises:
        UserError: no such run or snapshot, a metric that was not measured, a generator that has
            no styles to truncate or no such class, images in `out` that would not be replaced.
    """
    run, seed = _single_values(options)
    path, norms = _snapshot(run, options)
    out = options.out or options.results_dir / "samples" / Path(run).stem
    check_folder("out", out)
    out = out.resolve() if out.name in ("", "..") else out
    check_folder("out", out.parent)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator, cfg, nimg = load_generator(path, norms, device)
    classes, known = _classes(options, generator, path), class_count(generator)
    if options.truncation != 1.0 and not hasattr(generator, "styles"):
        raise UserError(f"truncation={options.truncation}: generator.name={cfg.generator.name} has "
                        "no styles; leave it")  # fmt: skip
    every, steps = options.of_class == "all", options.interpolate
    n = options.n or (OF_EACH_CLASS if every else IMAGES)
    # As many digits for each, so that folders are sorted as the classes are.
    places = [out / f"{label:0{len(str(known - 1))}d}" if every else out for label in classes]
    files = [[place / f"{i:05d}.png" for i in range(n)] for place in places]
    _refuse_others(out, set(itertools.chain.from_iterable(files)))
    rows, between = [], []
    for label, names in zip(classes, files, strict=True):
        style = options.truncation
        images = _gather(generate(generator, seed, range(n), truncation=style, label=label))
        for name, image in zip(names, images, strict=True):
            _write(name, Image.fromarray(image.transpose(1, 2, 0)))
        rows.append(images)
        if steps:  # of every class one way, of one class as many as the grid has columns
            starts = range(2 if every else min(n, COLUMNS))
            ways = list(interpolate(generator, seed, starts, steps, style, label))
            between += ways[:1] if every else ways
    columns = n if every else min(COLUMNS, math.ceil(math.sqrt(n)))
    sheets = {f"{out.name}-grid.png": image_grid(np.concatenate(rows), columns)}
    if steps:
        sheets[f"{out.name}-interpolation.png"] = image_grid(_gather(between), steps + 1)
    for sheet, picture in sheets.items():
        _write(out.with_name(sheet), picture)
    shown = "" if options.of_class is None else f" of class {options.of_class}"
    shown = f" of each of {known} classes" if every else shown
    after = f"after {nimg / 1000:g} thousand images, {norms} batch-norm statistics"
    echo(f"{n} images{shown} of {path} ({after}) in {out}")
    echo(f"side by side in {' and '.join(str(out.with_name(sheet)) for sheet in sheets)}")


def _classes(options: Options, generator: Any, path: Path) -> Sequence[int | None]:
    """The classes that images are drawn of, one after the other; None = as often as in the data."""
    if options.of_class != "all":
        return [options.of_class]
    if not (known := class_count(generator)):
        raise UserError(f"class=all: {path} was trained without classes; leave class=")
    return range(known)


def _single_values(options: Options) -> tuple[str, int]:
    """The run and the seed; refuses several of what is one."""
    if options.run is None:
        raise UserError("run=ID is missing: a run's id (grid=NAME do=plan), folder or .safetensors")
    if options.metrics and len(options.metrics) > 1:
        raise UserError("metrics=: do=sample takes one, whose best snapshot is drawn")
    if options.seeds and len(options.seeds) > 1:
        raise UserError("seeds=: do=sample takes one, of the latents; n= is how many images")
    return options.run, options.seeds[0] if options.seeds else 0


def _refuse_others(out: Path, files: set[Path]) -> None:
    """Refuses a folder that would hold other images beside the samples: no set of one generator."""
    found = (f for f in out.rglob("*") if f.suffix.lower() in SUFFIXES)
    if others := sorted(set(found) - files):
        raise UserError(
            f"out={out}: images lie there that are none of these samples ({len(others)}, "
            f"{others[0].relative_to(out)} first); give another out=, or empty it"
        )


def _snapshot(run: str, options: Options) -> tuple[Path, str]:
    """The file of a run's last generator, or of the best by a metric; its batch-norm statistics.

    They are those that the run is measured with, and standing ones of a file that lies alone.
    """
    asked = parse_overrides(options.overrides).get("eval.norms")
    asked = asked and EvalSpec(norms=asked).norms
    given, runs_dir = Path(run).expanduser(), options.runs_dir
    if given.suffix == ".safetensors":
        if not given.is_file():
            raise UserError(f"run={run}: no such file")
        return given, asked or _norms(given)
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
    norms = asked or _norms(last)
    if options.metrics:
        return _best(paths, kept, record_key(options.metrics[0], norms)), norms
    return last, norms


def _norms(path: Path) -> str:
    try:
        return RunSpec.read(RunPaths(path.parent.parent).spec).eval.norms
    except DataError:
        return "standing"


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
