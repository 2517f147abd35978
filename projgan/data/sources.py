"""Images wherever they lie: a folder, a zip, a tar, an LMDB, parquet or Arrow files. One reader.

Each is a list of entries by name, in the order in which it is read fastest, and a way to walk
through them from any place on. A tar's members are in the order of the archive, so that a
compressed one is read once; all else is sorted.
"""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from projgan.errors import DataError, reason

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LABELS = "dataset.json"  # {"labels": [[name, class], …]}, as StyleGAN's data sets have it
EXPORTS = (".parquet", ".arrow")  # of Hugging Face: from the hub, and of save_to_disk
LARGEST = 2**28  # bytes of one image: more is no image but an attack
AT_ONCE = 64  # images that are decoded at a time
# What systems put beside images, thumbnails above all, beside names that begin with a dot.
_THEIRS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
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


def open_source(path: Path, key: str = "source") -> ImageSource:
    """Whatever lies at `path`, by what it is and not by what it is called.

    Args:
        path: the folder or file.
        key: how the user named it, for messages.

    Raises:
        DataError: nothing is there, it is none of the known kinds, damaged, or holds no image.
    """
    asked = f"{key}={shown(path)}"
    with _readable(asked):
        if path.is_dir():
            source = _folder(path, asked)
        elif not path.is_file():
            raise DataError(f"{asked}: no such file or folder")
        elif path.suffix in EXPORTS:
            source = _export(path, [path], asked)
        elif zipfile.is_zipfile(path):
            source = _zip(path, asked)
        elif tarfile.is_tarfile(path):
            source = _tar(path, asked)
        else:
            raise DataError(
                f"{asked}: neither a folder nor a zip, tar, LMDB, parquet or Arrow file of images"
            )
    if not source.names:
        note = f" ({source.note})" if source.note else ""
        raise DataError(f"{asked}: a {source.kind} without a PNG, JPEG, WebP, BMP or TIFF{note}")
    return source


def shown(name: str | Path) -> str:
    """A name for messages and files of text: bytes that are no UTF-8 as escapes."""
    return str(name).encode(errors="backslashreplace").decode()


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


def _parts(name: str) -> tuple[str, ...]:
    """A name's folders and itself; packers of Windows may put backslashes between them."""
    return PurePosixPath(name.replace("\\", "/")).parts


def _sorted_out(names: Iterable[str], passed: Counter[str]) -> tuple[list[str], list[str]]:
    """The one rule of what is an image: these, and the files of labels; the rest is counted."""
    images, lists, hidden = [], [], set()
    for name in names:
        parts = _parts(name)
        at = next((i for i, part in enumerate(parts) if _is_hidden(part)), None)
        if at is not None:
            hidden.add(parts[: at + 1])
        elif parts[-1].lower().endswith(SUFFIXES):
            images.append(name)
        elif parts[-1] == LABELS:
            lists.append(name)
        else:
            passed[shown(PurePosixPath(parts[-1]).suffix.lower() or "without a suffix")] += 1
    if hidden:
        passed["hidden"] = len(hidden)
    return images, lists


def _is_hidden(part: str) -> bool:
    return (part.startswith(".") and part != "..") or part in _THEIRS


def _folder(path: Path, asked: str) -> ImageSource:
    """Links are followed; what holds an LMDB or an export is that, unless it holds images too."""
    passed: Counter[str] = Counter()
    files = sorted(_files(path, "", (), passed, asked))
    names, lists = _sorted_out(files, passed)
    if (path / "data.mdb").is_file():
        return _lmdb(path, asked)
    if exports := _exports(path, files):
        try:
            export = _export(path, exports, asked, passed)
            passed["image outside its tables"] = len(names)
            del passed[exports[0].suffix]
            return export
        except DataError:
            if not names:
                raise

    def walk(start: int) -> Iterator[bytes]:
        for name in names[start:]:
            yield (path / name).read_bytes()

    def classes() -> Classes:
        return _classes(names, {name: (path / name).read_bytes() for name in lists}, asked)

    return ImageSource(path, "folder", names, walk, [path / n for n in names], passed, classes)


def _files(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], passed: Counter[str], asked: str
) -> Iterator[str]:
    """Every file below a folder by its name in it, and hidden folders as if they were files."""
    stat = folder.stat()
    above = (*above, (stat.st_dev, stat.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if _is_hidden(entry.name) or entry.is_file():
                yield name
            elif entry.is_dir():
                inner = entry.stat()
                if (inner.st_dev, inner.st_ino) in above:
                    passed["link that leads back"] += 1
                else:
                    yield from _files(Path(entry.path), f"{name}/", above, passed, asked)
            elif entry.is_symlink():
                to = shown(Path(entry.path).readlink())
                raise DataError(
                    f"{asked}: {shown(name)} is a dead link (to {to}); mend or remove it"
                )
            else:
                passed["device, pipe or socket"] += 1


def _zip(path: Path, asked: str) -> ImageSource:
    passed: Counter[str] = Counter()
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        names, lists = _sorted_out((m.filename for m in members), passed)
        _refuse_twice(names, asked)
        links = {m.filename for m in members if m.external_attr >> 28 == 0xA}  # of Unix
        texts = {name: archive.read(name) for name in lists}
    if found := next((name for name in names if name in links), None):
        raise DataError(f"{asked}: {shown(found)} is a link; pack the file that it leads to")
    names.sort()

    def walk(start: int) -> Iterator[bytes]:
        with zipfile.ZipFile(path) as archive:
            for name in names[start:]:
                with archive.open(name) as file:
                    yield file.read(LARGEST + 1)

    return ImageSource(
        path, "zip", names, walk, [path], passed, lambda: _classes(names, texts, asked)
    )


def _tar(path: Path, asked: str) -> ImageSource:
    passed: Counter[str] = Counter()
    with tarfile.open(path) as archive:
        members = []
        texts = {}
        for member in archive:
            if member.isfile() or member.islnk() or member.issym():
                members.append(member.name)
                if _parts(member.name)[-1:] == (LABELS,) and (file := archive.extractfile(member)):
                    texts[member.name] = file.read()
            elif not member.isdir():
                passed["device, pipe or socket"] += 1
    names, lists = _sorted_out(members, passed)
    _refuse_twice(names, asked)
    texts = {name: texts[name] for name in lists}

    def walk(start: int) -> Iterator[bytes]:
        left = iter(names[start:])
        wanted = next(left, None)
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name == wanted:
                    file = archive.extractfile(member)  # follows links within the archive
                    yield file.read(LARGEST + 1) if file else b""
                    wanted = next(left, None)

    return ImageSource(
        path, "tar", names, walk, [path], passed, lambda: _classes(names, texts, asked)
    )


def _refuse_twice(names: Sequence[str], asked: str) -> None:
    count = Counter(map(_parts, names))
    if twice := next((name for name in names if count[_parts(name)] > 1), None):
        raise DataError(f"{asked}: holds two members of the name {shown(twice)}; pack it anew")


def _lmdb(path: Path, asked: str) -> ImageSource:
    """A key is a name, a value an encoded image, as in LSUN's databases."""
    try:
        import lmdb
    except ModuleNotFoundError:
        raise DataError(
            f"{asked} is an LMDB: pip install 'projected-gan-bench[data]' to read it"
        ) from None

    def opened() -> Any:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1)

    with opened() as database, database.begin() as transaction:
        keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]

    def walk(start: int) -> Iterator[bytes]:
        if start >= len(keys):
            return
        with opened() as database, database.begin() as transaction:
            cursor = transaction.cursor()
            cursor.set_key(keys[start])
            for value in cursor.iternext(keys=False, values=True):
                yield bytes(value)

    names = [key.decode("utf-8", "backslashreplace") for key in keys]
    return ImageSource(path, "lmdb", names, walk, [path / "data.mdb"])


def _exports(folder: Path, files: Sequence[str]) -> list[Path]:
    """Of one kind; the caches that the library leaves beside its Arrow files are no data."""
    for suffix in EXPORTS:
        found = [folder / name for name in files if name.endswith(suffix)]
        if found := [file for file in found if not file.name.startswith((".", "cache-"))]:
            return found
    return []


@dataclass(frozen=True)
class _Table:
    """One file of an export: its columns, how many rows, and one column in pieces."""

    schema: Any
    rows: int
    column: Callable[[str], Iterator[Any]]


def _table(file: Path) -> _Table:
    """A parquet file, or an Arrow file as `save_to_disk` writes it (a stream) or others do."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.ParquetFile(file)

        def of_parquet(name: str) -> Iterator[Any]:
            return (part.column(0) for part in table.iter_batches(batch_size=64, columns=[name]))

        return _Table(table.schema_arrow, table.metadata.num_rows, of_parquet)

    from pyarrow import ipc, memory_map

    def parts() -> tuple[Any, Iterator[Any]]:
        held = memory_map(str(file))
        if held.read(6) == b"ARROW1":
            whole = ipc.open_file(held)
            return whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))
        held.seek(0)
        stream = ipc.open_stream(held)
        return stream.schema, iter(stream)

    def of_arrow(name: str) -> Iterator[Any]:
        return (part.column(name) for part in parts()[1])

    schema, batches = parts()
    return _Table(schema, sum(part.num_rows for part in batches), of_arrow)


def _export(
    path: Path, files: list[Path], asked: str, passed: Counter[str] | None = None
) -> ImageSource:
    """Hugging Face's export: a column of images ({bytes, path} or bytes), perhaps one of labels."""
    kind = files[0].suffix.removeprefix(".")
    try:
        from pyarrow import types
    except ModuleNotFoundError:
        raise DataError(
            f"{asked} is {kind}: pip install 'projected-gan-bench[data]' to read it"
        ) from None
    with _readable(asked):
        tables = [_table(file) for file in files]
    columns: dict[str, Any] = {field.name: field.type for field in tables[0].schema}

    def holds_images(kind: Any) -> bool:
        return types.is_binary(kind) or (
            types.is_struct(kind) and any(f.name == "bytes" for f in kind)
        )

    found = [name for name, kind in columns.items() if holds_images(kind)]
    if not found:
        raise DataError(f"{asked}: none of its columns ({', '.join(columns)}) holds images")
    column = next((name for name in ("image", "img") if name in found), found[0])
    names = [
        f"{file.relative_to(path.parent if path.is_file() else path).as_posix()}:{row}"
        for file, table in zip(files, tables, strict=True)
        for row in range(table.rows)
    ]

    def classes() -> Classes:
        label = next((n for n in ("label", "labels") if n in columns), None)
        if label is None:
            return Classes()
        if not types.is_integer(columns[label]):
            return Classes(note=f"column {label} holds {columns[label]} and no numbers of classes")
        with _readable(asked):
            labels = [x for t in tables for part in t.column(label) for x in part.to_pylist()]
        if set(labels) <= {-1, None}:  # as Hugging Face marks what has none
            return Classes(note=f"column {label} gives no image a class")
        for name, given in zip(names, labels, strict=True):
            _check_class(given, name, f"column {label}", asked)
        return Classes(labels, _classes_of_export(tables[0].schema, label))

    def walk(start: int) -> Iterator[bytes]:
        before = 0
        for table in tables:
            if before + table.rows <= start:
                before += table.rows
                continue
            for part in table.column(column):
                for value in part[max(0, start - before) :]:
                    held = value.as_py()
                    content = held["bytes"] if isinstance(held, dict) else held
                    yield content or b""
                before += len(part)

    return ImageSource(path, kind, names, walk, files, passed or Counter(), classes)


def _classes_of_export(schema: Any, label: str) -> tuple[str, ...]:
    """Names of the classes, which Hugging Face keeps in the file's metadata."""
    try:
        hub = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(hub["info"]["features"][label]["names"])
    except (KeyError, ValueError, TypeError):
        return ()


def _classes(names: Sequence[str], lists: dict[str, bytes], asked: str) -> Classes:
    """Those of dataset.json or, where every image lies in one, of the folders."""
    if lists:
        return _listed(names, lists, asked)
    # Folders that hold nothing but each other are no classes: archives often have one around all.
    parts = [_parts(name) for name in names]
    depth = 0
    while all(len(p) > depth + 1 for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    if any(len(p) <= depth + 1 for p in parts):
        return Classes()
    found = sorted({p[depth] for p in parts})
    number = {name: i for i, name in enumerate(found)}
    return Classes([number[p[depth]] for p in parts], tuple(map(shown, found)))


def _listed(names: Sequence[str], lists: dict[str, bytes], asked: str) -> Classes:
    """By the path that dataset.json gives, from where it lies; by the last part if it is unique."""
    labelled: dict[tuple[str, ...], Any] = {}
    for place, content in lists.items():
        where = shown(place)
        try:
            entries = json.loads(content)["labels"]
            pairs = entries.items() if isinstance(entries, dict) else entries or []
            pairs = [(str(name), label) for name, label in pairs]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f'{asked}: {where} is not {{"labels": [[name, class], …]}} or {{"labels": null}}'
            ) from None
        for name, label in pairs:
            _check_class(label, name, where, asked)
            if labelled.setdefault((*_parts(place)[:-1], *_parts(name)), label) != label:
                raise DataError(f"{asked}: {where} gives {shown(name)} two classes; keep one")
        if entries is not None and not pairs:
            raise DataError(f'{asked}: {where} lists no image; {{"labels": null}} says so')
    if not labelled:
        return Classes()
    last = Counter(path[-1] for path in labelled)
    unique = {path[-1]: label for path, label in labelled.items() if last[path[-1]] == 1}
    parts = [_parts(name) for name in names]
    last = Counter(path[-1] for path in parts)
    unique = {name: label for name, label in unique.items() if last[name] == 1}
    labels = [labelled.get(path, unique.get(path[-1])) for path in parts]
    if missing := [n for n, label in zip(names, labels, strict=True) if label is None]:
        raise DataError(
            f"{asked}: {LABELS} gives no class to {len(missing)} of {len(names)} images, "
            f"{shown(missing[0])} first"
        )
    held = {*parts, *((name,) for name in unique if last[name] == 1)}
    rest = sum(path not in held and path[-1:] not in held for path in labelled)
    note = f"entries of {LABELS} without an image here: {rest}" if rest else None
    return Classes([int(label) for label in labels if label is not None], note=note)


def _check_class(label: Any, name: str, where: str, asked: str) -> None:
    if type(label) is not int or label < 0:
        raise DataError(
            f"{asked}: {where} gives {shown(name)} the label {label!r:.60}; a class is a whole "
            'number from 0, and "labels": null is a set without classes'
        )


@contextmanager
def _readable(asked: str) -> Iterator[None]:
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
