"""A disk that fails, or a process that dies, at a chosen step of writing a file.

The system's own calls are wrapped, below everything that the writer does: opening the file aside,
writing, flushing to the disk and renaming.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FAULTS = ("open", "write", "torn", "fsync", "rename")


class TornFile:
    """A file of which only the first bytes get onto the disk; then `then()` happens."""

    def __init__(self, file: Any, room: int, then: Any):
        self.file, self.room, self.then = file, room, then

    def __enter__(self) -> TornFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        whole = bytes(data)
        self.file.write(whole[: self.room])
        self.room -= len(whole)
        if self.room <= 0:
            self.file.flush()
            self.then()
        return len(whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Disk:
    """Makes one step of every write fail for a while."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.patch = patch

    @contextmanager
    def failing(self, step: str, code: int) -> Iterator[None]:
        """
        Args:
            step: one of FAULTS; "torn" writes the first 100 bytes before it fails.
            code: the error number.
        """

        def fail(*args: object, **options: object) -> Any:
            raise OSError(code, os.strerror(code))

        with self.patch.context() as patch:
            if step == "open":
                patch.setattr(tempfile, "mkstemp", fail)
            elif step in ("write", "torn"):
                whole, room = os.fdopen, 0 if step == "write" else 100
                patch.setattr(os, "fdopen", lambda *a, **k: TornFile(whole(*a, **k), room, fail))
            elif step == "fsync":
                patch.setattr(os, "fsync", fail)
            else:
                patch.setattr(os, "replace", fail)
            yield


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place: str) -> None:
    """From now on this process kills itself while it writes a file.

    Args:
        place: "fsync" (all written, not flushed), "between" (the old file is out of the way, the
            new one not in place), "replaced" (in place), or after how many bytes.
    """
    if place == "fsync":
        os.fsync = lambda handle: die()
    elif place in ("between", "replaced"):
        whole, renames = os.replace, []

        def replace(*names: Any) -> None:
            whole(*names)
            renames.append(names)
            if place == "between" or len(renames) == 2:
                die()

        os.replace = replace  # type: ignore[assignment]
    else:
        opened = os.fdopen
        os.fdopen = lambda *a, **k: TornFile(opened(*a, **k), int(place), die)
