"""Images wherever they lie: a folder, a zip, a tar, an LMDB, parquet or Arrow files. One reader.

Each is a list of entries by name, in the order in which it is read fastest, and a way to walk
through them from any place on. A tar's members are in the order of the archive, so that a
compressed one is read once; all else is sorted.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from projgan.data.exports import EXPORTS, find_exports, open_export
from projgan.data.image_source import Classes, ImageSource, parts_of, read_entry, readable, shown
from projgan.data.labels import LABELS, classes_of
from projgan.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# What systems put beside images, thumbnails above all, beside names that begin with a dot.
_THEIRS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


def open_source(path: Path, key: str = "source") -> ImageSource:
    """Whatever lies at `path`, by what it is and not by what it is called.

    Args:
        path: the folder or file.
        key: how the user named it, for messages.

    Raises:
        DataError: nothing is there, it is none of the known kinds, damaged, or holds no image.
    """
    asked = f"{key}={shown(path)}"
    with readable(asked):
        if path.is_dir():
            source = _folder(path, asked)
        elif not path.is_file():
            raise DataError(f"{asked}: no such file or folder")
        elif path.suffix in EXPORTS:
            source = open_export(path, [path], asked)
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


def _sorted_out(names: Iterable[str], passed: Counter[str]) -> tuple[list[str], list[str]]:
    """The one rule of what is an image: these, and the files of labels; the rest is counted."""
    images, lists, hidden = [], [], set()
    for name in names:
        parts = parts_of(name)
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
    if exports := find_exports(path, files):
        try:
            export = open_export(path, exports, asked, passed)
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
        return classes_of(names, {name: (path / name).read_bytes() for name in lists}, asked)

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
                    yield read_entry(file)

    return ImageSource(
        path, "zip", names, walk, [path], passed, lambda: classes_of(names, texts, asked)
    )


def _tar(path: Path, asked: str) -> ImageSource:
    passed: Counter[str] = Counter()
    with tarfile.open(path) as archive:
        members = []
        texts = {}
        for member in archive:
            if member.isfile() or member.islnk() or member.issym():
                members.append(member.name)
                if parts_of(member.name)[-1:] == (LABELS,) and (
                    file := archive.extractfile(member)
                ):
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
                    yield read_entry(file) if file else b""
                    wanted = next(left, None)

    return ImageSource(
        path, "tar", names, walk, [path], passed, lambda: classes_of(names, texts, asked)
    )


def _refuse_twice(names: Sequence[str], asked: str) -> None:
    count = Counter(map(parts_of, names))
    if twice := next((name for name in names if count[parts_of(name)] > 1), None):
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
