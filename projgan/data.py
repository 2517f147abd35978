"""Training images as one packed uint8 memory map, rendered or read from a folder, and their order.

A packed data set is a folder `images.npy` ([N, 3, R, R] uint8) + `meta.json` (count, SHA-256 and
origin). It is made once, checked by its hash whenever it is opened, and made again when damaged.
One that `projgan.prepare` made is found by its name, and may have classes and an order of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from projgan import scenes
from projgan.config import Data
from projgan.errors import DataError, UserError
from projgan.files import replacing, sha256_of, write_json_atomic

RENDERED = {"clevr": 8192}  # data sets that are rendered here, and how many images they have
RENDER_SEED = 0
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
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


def prepared_folder(data_dir: Path, name: str, resolution: int) -> Path:
    """Where `do=prepare` puts a data set, and training looks for it."""
    return data_dir / f"{name}-{resolution}px"


def find_prepared(cfg: Data, data_dir: Path) -> Path | None:
    """The prepared data set that is meant: by its path, or by name. None = there is none."""
    if cfg.path is None:
        place = prepared_folder(data_dir, cfg.name, cfg.resolution)
        return place if cfg.name not in RENDERED and (place / META).is_file() else None
    place = Path(cfg.path)
    return place if (place / META).is_file() and (place / IMAGES).is_file() else None


def check_data(cfg: Data, data_dir: Path = Path("data")) -> None:
    """Refuses a configuration whose data cannot be found; reads no pixels."""
    prepared = find_prepared(cfg, data_dir)
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
        if cfg.subset is not None and cfg.subset > shape[0]:
            raise DataError(f"data.subset={cfg.subset} is more than the {shape[0]} of {prepared}")
        return
    if cfg.path is None:
        if cfg.name not in RENDERED:
            place = prepared_folder(data_dir, cfg.name, cfg.resolution)
            raise DataError(
                f"data.name={cfg.name} is neither rendered here ({', '.join(RENDERED)} is) nor in "
                f"{place}: do=prepare data={cfg.name} source=PATH data.resolution={cfg.resolution} "
                "makes that, or give a folder of images as data.path=FOLDER"
            )
        if cfg.resolution not in scenes.RESOLUTIONS:
            known = ", ".join(map(str, scenes.RESOLUTIONS))
            raise DataError(
                f"data.resolution={cfg.resolution}: {cfg.name} is rendered at {known} pixels"
            )
        return
    folder = Path(cfg.path)
    if not folder.is_dir():
        raise DataError(f"data.path={cfg.path}: no such folder; give a folder of images")
    files = list_images(folder)
    if cfg.subset is not None and cfg.subset > len(files):
        raise DataError(f"data.subset={cfg.subset} is more than the {len(files)} of {cfg.path}")


def open_dataset(cfg: Data, data_dir: Path, progress: Progress | None = None) -> Dataset:
    """The configured images, packed under `data_dir` first where that has not been done.

    Raises:
        DataError: the folder is missing, empty or holds an unreadable image.
    """
    check_data(cfg, data_dir)
    if (prepared := find_prepared(cfg, data_dir)) is not None:
        return _open_prepared(cfg, prepared)
    if cfg.path is None:
        count = cfg.images or RENDERED[cfg.name]
        folder = data_dir / f"{cfg.name}-{cfg.resolution}px-{count}-v{scenes.VERSION}"
        origin = {"rendered": cfg.name, "seed": RENDER_SEED, "version": scenes.VERSION}
        return _open_or_pack(cfg.name, cfg, folder, count, origin, _render_chunk, progress)
    files = list_images(Path(cfg.path))
    key = hashlib.sha256()
    for file in files:
        # The time of the last change of status too: a tool that replaces a file may give it the
        # date of the old one, and cannot give it that.
        stat = file.stat()
        facts = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        key.update(f"{file.relative_to(cfg.path)} {facts}\n".encode())
    # A scale's own data.name may be left as it is beside data.path: photographs are not "clevr".
    place = Path(cfg.path).resolve().name
    name = place if cfg.name in RENDERED else cfg.name
    folder = data_dir / f"{name}-{cfg.resolution}px-{len(files)}-{key.hexdigest()[:12]}"

    def read_chunk(cfg: Data, start: int, stop: int) -> np.ndarray:
        return np.stack([read_image(file, cfg.resolution) for file in files[start:stop]])

    origin = {"folder": place, "listing": key.hexdigest()}
    return _open_or_pack(name, cfg, folder, len(files), origin, read_chunk, progress)


def list_images(folder: Path) -> list[Path]:
    """All PNG, JPEG and WebP files below a folder, sorted by their relative path."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise DataError(f"data.path={folder} holds no PNG, JPEG or WebP image")
    return files


def read_image(path: Path, resolution: int) -> np.ndarray:
    """One image as RGB, centre-cropped to a square and resized by Lanczos.

    Returns:
        [3, R, R] uint8.
    """
    return fit(decode_image(path, str(path)), resolution)


def fit(image: Image.Image, resolution: int) -> np.ndarray:
    """An image centre-cropped to a square and resized by Lanczos: [3, R, R] uint8."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(image).transpose(2, 0, 1)


def decode_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """An image as 8-bit RGB, at its own size.

    16-bit greyscale is scaled to 8 bits (of 16-bit colours Pillow keeps the upper 8), greyscale is
    repeated, palettes are looked up, CMYK is converted without a profile, and transparency is laid
    on white. An orientation in EXIF is not followed; of an animation the first frame counts.

    Args:
        source: a file, or its content.
        name: of the image, for the message.

    Raises:
        DataError: it is truncated, damaged or no image.
    """
    try:
        with Image.open(source) as opened:
            image: Image.Image = opened
            image.load()
    except Exception as error:  # a decoder stumbles over damaged bytes in ways of its own
        raise DataError(f"Cannot read image {name} ({error}): replace or remove it") from None
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _render_chunk(cfg: Data, start: int, stop: int) -> np.ndarray:
    return scenes.render(cfg.name, RENDER_SEED, np.arange(start, stop), cfg.resolution)


def _open_or_pack(
    name: str,
    cfg: Data,
    folder: Path,
    count: int,
    origin: dict[str, Any],
    make: Callable[[Data, int, int], np.ndarray],
    progress: Progress | None,
) -> Dataset:
    pixels, meta = folder / "images.npy", folder / "meta.json"
    if not _is_whole(pixels, meta):
        shape = (count, 3, cfg.resolution, cfg.resolution)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            _pack(pixels, shape, lambda start, stop: make(cfg, start, stop), progress)
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
    fingerprint = json.loads(meta.read_text())["sha256"]
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
    extra: dict[str, np.ndarray | None] = {ORDER: None, TARGETS: None}
    images = _open_array(pixels, folder)
    for name in extra:
        if (folder / name).is_file():
            extra[name] = found = np.load(folder / name, allow_pickle=False)
            if found.shape != (len(images),):
                raise DataError(
                    f"{folder / name} does not fit the images; delete {folder} and prepare it again"
                )
    name = folder.resolve().name if cfg.name in RENDERED else cfg.name
    fingerprint = json.loads((folder / META).read_text())["sha256"]
    return Dataset(name, images, fingerprint, extra[ORDER], extra[TARGETS])


def _is_whole(pixels: Path, meta: Path) -> bool:
    if not (pixels.exists() and meta.exists()):
        return False
    try:
        wanted = json.loads(meta.read_text())["sha256"]
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
    make: Callable[[int, int], np.ndarray],
    progress: Progress | None,
) -> None:
    # Written through a file: on a full disk a memory map ends the process, a write raises.
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, shape[0], _CHUNK):
            stop = min(start + _CHUNK, shape[0])
            file.write(np.ascontiguousarray(make(start, stop)).data)
            if progress:
                progress(stop, shape[0])


def training_indices(cfg: Data, total: int, order: np.ndarray | None = None) -> np.ndarray:
    """Which images are trained on: the first `subset` of one fixed order, so subsets are nested.

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
