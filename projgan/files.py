"""Writing files that are read again: next to their place first, then renamed into it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Reading it sets it for a moment, so it is read once, before there are threads to see that.
_UMASK = _read_umask()


_SUFFIX = ".part"  # of files that are being written
_FENCES: dict[Path, Callable[[], None]] = {}


@contextmanager
def fenced(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Within, whatever this process writes below `folder` is written only if `check` passes.

    Args:
        folder: what is guarded.
        check: raises where the folder is no longer ours. Asked before a file is begun and again
            when it is whole, just before it takes its place: a writer that slept meanwhile, or
            whose host was away, changes nothing.
    """
    place = folder.absolute()
    _FENCES[place] = check
    try:
        yield
    finally:
        del _FENCES[place]


def _pass_fences(path: Path) -> None:
    place = path.absolute()
    for folder, check in list(_FENCES.items()):
        if place.is_relative_to(folder):
            check()


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to, that takes the place of `path` when it is whole, and only then.

    Args:
        path: whatever happens, it holds the old content or the new, never a part.
        keep: where the old file goes, once the new one is whole and before it takes its place.
    """
    _pass_fences(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_UMASK)
        _pass_fences(path)
        if keep is not None:
            with suppress(FileNotFoundError):
                os.replace(path, keep)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):  # the first error is raised, not that of tidying up
            Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Puts the new name on the disk; some file systems cannot, and need not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> list[str]:
    """Deletes what a killed writer left half-written below `folder`, and returns the names.

    Only for a folder in which nobody else writes now.
    """
    found = sorted(folder.rglob(f".*{_SUFFIX}"))
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]


def write_bytes_atomic(path: Path, data: bytes, keep: Path | None = None) -> None:
    """Writes `data` to `path` so that a reader sees the old file or the new one, never a part."""
    with replacing(path, keep) as file:
        file.write(data)


def write_text_atomic(path: Path, text: str) -> None:
    write_bytes_atomic(path, text.encode())


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Puts lines between two marks of a text file, in the place of what stood there.

    Raises:
        ValueError: the file lacks a mark.
    """
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{path}: the marks around what is measured are missing")
    write_text_atomic(path, f"{before}{begin}\n{text}{end}{after}")


def write_json_atomic(path: Path, value: Any) -> None:
    write_text_atomic(path, json.dumps(value, indent=1, sort_keys=False, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
