"""Small pictures that travel inside the page: the same latents after more and more images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from bench.analysis.cells import Cell, Point, Run
from bench.config.paths import RunPaths
from bench.report.sample_sheets import tiles
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

LATENTS = 8  # images beside each other
STAGES = 6  # snapshots under each other, at most
LARGEST = 48  # pixels of an image; larger ones are scaled down


@dataclass(frozen=True)
class Film:
    """The samples of a run over training, one row of images for each snapshot."""

    name: str
    run_id: str
    source: str  # data URI
    width: int  # pixels
    height: int
    stages: tuple[tuple[str, str], ...]  # thousand images, and the metric there


def films(facts: Facts) -> list[Film]:
    """One for each cell with samples: of the first of its finished runs."""
    metric = facts.ranking.metric if facts.ranking else None
    return [film for cell in facts.cells if (film := _film(cell, metric))]


def real(facts: Facts) -> Film | None:
    """Real images, from the first run that kept a sheet of them."""
    for run in facts.finished:
        sheet, size = RunPaths(run.folder).real, run.spec.config.data.resolution
        if sheet.is_file() and (found := _tiles(run, str(sheet.relative_to(run.folder)), size)):
            uri, width, height = _joined([found])
            return Film("real images", run.spec.run_id, uri, width, height, ())
    return None


def _film(cell: Cell, metric: str | None) -> Film | None:
    for run in cell.finished:
        kept = [point for point in run.points if point.samples]
        rows = []
        for point in _spread(kept):
            found = _tiles(run, point.samples or "", run.spec.config.data.resolution)
            if found:
                value = point.metrics.get(metric or "")
                said = brief(value) if value is not None and not run.incomparable else ""
                rows.append((found, (f"{point.nimg / 1000:.3g}", said)))
        if rows:
            uri, width, height = _joined([images for images, _ in rows])
            stages = tuple(stage for _, stage in rows)
            return Film(cell.name, run.spec.run_id, uri, width, height, stages)
    return None


def _spread(items: Sequence[Point]) -> list[Point]:
    """At most `STAGES` of the items, the first and the last among them."""
    if len(items) <= STAGES:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (STAGES - 1))] for i in range(STAGES)]


def _tiles(run: Run, name: str, size: int) -> list[Image.Image]:
    """The first images of a sheet of a run; empty = it is not there, or none of this run's."""
    path = run.folder / name
    try:
        if not path.is_file():  # as for every run of a store of records alone
            return []
        if not path.resolve().is_relative_to(run.folder.resolve()):  # a record from elsewhere
            return []
        return tiles(Image.open(path).convert("RGB"), size)[:LATENTS]
    except (OSError, ValueError, SyntaxError):
        return []


def _joined(rows: Sequence[Sequence[Image.Image]]) -> tuple[str, int, int]:
    """Rows of images as one picture: data URI, width, height."""
    size = min(LARGEST, rows[0][0].height)
    page = Image.new("RGB", (size * max(map(len, rows)), size * len(rows)), "white")
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            small = image if image.size == (size, size) else image.resize((size, size))
            page.paste(small, (c * size, r * size))
    out = io.BytesIO()
    page.save(out, format="WEBP", quality=90, method=6)
    return (
        "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode(),
        page.width,
        page.height,
    )
