"""Training images as one packed uint8 memory map, rendered or read from files, and their order.

A packed data set is a folder `images.npy` ([N, 3, R, R] uint8) + `meta.json` (count, SHA-256 and
origin). It is made once, checked by its hash whenever it is opened, and made again when damaged.
One that `projgan.data.prepare` made is found by its name, and may have classes and an order of its
own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from projgan import scenes
from projgan.config import Data
from projgan.data.image_source import ImageSource, fit
from projgan.data.sources import open_source
from projgan.errors import DataError, UserError
from projgan.files import replacing, sha256_of, write_json_atomic

RENDERED = {"clevr": 8192}  # data sets that are rendered here, and how many images they have
RENDER_SEED = 0
IMAGES, META, ORDER, TARGETS = "images.npy", "meta.json", "order.npy", "labels.npy"
_CHUNK = 256

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class Dataset:
    """Images on disk.

    Attributes:
        name: for tables.
        images: [N, 3, R, R] uint8 memory map, RGB.
        fingerprint: SHA-256 of the pixels and their shape, as hex.
        order: [N] int64, the order whose first n are the subset of n. None = one fixed shuffle.
        labels: [N] int64, classes from 0. None = it has none.
    """

    name: str
    images: np.ndarray
    fingerprint: str
    order: np.ndarray | None = None
    labels: np.ndarray | None = None


def prepared_folder(data_dir: Path, cfg: Data) -> Path:
    """Return the folder into which `do=prepare` writes a data set and where training finds it."""
    return data_dir / f"{cfg.name}-{cfg.resolution}px{_filtered(cfg)}"


def _filtered(cfg: Data) -> str:
    return "" if cfg.filter == Data().filter else f"-{cfg.filter}"


def find_prepared(cfg: Data, data_dir: Path) -> Path | None:
    """The prepared data set that is meant: by its path, or by name. None = there is none."""
    if cfg.path is None:
        place = prepared_folder(data_dir, cfg)
        return place if cfg.name not in RENDERED and (place / META).is_file() else None
    place = Path(cfg.path)
    return place if (place / META).is_file() and (place / IMAGES).is_file() else None


def check_data(cfg: Data, data_dir: Path = Path("data")) -> ImageSource | None:
    """Refuses a configuration whose data cannot be found or do not fit it; reads no pixels.

    Returns:
        What data.path means, where it is to be packed.
    """
    prepared, source = find_prepared(cfg, data_dir), None
    if cfg.classes and (prepared is None or not (prepared / TARGETS).is_file()):
        raise DataError(
            f"data.classes={cfg.classes}: {prepared or cfg.name} has no classes; do=prepare takes "
            "them from subfolders, dataset.json or a column of labels"
        )
    if prepared is not None:
        shape = _open_array(prepared / IMAGES, prepared).shape
        if shape[2:] != (cfg.resolution, cfg.resolution):
            raise DataError(
                f"data.resolution={cfg.resolution}: {prepared} has {shape[2]} pixels; "
                "prepare it anew or change one of the two"
            )
        if (held := _filter_of(prepared / META)) != cfg.filter:
            raise DataError(
                f"data.filter={cfg.filter}: {prepared} was resized by {held}; prepare it anew or "
                "change one of the two"
            )
        count, place = shape[0], str(prepared)
    elif cfg.path is None:
        if cfg.name not in RENDERED:
            folder = prepared_folder(data_dir, cfg)
            filtered = f" data.filter={cfg.filter}" if _filtered(cfg) else ""
            raise DataError(
                f"data.name={cfg.name} is neither rendered here ({', '.join(RENDERED)} is) nor in "
                f"{folder}: do=prepare data={cfg.name} source=PATH "
                f"data.resolution={cfg.resolution}{filtered} makes that, "
                "or give images as data.path=PATH"
            )
        if cfg.resolution not in scenes.RESOLUTIONS:
            known = ", ".join(map(str, scenes.RESOLUTIONS))
            raise DataError(
                f"data.resolution={cfg.resolution}: {cfg.name} is rendered at {known} pixels"
            )
        count, place = cfg.images or RENDERED[cfg.name], f"data.images={cfg.images}"
    else:
        source = open_source(Path(cfg.path), "data.path")
        count, place = len(source.names), f"data.path={cfg.path}"
    if count < 2:
        raise DataError(f"{place} is one image: nothing can be learned or measured; give more")
    if cfg.subset is not None and cfg.subset > count:
        raise DataError(f"data.subset={cfg.subset} is more than the {count} of {place}")
    if cfg.classes and prepared is not None:
        _check_classes(cfg, prepared, count)
    return source


def _filter_of(meta: Path) -> str:
    """Return the filter that resized a prepared data set; older ones name none: Lanczos."""
    with suppress(ValueError, AttributeError, OSError):  # damaged: refused where it is opened
        return str(json.loads(meta.read_text(encoding="utf-8")).get("filter", Data().filter))
    return Data().filter


def _check_classes(cfg: Data, folder: Path, total: int) -> None:
    """Refuses classes that are not those of the labels: none too many, none without an image."""
    labels, order = (_open_beside(folder, name, total) for name in (TARGETS, ORDER))
    assert labels is not None
    known = np.unique(labels)
    if known[0] < 0 or known[-1] + 1 != cfg.classes:
        fits = known[0] >= 0 and known[-1] > 0
        raise DataError(
            f"data.classes={cfg.classes}: {folder} has classes {known[0]} to {known[-1]}; "
            + (f"give data.classes={known[-1] + 1}" if fits else "leave data.classes out")
        )
    trained = labels[training_indices(cfg, total, order)]
    if missing := sorted(set(range(cfg.classes)) - set(trained.tolist())):
        among = folder if len(known) < cfg.classes else f"data.subset={cfg.subset} of {folder}"
        raise DataError(
            f"data.classes={cfg.classes}: no image of class {', '.join(map(str, missing[:8]))} is "
            f"in {among}; number the classes without gaps, or take more images"
        )


def open_dataset(cfg: Data, data_dir: Path, progress: Progress | None = None) -> Dataset:
    """The configured images, packed under `data_dir` first where that has not been done.

    Raises:
        DataError: they are missing, do not fit the configuration, or one cannot be read.
    """
    source = check_data(cfg, data_dir)
    if (prepared := find_prepared(cfg, data_dir)) is not None:
        return _open_prepared(cfg, prepared)
    if source is None:
        count = cfg.images or RENDERED[cfg.name]
        folder = data_dir / f"{cfg.name}-{cfg.resolution}px-{count}-v{scenes.VERSION}"
        origin = {"rendered": cfg.name, "seed": RENDER_SEED, "version": scenes.VERSION}
        return _open_or_pack(cfg.name, cfg, folder, count, origin, _rendered(cfg, count), progress)
    # A scale's own data.name may be left as it is beside data.path: photographs are not "clevr".
    place = source.path.resolve().name
    name = place if cfg.name in RENDERED else cfg.name
    # By folder, then by name: the order that sets of folders always had.
    order = sorted(range(len(source.names)), key=lambda i: PurePosixPath(source.names[i]).parts)
    rank, key = np.argsort(order), hashlib.sha256(source.state(order)).hexdigest()
    folder = data_dir / f"{name}-{cfg.resolution}px{_filtered(cfg)}-{len(order)}-{key[:12]}"
    fitted = source.images(lambda image: fit(image, cfg.resolution, cfg.filter))
    images = zip(rank, fitted, strict=True)
    origin = {"folder": place, "listing": key, "filter": cfg.filter}
    return _open_or_pack(name, cfg, folder, len(order), origin, images, progress)


def _rendered(cfg: Data, count: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, count, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, count))
        yield from zip(numbers, scenes.render(cfg.name, RENDER_SEED, numbers, cfg.resolution),
                       strict=True)  # fmt: skip


def _open_or_pack(
    name: str,
    cfg: Data,
    folder: Path,
    count: int,
    origin: dict[str, Any],
    images: Iterator[tuple[int, np.ndarray]],
    progress: Progress | None,
) -> Dataset:
    pixels, meta = folder / IMAGES, folder / META
    if not _is_whole(pixels, meta):
        shape = (count, 3, cfg.resolution, cfg.resolution)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            _pack(pixels, shape, images, progress)
            sha256 = _fingerprint(pixels)
            write_json_atomic(meta, {"count": count, "sha256": sha256, **origin})
        except OSError as error:
            raise UserError(
                f"Cannot write in {folder}: {error.strerror or error}; free or change data_dir="
            ) from error
        finally:
            for place in made:  # an image that cannot be read leaves no empty folder behind
                with suppress(OSError):
                    place.rmdir()
    fingerprint = json.loads(meta.read_text(encoding="utf-8"))["sha256"]
    return Dataset(name, _open_array(pixels, folder), fingerprint)


def _open_array(pixels: Path, folder: Path) -> np.ndarray:
    try:
        images = np.load(pixels, mmap_mode="r", allow_pickle=False)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError("no array of bytes [N, 3, R, R]")
    except (OSError, ValueError) as error:
        raise DataError(f"{pixels} holds no images ({error}); delete {folder}") from None
    return images


def _open_prepared(cfg: Data, folder: Path) -> Dataset:
    """A data set that cannot be made again from here: a damaged one is refused."""
    pixels = folder / IMAGES
    if not _is_whole(pixels, folder / META):
        raise DataError(f"{pixels} is damaged; delete {folder} and do=prepare it again")
    images = _open_array(pixels, folder)
    order, labels = (_open_beside(folder, name, len(images)) for name in (ORDER, TARGETS))
    name = folder.resolve().name if cfg.name in RENDERED else cfg.name
    fingerprint = json.loads((folder / META).read_text(encoding="utf-8"))["sha256"]
    return Dataset(name, images, fingerprint, order, labels)


def _open_beside(folder: Path, name: str, total: int) -> np.ndarray | None:
    """The order or the labels [total] int64 of a prepared data set; None = it has none."""
    if not (folder / name).is_file():
        return None
    try:
        found: np.ndarray = np.load(folder / name, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        found = np.empty(0)
    if found.shape != (total,) or found.dtype != np.int64:
        raise DataError(
            f"{folder / name} does not fit the images; delete {folder} and prepare it again"
        )
    return found


def _is_whole(pixels: Path, meta: Path) -> bool:
    if not (pixels.exists() and meta.exists()):
        return False
    try:
        wanted = json.loads(meta.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        wanted = None
    if wanted != _fingerprint(pixels):
        log.warning("Packed data in %s is damaged", pixels.parent)
        return False
    return True


def _fingerprint(pixels: Path) -> str:
    """SHA-256 of a file, read once per process as long as the file stays as it is."""
    stat = pixels.stat()
    return _hash(pixels.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=64)
def _hash(pixels: Path, *state: int) -> str:
    return sha256_of(pixels)


def _pack(
    path: Path,
    shape: tuple[int, ...],
    images: Iterator[tuple[int, np.ndarray]],
    progress: Progress | None,
) -> None:
    """Writes each image at its place."""
    with replacing(path) as file:
        begin = write_header(file, shape)
        for done, (place, image) in enumerate(images, 1):
            file.seek(begin + int(place) * image.nbytes)
            file.write(image.tobytes())
            if progress and (done % _CHUNK == 0 or done == shape[0]):
                progress(done, shape[0])


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Begins a file of images, and returns where the first one goes.

    Through a file: on a full disk a memory map ends the process, a write raises.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def training_indices(cfg: Data, total: int, order: np.ndarray | None = None) -> np.ndarray:
    """Return the training images: the first `subset` of one fixed order, so subsets are nested.

    The order does not depend on the run's seed: a small subset lies inside every larger one.

    Args:
        total: images that there are.
        order: [total], the data set's own. None = one fixed shuffle.
    """
    if cfg.subset is None:
        return np.arange(total)
    return subset_order(total, order)[: cfg.subset]


def subset_order(total: int, order: np.ndarray | None = None) -> np.ndarray:
    """All images in the order whose first n are the subset of n."""
    if order is not None:
        return order
    return np.random.Generator(np.random.Philox(key=20211101)).permutation(total)


def subset_fingerprint(dataset: Dataset, chosen: np.ndarray) -> str:
    """SHA-256 of the chosen images' own hashes, sorted: whatever order they lie in, as hex."""
    each = sorted(hashlib.sha256(dataset.images[i].tobytes()).digest() for i in chosen)
    return hashlib.sha256(b"".join(each)).hexdigest()


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, size: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(size)


def sample_order(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """Positions in the training set of the samples start, ..., start + count - 1 of a run.

    Each epoch is a permutation of its own, drawn from (seed, epoch): resuming at any sample needs
    no state, and every image is shown once per epoch.
    """
    positions = np.arange(start, start + count)
    return np.array([_epoch(seed, int(p // size), size)[p % size] for p in positions])
