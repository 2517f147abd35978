"""Images to be measured, wherever they are: a folder, an archive or a .npy array.

Images keep their own sizes: each extractor has its own resize. Nothing of an archive is unpacked to
disk, its members are read in memory under a bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from projgan.data.image_source import shown
from projgan.data.sources import open_source
from projgan.errors import DataError
from projgan.files import sha256_of

Images = NDArray[np.uint8]
JPEG = (".jpg", ".jpeg")


class ImageSet:
    """A sequence of images [3, H, W] uint8 RGB, read when they are asked for, best in order.

    Attributes:
        name: where it came from, as it was given.
        names: of the images; empty for an array.
        note: what of the folder or archive is passed over; None = nothing is.
    """

    def __init__(
        self,
        path: Path,
        stream: Callable[[int], Iterator[Images]],
        count: int,
        names: Sequence[str] = (),
        files: Sequence[Path] = (),
        note: str | None = None,
    ):
        self.name = shown(path)
        self.path = path
        self.names = list(names)
        self.note = note
        self._files = files
        self._stream = stream  # from a number on
        self._count = count
        self._at, self._going = 0, stream(0)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: slice | NDArray[np.int64]) -> Images | list[Images]:
        """Some images: an array [N, 3, H, W], or a list of [3, H, W] where sizes differ."""
        chosen = range(self._count)[at] if isinstance(at, slice) else [int(i) for i in at]
        images = [self._read(i) for i in chosen]
        return np.stack(images) if len({image.shape for image in images}) == 1 else images

    def _read(self, i: int) -> Images:
        if i < self._at:
            self._at, self._going = i, self._stream(i)
        image = next(islice(self._going, i - self._at, None))
        self._at = i + 1
        return image

    def batches(self, size: int) -> Iterator[Images | list[Images]]:
        """All images in order."""
        for start in range(0, self._count, size):
            yield self[start : start + size]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(count, 3, H, W) of the first image; others may differ, see `take_smallest_size`."""
        return (self._count, *next(self._stream(0)).shape)

    def take_smallest_size(self) -> None:
        """Make `shape` that of the smallest image, by width and then height, whatever the names.

        Reads every image once.
        """
        _, c, h, w = min((i.shape[2], *i.shape) for i in self._stream(0))
        self.__dict__["shape"] = (self._count, c, h, w)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' contents and of what decodes them, as hex.

        Decoders differ in the last bit of a JPEG: other versions, other images.
        """
        digest = hashlib.sha256(decoders().encode())
        if self.path.is_dir():
            for file in self._files:
                line = f"{file.relative_to(self.path).as_posix()} {sha256_of(file)}\n"
                digest.update(line.encode(errors="surrogateescape"))
        else:
            digest.update(sha256_of(self.path).encode())
        return digest.hexdigest()

    @property
    def jpegs(self) -> int:
        """The number of images that are JPEG files."""
        return sum(name.lower().endswith(JPEG) for name in self.names)


def open_images(path: Path, key: str = "path") -> ImageSet:
    """Images of a .npy array, or of whatever `projgan.data.sources` reads.

    Args:
        path: the folder or file.
        key: how the user named it, for messages.

    Raises:
        DataError: it is not there, holds no image, or is an array of another form.
    """
    if path.suffix.lower() == ".npy" and path.is_file():
        return _open_array(path, key)
    source = open_source(path, key)

    def stream(start: int) -> Iterator[Images]:
        return source.images(lambda image: np.asarray(image).transpose(2, 0, 1), start)

    return ImageSet(path, stream, len(source.names), source.names, source.files, source.note)


def decoders() -> str:
    """Versions of what turns files into pixels, for cache keys and records."""
    libraries = (f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "zlib", "webp"))
    return ", ".join([f"Pillow {PIL.__version__}", *libraries])


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

    return ImageSet(path, lambda start: map(read, range(start, len(array))), len(array))
