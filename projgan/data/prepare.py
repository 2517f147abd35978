"""Any source of images -> a packed data set of a name and a resolution, as training opens it.

`NAME-256px/` gets `images.npy` ([N, 3, R, R] uint8, sorted by the images' names), `order.npy` (an
order by content, whose first n are the subset of n), `labels.npy` where the source has classes,
and, last, `meta.json`. What was packed when it was interrupted is kept: the same command goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from projgan.config import Data
from projgan.data.dataset import IMAGES, META, ORDER, TARGETS, prepared_folder, write_header
from projgan.data.image_source import Classes, ImageSource, fit, shown
from projgan.data.sources import open_source
from projgan.errors import DataError, UserError
from projgan.files import replacing, write_json_atomic

CHUNK = 256  # images between two notes of how far it is

Progress = Callable[[str, int, int], None]  # what, images done, images in all


def prepare(
    name: str,
    source: Path,
    resolution: int,
    data_dir: Path,
    progress: Progress | None = None,
    check: Callable[[ImageSource, Classes], None] | None = None,
    anew: bool = False,
    filter: Literal["lanczos", "box"] = "lanczos",
) -> Path:
    """Packs a source: centre-cropped, resized, 8-bit RGB.

    Where that was done before and the source's files are others since, or have other times, it is
    packed again and compared with what is there.

    Args:
        name: of the data set; data.name finds it again.
        source: folder, zip, tar, LMDB folder, parquet or Arrow file or folder of these.
        resolution: pixels of a side.
        data_dir: where packed data sets are kept.
        progress: called with (activity, images done, images in all).
        check: may refuse the source, by what is in it, before anything is packed.
        anew: replaces what was prepared or begun of another source or state of it.
        filter: how images of another size are resized; a data set for each lies beside the others.

    Returns:
        The folder of the data set.

    Raises:
        DataError: the source is not there, damaged, one of its images cannot be read, or the
            folder holds something else.
        UserError: the folder cannot be written.
    """
    opened = open_source(source)
    classes = opened.classes()
    if check:
        check(opened, classes)
    rank = np.argsort(np.argsort(opened.names))  # of each entry, in reading order
    labels = None
    if classes.labels is not None:
        labels = np.empty(len(rank), np.int64)
        labels[rank] = classes.labels
    folder = prepared_folder(data_dir, Data(name=name, resolution=resolution, filter=filter))
    listing = "\n".join([opened.kind, *opened.names]).encode(errors="surrogateescape")
    meta: dict[str, Any] = {
        "count": len(rank),
        "sha256": "",
        "source": shown(opened.path.name),
        "kind": opened.kind,
        "listing": hashlib.sha256(listing).hexdigest(),
        "state": hashlib.sha256(opened.state(range(len(rank)))).hexdigest(),
        "classes": list(classes.names),
        "filter": filter,
    }
    before: dict[str, Any] = {}
    if (folder / META).is_file() and not anew:
        before = summary(folder)
        if before.get("listing") != meta["listing"]:
            raise DataError(
                f"{folder} holds data={name} from another source ({before.get('source')}, "
                f"{before.get('count')} images); give another data=, or force=true to replace it"
            )
        if not _same_labels(folder, labels, before, classes.names):
            raise DataError(f"{folder} holds data={name} with other classes; {_REPLACE}")
        if before.get("state") == meta["state"] and (folder / IMAGES).is_file():
            return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pixels, noted = folder / f"{IMAGES}.part", folder / "progress.json"
        _pack(opened, resolution, filter, rank, pixels, noted, meta["listing"], progress, anew)
        meta["sha256"], order = _read_again(pixels, len(rank), resolution, progress)
        if before.get("sha256", meta["sha256"]) != meta["sha256"]:
            pixels.unlink()
            noted.unlink()
            raise DataError(f"{folder} holds other images of data={name}: {meta['source']} changed "
                            f"since; {_REPLACE}")  # fmt: skip
        (folder / META).unlink(missing_ok=True)  # until all of it is there
        _save(folder / ORDER, order)
        if labels is not None:
            _save(folder / TARGETS, labels)
        else:
            (folder / TARGETS).unlink(missing_ok=True)
        os.replace(pixels, folder / IMAGES)
        write_json_atomic(folder / META, meta)
        noted.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write in {folder}: {error.strerror or error}; free or change data_dir="
        ) from error
    return folder


_REPLACE = "force=true packs them anew in its place, another data= beside it"


def _same_labels(
    folder: Path, labels: np.ndarray | None, before: dict[str, Any], names: tuple[str, ...]
) -> bool:
    if labels is None or not (folder / TARGETS).is_file():
        return labels is None and not (folder / TARGETS).is_file()
    held = np.load(folder / TARGETS, allow_pickle=False)
    return np.array_equal(held, labels) and before.get("classes") == list(names)


def _pack(
    source: ImageSource,
    resolution: int,
    filter: str,
    rank: np.ndarray,
    pixels: Path,
    noted: Path,
    listing: str,
    progress: Progress | None,
    anew: bool,
) -> None:
    """Writes every image at its place among the sorted names; goes on where it was interrupted."""
    total, size = len(rank), 3 * resolution**2
    done = _done_before(source, noted, pixels, listing, anew)
    state = hashlib.sha256(source.state(range(done)))
    with pixels.open("r+b" if done else "w+b") as file:
        begin = write_header(file, (total, 3, resolution, resolution))
        images = source.images(lambda image: fit(image, resolution, filter), done)
        while chunk := list(islice(images, CHUNK)):
            state.update(source.state(range(done, done + len(chunk))))
            for image in chunk:
                file.seek(begin + int(rank[done]) * size)
                file.write(image.tobytes())
                done += 1
            file.flush()
            os.fsync(file.fileno())
            note = {"listing": listing, "done": done, "state": state.hexdigest()}
            write_json_atomic(noted, note)
            if progress:
                progress("packing", done, total)


def _done_before(source: ImageSource, noted: Path, pixels: Path, listing: str, anew: bool) -> int:
    """Return the number of images that an interrupted call has packed of the same source.

    Raises:
        DataError: it has packed some of another source, or of files that changed since.
    """
    try:
        note = json.loads(noted.read_text(encoding="utf-8"))
        done = int(note["done"]) if pixels.is_file() else 0
        state = hashlib.sha256(source.state(range(done))).hexdigest()
        same = note["listing"] == listing and note["state"] == state
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return 0
    if done and not same and not anew:
        raise DataError(
            f"{noted.parent} holds {done} images that an interrupted do=prepare packed of another "
            f"state of {shown(source.path)}; force=true begins again"
        )
    return done if same else 0


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
    """Return the content of a prepared data set's `meta.json`."""
    meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
    return meta
