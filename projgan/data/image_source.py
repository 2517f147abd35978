"""Encoded images by name, whatever they lie in, and how one of them is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from projgan.errors import DataError, reason

LARGEST = 2**28  # bytes of one image: more is no image but an attack
AT_ONCE = 64  # images that are decoded at a time
_BITS, _DEPTHS = 258, (1, 2, 4, 8, 16)  # TIFF's BitsPerSample, and what is known of it

Walk = Callable[[int], Iterator[bytes]]  # the entries' contents from a number on


class Classes(NamedTuple):
    """Classes of a source's images."""

    labels: list[int] | None = None  # of each entry, from 0; None = it has none
    names: tuple[str, ...] = ()  # of the classes, where they have names
    note: str | None = None  # a line for the user


@dataclass(frozen=True)
class ImageSource:
    """Encoded images by name.

    Attributes:
        path: where they are.
        kind: folder, zip, tar, lmdb, parquet or arrow.
        names: of the entries, in reading order.
        walk: gives their contents in that order, from a number on.
        files: that hold them: of a folder one for each entry.
        passed: what else lies there, by kind.
        classes: reads the classes.
    """

    path: Path
    kind: str
    names: list[str]
    walk: Walk
    files: Sequence[Path]
    passed: Counter[str] = field(default_factory=Counter)
    classes: Callable[[], Classes] = Classes

    @property
    def note(self) -> str | None:
        """One line on what is passed over; None = nothing is."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.passed.items()) if n)
        return f"passed over in {shown(self.path)}: {kinds}" if kinds else None

    def images(
        self, made: Callable[[Image.Image], np.ndarray], start: int = 0
    ) -> Iterator[np.ndarray]:
        """Yield `made` of each image in order, from the `start`-th on; several threads decode.

        Raises:
            DataError: an image that cannot be read, by name.
        """

        def one(entry: tuple[int, bytes]) -> np.ndarray:
            name = f"{shown(self.names[entry[0]])} of {shown(self.path)}"
            if len(entry[1]) > LARGEST:
                raise DataError(f"{name} unpacks to over {LARGEST >> 20} MB; remove it")
            return made(decode_image(entry[1], name))

        entries = enumerate(self._contents(start), start)
        with ThreadPoolExecutor() as threads:
            while chunk := list(islice(entries, AT_ONCE)):
                yield from threads.map(one, chunk)

    def _contents(self, start: int) -> Iterator[bytes]:
        """Yield what `walk` does; an error names the image at which the source breaks off."""
        number, entries = start, self.walk(start)
        while True:
            try:
                content = next(entries)
            except StopIteration:
                break
            except Exception as error:  # zlib, lzma, the database: each has its own
                raise DataError(
                    f"{shown(self.names[number])} of {shown(self.path)} cannot be read "
                    f"({reason(error)}); replace it"
                ) from None
            yield content
            number += 1
        if number != (total := len(self.names)):
            raise DataError(f"{shown(self.path)} ended after {number} of {total} images; mend it")

    def state(self, entries: Sequence[int]) -> bytes:
        """Name, size and times of the files that begin with these entries; none is read."""
        found = ""
        each: Iterable[tuple[str, Path]] = ((self.names[i], self.files[i]) for i in entries)
        if self.kind != "folder":
            each = ((file.name, file) for file in (self.files if 0 in entries else ()))
        for name, file in each:
            # The time of the last change of status too: a tool that replaces a file may give it the
            # date of the old one, and cannot give it that.
            stat = file.stat()
            found += f"{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n"
        return found.encode(errors="surrogateescape")


def shown(name: str | Path) -> str:
    """A name for messages and files of text: bytes that are no UTF-8 as escapes."""
    return str(name).encode(errors="backslashreplace").decode()


def read_entry(file: IO[bytes]) -> bytes:
    """Return an image's bytes; one more than `LARGEST` where there are more, which is refused."""
    return file.read(LARGEST + 1)


def parts_of(name: str) -> tuple[str, ...]:
    """A name's folders and itself; packers of Windows may put backslashes between them."""
    return PurePosixPath(name.replace("\\", "/")).parts


def decode_image(content: bytes, name: str) -> Image.Image:
    """An image as 8-bit RGB, at its own size.

    16-bit greyscale is scaled to 8 bits (of 16-bit colours Pillow keeps the upper 8), greyscale is
    repeated, palettes are looked up, CMYK is converted without a profile, and transparency is laid
    on white. An orientation in EXIF is not followed; of an animation the first frame counts.

    Args:
        content: of the file.
        name: of the image, for the message.

    Raises:
        DataError: it is truncated, damaged or no image, or its values have no known range.
    """
    try:
        with Image.open(BytesIO(content)) as opened:
            image: Image.Image = opened
            image.load()
            _refuse_unknown_range(opened, name)
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.float64) / 257.0
            image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("RGB")
    except DataError:
        raise
    except UnidentifiedImageError:  # its message names a buffer
        why = "no image that Pillow knows"
    except Exception as error:  # a decoder stumbles over damaged bytes in ways of its own
        why = reason(error)
    raise DataError(f"Cannot read image {name} ({why}): replace or remove it")


def _refuse_unknown_range(image: Image.Image, name: str) -> None:
    """Refuses what would be packed black or white: no bound says which value is white."""
    bits = getattr(image, "tag_v2", {}).get(_BITS, (8,))
    # A greyscale PNG of 16 bits may open as "I" too.
    if image.mode != "F" and (image.mode != "I" or image.format == "PNG") and max(bits) in _DEPTHS:
        return
    what = "floating point" if image.mode == "F" else f"{max(bits)}-bit"
    raise DataError(
        f"Cannot read image {name}: a {image.format} of {what} values, which have no fixed range; "
        "convert it to 8 or 16 bits"
    )


def fit(image: Image.Image, resolution: int, filter: str = "lanczos") -> np.ndarray:
    """An image centre-cropped to a square and resized by `lanczos` or `box`: [3, R, R] uint8."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        how = Image.Resampling[filter.upper()]
        image = image.resize((resolution, resolution), how)
    return np.asarray(image).transpose(2, 0, 1)


@contextmanager
def readable(asked: str) -> Iterator[None]:
    """Whatever a damaged archive makes its reader stumble over becomes one line."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        why = error.strerror or reason(error)
        place = f" {shown(error.filename)}" if error.filename else ""
        raise DataError(f"{asked}: cannot be read ({why}{place}); mend or replace it") from None
    except Exception as error:
        raise DataError(f"{asked}: damaged ({reason(error)}); replace it") from None
