"""Any source of images -> a packed data set of a name and a resolution, as training opens it.

`NAME-256px/` gets `images.npy` ([N, 3, R, R] uint8, sorted by the images' names), `order.npy` (an
order by content, whose first n are the subset of n), `labels.npy` where the source has classes,
and, last, `meta.json`. What was packed when it was interrupted is kept: the same command goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from projgan.data import IMAGES, META, ORDER, TARGETS, decode_image, fit, prepared_folder
from projgan.errors import DataError, UserError
from projgan.files import replacing, write_json_atomic
from projgan.sources import LARGEST, ImageSource, open_source

CHUNK = 256  # images between two notes of how far it is

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # what, images done, images in all


def prepare(
    name: str,
    source: Path,
    resolution: int,
    data_dir: Path,
    progress: Progress | None = None,
    check: Callable[[ImageSource], None] | None = None,
) -> Path:
    """Packs a source: centre-cropped, Lanczos, 8-bit RGB.

    Args:
        name: of the data set; data.name finds it again.
        source: folder, zip, tar, LMDB folder, parquet or Arrow file or folder of these.
        resolution: pixels of a side.
        data_dir: where packed data sets are kept.
        progress: told what is done and how far.
        check: may refuse the source, by what is in it, before anything is packed.

    Returns:
        The folder of the data set.

    Raises:
        DataError: the source is not there, damaged, or one of its images cannot be read.
        UserError: the folder cannot be written.
    """
    opened = open_source(source)
    if check:
        check(opened)
    folder = prepared_folder(data_dir, name, resolution)
    listing = hashlib.sha256("\n".join([opened.kind, *opened.names]).encode()).hexdigest()
    if (folder / META).is_file():
        meta = json.loads((folder / META).read_text())
        if meta.get("listing") == listing:
            return folder
        raise DataError(
            f"{folder} holds data={name} from another source ({meta.get('source')}, "
            f"{meta.get('count')} images); give another data= or delete that folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = folder / f"{IMAGES}.part"
        _pack(opened, resolution, pixels, folder / "progress.json", listing, progress)
        sha256, order = _read_again(pixels, len(opened.names), resolution, progress)
        _save(folder / ORDER, order)
        if opened.labels is not None:
            rank = np.argsort(np.argsort(opened.names))
            labels = np.empty(len(rank), np.int64)
            labels[rank] = opened.labels
            _save(folder / TARGETS, labels)
        os.replace(pixels, folder / IMAGES)
        meta = {
            "count": len(opened.names),
            "sha256": sha256,
            "source": opened.path.name,
            "kind": opened.kind,
            "listing": listing,
            "classes": list(opened.classes),
        }
        write_json_atomic(folder / META, meta)
        (folder / "progress.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write in {folder}: {error.strerror or error}; free or change data_dir="
        ) from error
    return folder


def _pack(
    source: ImageSource,
    resolution: int,
    pixels: Path,
    noted: Path,
    listing: str,
    progress: Progress | None,
) -> None:
    """Writes every image at its place among the sorted names; goes on where it was interrupted."""
    total, size = len(source.names), 3 * resolution**2
    place = np.argsort(np.argsort(source.names))  # of each entry, in reading order
    done = _done_before(noted, pixels, listing)
    # Through a file: on a full disk a memory map ends the process, a write raises.
    with pixels.open("r+b" if done else "w+b") as file, ThreadPoolExecutor() as threads:
        header = {"descr": "|u1", "fortran_order": False,
                  "shape": (total, 3, resolution, resolution)}  # fmt: skip
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()

        def made(entry: tuple[int, bytes]) -> tuple[int, np.ndarray]:
            number, content = entry
            name = f"{source.names[number]} of {source.path}"
            if len(content) > LARGEST:
                raise DataError(f"{name} unpacks to over {LARGEST >> 20} MB; remove it")
            return number, fit(decode_image(BytesIO(content), name), resolution)

        entries = enumerate(_read(source, done), start=done)
        while chunk := list(islice(entries, CHUNK)):
            for number, image in threads.map(made, chunk):
                file.seek(begin + int(place[number]) * size)
                file.write(image.tobytes())
                done += 1
            file.flush()
            os.fsync(file.fileno())
            write_json_atomic(noted, {"listing": listing, "done": done})
            if progress:
                progress("packing", done, total)
    if done != total:
        raise DataError(f"source={source.path}: ended after {done} of {total} images; replace it")


def _read(source: ImageSource, start: int) -> Iterator[bytes]:
    """The contents from a number on; an archive that breaks off names the image."""
    number, entries = start, source.walk(start)
    while True:
        try:
            content = next(entries)
        except StopIteration:
            return
        except Exception as error:  # zlib, lzma, the database: each has its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{source.names[number]} of {source.path} cannot be read ({reason[:120]}); "
                "replace it"
            ) from None
        yield content
        number += 1


def _done_before(noted: Path, pixels: Path, listing: str) -> int:
    """How many images an interrupted call has packed of the same source."""
    try:
        said = json.loads(noted.read_text())
        same = said["listing"] == listing and pixels.is_file()
        return int(said["done"]) if same else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _read_again(
    pixels: Path, total: int, resolution: int, progress: Progress | None
) -> tuple[str, np.ndarray]:
    """SHA-256 of the file, and the images' order by their own, which no file order decides."""
    whole, size = hashlib.sha256(), 3 * resolution**2
    each: list[bytes] = []
    with pixels.open("rb") as file:
        header = pixels.stat().st_size - total * size
        whole.update(file.read(header))
        for number in range(total):
            image = file.read(size)
            whole.update(image)
            each.append(hashlib.sha256(image).digest())
            if progress and number % CHUNK == 0:
                progress("checking", number, total)
    # Equal images follow each other; which of them comes first makes no difference.
    order = sorted(range(total), key=lambda i: (each[i], i))
    return whole.hexdigest(), np.array(order, dtype=np.int64)


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)


def summary(folder: Path) -> dict[str, Any]:
    """What `meta.json` says of a prepared data set."""
    said: dict[str, Any] = json.loads((folder / META).read_text())
    return said
