"""Samples beside each other: each row's last sheet, and one page with a strip of every row."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Collection, Sequence

from PIL import Image, ImageDraw, ImageFont

from bench.analysis.cells import Cell, Run
from bench.config.paths import RunPaths
from bench.report.fonts import OWN, legible, path_of

STRIP = 12  # images of a row on the page
TILE = 64  # pixels of an image on the page, at least
LABEL = 190  # pixels for a row's name


def sheets(cells: Sequence[Cell], echo: Callable[[str], None]) -> dict[str, bytes]:
    """`samples/<row>.png` per cell with samples, and `samples/all.png`.

    A cell shows the samples of its first finished run. A file that cannot be read is named
    and left out.
    """
    files: dict[str, bytes] = {}
    strips: list[tuple[str, list[Image.Image]]] = []
    without: list[str] = []
    for cell in cells:
        for run in cell.finished[:1]:
            found = _last_samples(run)
            if found is None:
                continue
            data, tiles = found
            if not tiles:
                without.append(f"{run.folder}: its samples cannot be read; {cell.name}")
                continue
            files[_free(slug(cell.name), files)] = data
            strips.append((cell.name, tiles))
    if without:  # as where records were copied alone
        more = len(without) - 1
        rest = f" and {more} more row{'s' if more > 1 else ''} are" if more else " is"
        echo(f"{without[0]}{rest} shown without")
    real = _real(cells)
    if strips:
        files["samples/all.png"] = _page([*([("real images", real)] if real else []), *strips])
    return files


def slug(name: str) -> str:
    """A file name from a row's name."""
    return re.sub(r"[^a-z0-9.=+]+", "-", name.lower()).strip("-.")[:100] or "row"


def _free(name: str, files: Collection[str]) -> str:
    """The file of a row's sheet: rows whose names differ in signs alone have files of their own."""
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(path for name in names if (path := f"samples/{name}.png") not in files)


def tiles(image: Image.Image, resolution: int) -> list[Image.Image]:
    """The first images of a sheet whose tiles touch; the sheet itself where it has no tiles."""
    columns, rows = image.width // resolution, image.height // resolution
    if columns * resolution != image.width or rows * resolution != image.height:
        return [image]
    boxes = [(x * resolution, y * resolution) for y in range(rows) for x in range(columns)]
    return [image.crop((x, y, x + resolution, y + resolution)) for x, y in boxes[:STRIP]]


def _last_samples(run: Run) -> tuple[bytes, list[Image.Image]] | None:
    """File and tiles of a run's last samples; no tiles = unreadable; None = there are none."""
    name = run.final.samples if run.final else None
    if name is None:
        return None
    path = (run.folder / name).resolve()
    try:
        if not path.is_relative_to(run.folder.resolve()):  # as one from elsewhere may say
            return b"", []
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return b"", []
    return data, tiles(image, run.spec.config.data.resolution)


def _real(cells: Sequence[Cell]) -> list[Image.Image]:
    """Real images, where a run kept a sheet of them."""
    for run in (run for cell in cells for run in cell.finished):
        path = RunPaths(run.folder).real
        try:
            image = Image.open(path).convert("RGB")
        except (OSError, ValueError, SyntaxError):
            continue
        return tiles(image, run.spec.config.data.resolution)
    return []


def _page(strips: Sequence[tuple[str, list[Image.Image]]]) -> bytes:
    first = strips[0][1][0]
    size = first.height * max(1, round(TILE / first.height))
    gap = 4
    width = LABEL + max(len(images) for _, images in strips) * (size + gap)
    page = Image.new("RGB", (width, len(strips) * (size + gap) + gap), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.truetype(path_of(OWN), size=13)
    for row, (name, images) in enumerate(strips):
        top = gap + row * (size + gap)
        text = "\n".join(_wrapped(legible(name), pen, font))
        pen.multiline_text((8, top + size / 2), text, fill="black", font=font, anchor="lm")
        for column, image in enumerate(images):
            shown = image.resize((size, size), Image.Resampling.NEAREST)
            page.paste(shown, (LABEL + column * (size + gap), top))
    out = io.BytesIO()
    page.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _wrapped(
    text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) <= LABEL - 16 or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
