"""`do=score`: two sets of images measured against each other, without any training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.cli.options import Options
from bench.config.metrics import METRICS, metric_keys
from bench.config.terminal import aligned
from bench.metrics.evaluate import Scores, evaluate
from bench.metrics.extractors import BATCH, Images
from bench.metrics.image_folder import ImageSet, decoders, open_images
from bench.metrics.reference import Reference
from bench.run.preflight import check_folder
from bench.run.progress import Show, counter_for
from bench.store.environment import environment
from projgan.errors import ConfigError, UserError
from projgan.files import write_text_atomic

DEFAULT = ("fd_lab", "kid_lab", "prdc_lab", "swd")  # whatever needs nothing that does not ship
FORMATS = (".json", ".csv")
_FEW = 2000  # fewer images a side than this leave most metrics biased or noisy


@dataclass(frozen=True)
class Result:
    """Two sets of images, their distances, and what the user should know of them."""

    real: ImageSet
    fake: ImageSet
    scores: Scores
    metrics: tuple[str, ...]  # keys, in the order asked for
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per metric: value, 95 % interval, gap between two ways of computing it, how
        many images of each side were compared where that is the same number, why there is none.
        """
        scores, rows = self.scores, []
        for key in self.metrics:
            low, high = scores.intervals.get(key, (None, None))
            rows.append({
                "metric": key, "header": METRICS[key].header, "unit": METRICS[key].unit,
                "value": scores.get(key), "low": low, "high": high,
                "gap": scores.certificates.get(key), "used": scores.used.get(key),
                "missing": scores.missing.get(key, ""),
            })  # fmt: skip
        return rows


def score(options: Options, echo: Callable[[str], None]) -> None:
    """Measures `fake=` against `real=`, prints a table and writes it to `out=`.

    What was computed of the real images is kept in `data_dir/reference`; weights that do not ship
    are looked for in `data_dir/weights`.

    Args:
        options: `metrics` are groups or keys of METRICS; None = `DEFAULT`.
        echo: takes lines for the user.

    Raises:
        UserError: paths, metrics or images that cannot be used; one line.
    """
    if options.real is None or options.fake is None:
        raise UserError("do=score needs real=PATH and fake=PATH: folders, archives or .npy arrays")
    keys = metric_keys(options.metrics or DEFAULT)
    _check(options, keys)
    started = time.monotonic()
    with counter_for(echo) as show:
        sides = open_images(options.real, "real"), open_images(options.fake, "fake")
        result = measure(*sides, keys, options.data_dir, show)
    out = options.out
    if out is not None:
        write_text_atomic(out, to_csv(result) if out.suffix.lower() == ".csv" else to_json(result))
    for note in result.notes:
        echo(f"note: {note}")
    for line in table(result):
        echo(line)
    counts = f"{result.scores.fake} images of {result.fake.name} against "
    counts += f"{result.scores.real} of {result.real.name}"
    echo(f"{counts}, {time.monotonic() - started:.0f} s; intervals are of 95 %")
    if out is not None:
        echo(f"written to {out}")


def _check(options: Options, keys: Sequence[str]) -> None:
    """Refuses what cannot be measured or written before any image is read."""
    for key in keys:
        if METRICS[key].extractor in ("own", "levels"):
            raise ConfigError(f"{key} looks through a run's own networks: do=score has none")
        if METRICS[key].norms:
            raise ConfigError(f"{key} is of a run's generator: do=score measures images")
    if options.out is not None:
        if options.out.suffix.lower() not in FORMATS:
            raise ConfigError(f"out={options.out}: give a file ending in {' or '.join(FORMATS)}")
        check_folder("out", options.out.parent)
    check_folder("data_dir", options.data_dir)


def measure(
    real: ImageSet, fake: ImageSet, metrics: Sequence[str], data_dir: Path, show: Show
) -> Result:
    """Measures one set of images against another.

    Every image is decoded once per extractor that is asked for (real) or once in all (fake), at
    its own size.

    Args:
        metrics: groups or keys of METRICS.
        data_dir: parent of reference/ and weights/.
        show: takes how far it is.
    """
    keys = metric_keys(metrics)
    for side in (real, fake):
        if len(side) < 2:
            raise UserError(f"{side.name} holds one image: nothing can be measured, give more")
    if any(METRICS[key].extractor == "patches" for key in keys):
        real.take_smallest_size()  # the first by name would be another one by another name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reference = Reference(
        real,
        real.fingerprint,
        data_dir,
        device,
        progress=lambda done, total: show("real images", done, total),
    )
    reference.prepare(keys)
    shapes: set[tuple[int, ...]] = {real.shape[1:]}

    def watched() -> Iterator[Images | list[Images]]:
        for number, batch in enumerate(fake.batches(BATCH)):
            shapes.update(image.shape for image in batch)
            show("fake images", min((number + 1) * BATCH, len(fake)), len(fake))
            yield batch

    scores = evaluate(watched(), reference, keys, certified=True)
    notes = (*_notes(real, fake, shapes), *_used(scores))
    return Result(real, fake, scores, tuple(keys), notes)


def _notes(real: ImageSet, fake: ImageSet, shapes: set[tuple[int, ...]]) -> Iterator[str]:
    yield from dict.fromkeys(note for note in (real.note, fake.note) if note)
    if real.jpegs:
        yield (
            f"{real.jpegs} of {len(real)} real images are JPEG: their compression enters every "
            "metric; use the lossless originals if there are any"
        )
    if len(shapes) > 1:
        sizes = sorted({f"{shape[2]}x{shape[1]}" for shape in shapes})
        few = ", ".join(sizes[:4]) + (", …" if len(sizes) > 4 else "")
        width = real.shape[3]
        yield (
            f"images are of {len(sizes)} sizes ({few}): each goes through its extractor's own "
            f"resize, which crops nothing; for swd it is to {width} px, the width of the "
            "smallest real one"
        )
    if (fewest := min(len(real), len(fake))) < _FEW:
        yield (
            f"{fewest} images are few: Fréchet distances come out too large, and compare only "
            "with others of as many images"
        )


def _used(scores: Scores) -> Iterator[str]:
    """Lines about metrics that did not compare every image."""
    most = max(scores.real, scores.fake)
    for count in sorted({used for used in scores.used.values() if used < most}):
        keys = ", ".join(key for key, used in scores.used.items() if used == count)
        yield (
            f"{keys}: {count} images of each side were compared, chosen by a hash of their pixels "
            "and not by name or order"
        )


def table(result: Result) -> list[str]:
    """Lines for the terminal: header, value, interval."""
    lines = [["metric", "", "value", "95 % interval"]]
    for row in result.rows():
        value = row["missing"] if row["value"] is None else f"{row['value']:.5g}"
        interval = "" if row["low"] is None else f"[{row['low']:.5g}, {row['high']:.5g}]"
        lines.append([row["metric"], row["header"], value, interval])
    return aligned(lines)


def to_json(result: Result) -> str:
    """All of it, with what it depends on."""
    document = {
        "real": {"path": result.real.name, "images": result.scores.real},
        "fake": {"path": result.fake.name, "images": result.scores.fake},
        "metrics": {row.pop("metric"): row for row in result.rows()},
        "notes": list(result.notes),
        "extractors": result.scores.extractors,
        "decoders": decoders(),
        "environment": environment(),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(result: Result) -> str:
    """One line per metric, empty where there is no number."""
    return str(pd.DataFrame(result.rows(), dtype=object).to_csv(index=False, lineterminator="\n"))
