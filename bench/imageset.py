"""Images to be measured, wherever they are: a folder, a zip or a .npy array.

Images keep their own sizes: each extractor has its own resize. Nothing of a zip is unpacked to
disk, its members are read in memory under a bound.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from projgan.data import SUFFIXES, decode_image
from projgan.errors import DataError
from projgan.files import sha256_of

Images = NDArray[np.uint8]
LARGEST_MEMBER = 2**28  # bytes of an image in a zip, unpacked: more is no image but an attack
JPEG = (".jpg", ".jpeg")


class ImageSet:
    """A sequence of images [3, H, W] uint8 RGB, read when they are asked for.

    Attributes:
        name: where it came from, as it was given.
        names: of the images, sorted; empty for an array.
    """

    def __init__(self, path: Path, read: Callable[[int], Images], count: int, names: Sequence[str]):
        self.name = str(path)
        self.path = path
        self.names = list(names)
        self._read = read
        self._count = count
        self._threads = ThreadPoolExecutor()  # decoders let others run while they work

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: slice | NDArray[np.int64]) -> Images | list[Images]:
        """Some images: an array [N, 3, H, W], or a list of [3, H, W] where sizes differ."""
        chosen = range(self._count)[at] if isinstance(at, slice) else [int(i) for i in at]
        images = list(self._threads.map(self._read, chosen))
        return np.stack(images) if len({image.shape for image in images}) == 1 else images

    def batches(self, size: int) -> Iterator[Images | list[Images]]:
        """All images in order."""
        for start in range(0, self._count, size):
            yield self[start : start + size]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(count, 3, H, W) of the first image; others may differ."""
        return (self._count, *self._read(0).shape)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' contents and of what decodes them, as hex.

        Decoders differ in the last bit of a JPEG: other versions, other images.
        """
        digest = hashlib.sha256(decoders().encode())
        if self.path.is_dir():
            for name in self.names:
                digest.update(f"{name} {sha256_of(self.path / name)}\n".encode())
        else:
            digest.update(sha256_of(self.path).encode())
        return digest.hexdigest()

    @property
    def jpegs(self) -> int:
        """How many of the images are JPEG files."""
        return sum(name.lower().endswith(JPEG) for name in self.names)


def open_images(path: Path, key: str = "path") -> ImageSet:
    """Images of a folder (with its subfolders), a zip or a .npy array.

    Args:
        path: the folder or file.
        key: how the user named it, for messages.

    Raises:
        DataError: it is not there, holds no image, or is an array of another form.
    """
    if path.is_dir():
        return _open_folder(path, key)
    if not path.is_file():
        raise DataError(f"{key}={path}: no such file or folder; give a folder, a .zip or a .npy")
    if path.suffix.lower() == ".npy":
        return _open_array(path, key)
    if zipfile.is_zipfile(path):
        return _open_zip(path, key)
    raise DataError(f"{key}={path}: neither a folder nor a .zip nor a .npy array of images")


def decoders() -> str:
    """Versions of what turns files into pixels, for cache keys and records."""
    libraries = (f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "zlib", "webp"))
    return ", ".join([f"Pillow {PIL.__version__}", *libraries])


def _open_folder(path: Path, key: str) -> ImageSet:
    files = (f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    names = sorted(f.relative_to(path).as_posix() for f in files)
    _refuse_none(names, path, key)

    def read(i: int) -> Images:
        return _pixels(path / names[i], str(path / names[i]))

    return ImageSet(path, read, len(names), names)


def _open_zip(path: Path, key: str) -> ImageSet:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{key}={path}: damaged archive ({error}); replace it") from None
    members = {
        m.filename: m
        for m in archive.infolist()
        if m.filename.lower().endswith(SUFFIXES) and "__MACOSX" not in m.filename
    }
    names = sorted(members)
    _refuse_none(names, path, key)
    if huge := [name for name in names if members[name].file_size > LARGEST_MEMBER]:
        raise DataError(f"{path}: {huge[0]} unpacks to over {LARGEST_MEMBER >> 20} MB; remove it")
    one_at_a_time = threading.Lock()  # a shared file has one position

    def read(i: int) -> Images:
        member = members[names[i]]
        try:
            with one_at_a_time, archive.open(member) as file:
                content = file.read(LARGEST_MEMBER + 1)  # the size in the header may lie
        except Exception as error:  # zlib, lzma and bz2 have their own, encryption a RuntimeError
            raise DataError(f"{path}: {names[i]} cannot be read ({error}); replace it") from None
        return _pixels(BytesIO(content), f"{names[i]} in {path}")

    return ImageSet(path, read, len(names), names)


def _open_array(path: Path, key: str) -> ImageSet:
    try:
        loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            raise ValueError("an archive of several")
        array: NDArray[Any] = loaded
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{key}={path}: not a whole .npy array ({error}); write it again") from None
    if array.dtype != np.uint8:
        raise DataError(f"{key}={path}: holds {array.dtype}; give pixels of 0 to 255 as uint8")
    if array.ndim == 3:  # [N, H, W], greyscale
        array = array[:, None]
    first, last = (array.shape[1], array.shape[3]) if array.ndim == 4 else (0, 0)
    if array.ndim != 4 or len(array) == 0 or not {first, last} & {1, 3}:
        raise DataError(
            f"{key}={path}: of shape {array.shape}; give [N, H, W, 3] or [N, 3, H, W], or 1 channel"
        )
    if first in (1, 3) and last in (1, 3):
        raise DataError(
            f"{key}={path}: of shape {array.shape}, in which channels could be first or last"
        )
    if last in (1, 3):
        array = array.transpose(0, 3, 1, 2)

    def read(i: int) -> Images:
        image: Images = np.array(array[i])
        return image if len(image) == 3 else np.repeat(image, 3, axis=0)

    return ImageSet(path, read, len(array), ())


def _refuse_none(names: Sequence[str], path: Path, key: str) -> None:
    if not names:
        raise DataError(f"{key}={path}: holds no PNG, JPEG or WebP image")


def _pixels(source: Path | BytesIO, name: str) -> Images:
    return np.ascontiguousarray(np.asarray(decode_image(source, name)).transpose(2, 0, 1))
