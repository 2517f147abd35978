"""Where images to be packed come from: a folder, a zip, a tar, an LMDB, parquet or Arrow files.

Each is a list of entries by name, in the order in which it is read fastest, and a way to walk
through them from any place on. A tar's members are in the order of the archive, so that a
compressed one is read once; all else is sorted.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from projgan.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LABELS = "dataset.json"  # {"labels": [[name, class], …]}, as StyleGAN's data sets have it
EXPORTS = (".parquet", ".arrow")  # of Hugging Face: from the hub, and of save_to_disk
LARGEST = 2**28  # bytes of one image: more is no image but an attack

Walk = Callable[[int], Iterator[bytes]]  # the entries' contents from a number on


@dataclass(frozen=True)
class ImageSource:
    """Encoded images by name.

    Attributes:
        path: where they are.
        kind: folder, zip, tar, lmdb, parquet or arrow.
        names: of the entries, in reading order.
        walk: gives their contents in that order, from a number on.
        labels: class of each entry; None = it has no classes.
        classes: names of the classes, where they have names.
    """

    path: Path
    kind: str
    names: list[str]
    walk: Walk
    labels: list[int] | None = None
    classes: tuple[str, ...] = ()


def open_source(path: Path) -> ImageSource:
    """Whatever lies at `path`, by what it is and not by what it is called.

    Raises:
        DataError: nothing is there, it is none of the known kinds, damaged, or holds no image.
    """
    if path.is_dir():
        if (path / "data.mdb").is_file():
            source = _lmdb(path)
        elif files := _files_of_export(path):
            source = _export(path, files)
        else:
            source = _folder(path)
    elif not path.is_file():
        raise DataError(f"source={path}: no such file or folder")
    elif path.suffix in EXPORTS:
        source = _export(path, [path])
    elif zipfile.is_zipfile(path):
        source = _zip(path)
    elif tarfile.is_tarfile(path):
        source = _tar(path)
    else:
        raise DataError(
            f"source={path}: neither a folder nor a zip, tar, LMDB, parquet or Arrow file of images"
        )
    if not source.names:
        raise DataError(f"source={path}: a {source.kind} without a PNG, JPEG, WebP, BMP or TIFF")
    return source


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return name.lower().endswith(SUFFIXES) and not hidden


def _folder(path: Path) -> ImageSource:
    names = sorted(
        name
        for f in path.rglob("*")
        if f.is_file() and _is_image(name := f.relative_to(path).as_posix())
    )

    def walk(start: int) -> Iterator[bytes]:
        for name in names[start:]:
            yield (path / name).read_bytes()

    listed = path / LABELS
    said = listed.read_bytes() if listed.is_file() else None
    return _labelled(ImageSource(path, "folder", names, walk), said)


def _zip(path: Path) -> ImageSource:
    with _readable(path), zipfile.ZipFile(path) as archive:
        names = sorted(m.filename for m in archive.infolist() if _is_image(m.filename))
        listed = next((n for n in archive.namelist() if PurePosixPath(n).name == LABELS), None)
        said = archive.read(listed) if listed else None

    def walk(start: int) -> Iterator[bytes]:
        with zipfile.ZipFile(path) as archive:
            for name in names[start:]:
                with archive.open(name) as file:
                    yield file.read(LARGEST + 1)

    return _labelled(ImageSource(path, "zip", names, walk), said)


def _tar(path: Path) -> ImageSource:
    with _readable(path), tarfile.open(path) as archive:
        names, said = [], None
        for member in archive:
            if member.isfile() and _is_image(member.name):
                names.append(member.name)
            elif member.isfile() and PurePosixPath(member.name).name == LABELS:
                file = archive.extractfile(member)
                said = file.read() if file else None

    def walk(start: int) -> Iterator[bytes]:
        with tarfile.open(path) as archive:
            number = 0
            for member in archive:
                if not (member.isfile() and _is_image(member.name)):
                    continue
                if number >= start:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield file.read(LARGEST + 1)
                number += 1

    return _labelled(ImageSource(path, "tar", names, walk), said)


def _lmdb(path: Path) -> ImageSource:
    """A key is a name, a value an encoded image, as in LSUN's databases."""
    try:
        import lmdb
    except ModuleNotFoundError:
        raise DataError(
            f"source={path} is an LMDB: pip install 'projected-gan-bench[data]' to read it"
        ) from None

    def opened() -> Any:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1)

    with _readable(path), opened() as database, database.begin() as transaction:
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
    return ImageSource(path, "lmdb", names, walk)


def _files_of_export(folder: Path) -> list[Path]:
    """Of one kind; the caches that the library leaves beside its Arrow files are no data."""
    for suffix in EXPORTS:
        found = sorted(folder.rglob(f"*{suffix}"))
        if found := [file for file in found if not file.name.startswith("cache-")]:
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


def _export(path: Path, files: list[Path]) -> ImageSource:
    """Hugging Face's export: a column of images ({bytes, path} or bytes), perhaps one of labels."""
    kind = files[0].suffix.removeprefix(".")
    try:
        from pyarrow import types
    except ModuleNotFoundError:
        raise DataError(
            f"source={path} is {kind}: pip install 'projected-gan-bench[data]' to read it"
        ) from None
    tables = []
    for file in files:
        with _readable(file):
            tables.append(_table(file))
    columns: dict[str, Any] = {field.name: field.type for field in tables[0].schema}

    def holds_images(kind: Any) -> bool:
        return types.is_binary(kind) or (
            types.is_struct(kind) and any(f.name == "bytes" for f in kind)
        )

    found = [name for name, kind in columns.items() if holds_images(kind)]
    if not found:
        raise DataError(f"source={path}: none of its columns ({', '.join(columns)}) holds images")
    column = next((name for name in ("image", "img") if name in found), found[0])
    names = [
        f"{file.relative_to(path.parent if path.is_file() else path).as_posix()}:{row}"
        for file, table in zip(files, tables, strict=True)
        for row in range(table.rows)
    ]
    labels: list[int] | None = None
    classes: tuple[str, ...] = ()
    label = next((n for n in ("label", "labels") if n in columns), None)
    if label is not None and types.is_integer(columns[label]):
        with _readable(path):
            labels = [int(x) for t in tables for part in t.column(label) for x in part.to_pylist()]
        classes = _classes_of_export(tables[0].schema, label)

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

    return ImageSource(path, kind, names, walk, labels, classes)


def _classes_of_export(schema: Any, label: str) -> tuple[str, ...]:
    """Names of the classes, which Hugging Face keeps in the file's metadata."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(said["info"]["features"][label]["names"])
    except (KeyError, ValueError, TypeError):
        return ()


def _labelled(source: ImageSource, said: bytes | None) -> ImageSource:
    """With the classes of its dataset.json or, where every image lies in one, of its folders."""
    if said is not None:
        try:
            listed = dict(json.loads(said)["labels"] or ())
            by_name = {PurePosixPath(name).name: int(c) for name, c in listed.items()}
            labels = [
                int(listed[name]) if name in listed else by_name[PurePosixPath(name).name]
                for name in source.names
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"source={source.path}: {LABELS} does not give every image a class ({error})"
            ) from None
        return replace(source, labels=labels)
    # Folders that hold nothing but each other are no classes: archives often have one around all.
    parts = [PurePosixPath(name).parts for name in source.names]
    depth = 0
    while parts and all(len(p) > depth + 1 for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    if not parts or any(len(p) <= depth + 1 for p in parts):
        return source
    classes = sorted({p[depth] for p in parts})
    number = {name: i for i, name in enumerate(classes)}
    return replace(source, labels=[number[p[depth]] for p in parts], classes=tuple(classes))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a damaged archive makes its reader stumble over becomes one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"source={path}: damaged ({reason[:120]}); replace it") from None
