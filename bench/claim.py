"""One process per run: an exclusively created file with host, process and heartbeat.

Locks of the file system are avoided because network file systems do not keep them. Whoever creates
the claim owns the run; a claim whose owner is dead is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from projgan.errors import UserError
from projgan.files import write_json_atomic

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 600.0  # of an owner who cannot be asked, such as one on another host
_UNKNOWN = "alive"  # birth of a process where no /proc tells it
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class RunIsTaken(UserError):
    """Another process is at work on the run, or took it over."""


@dataclass(frozen=True)
class Holder:
    """Who holds a run."""

    token: str
    host: str
    pid: int
    birth: str  # start of the process, so that a reused number is not taken for the owner
    time: float  # last sign of life
    nimg: int

    @property
    def who(self) -> str:
        return f"process {self.pid} on {self.host}"

    def alive(self) -> bool:
        if self.host == socket.gethostname():
            birth = _birth(self.pid)
            if birth != _UNKNOWN or self.birth != _UNKNOWN:
                return birth == self.birth
            # Without /proc a number in use may be another's by now: signs of life decide.
        return time.time() - self.time < STALE_SECONDS


def holder(path: Path) -> Holder | None:
    """The living owner of a claim. None = the run is free."""
    found = _read(path)
    return found if found and found.alive() else None


class Claim:
    """Context in which this process owns a run; its thread gives signs of life."""

    def __init__(self, path: Path):
        self.path = path
        self.nimg = 0  # progress, shown by do=status
        self.token = uuid.uuid4().hex
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claim:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            found = _read(self.path)
            if found and found.alive():
                raise RunIsTaken(f"{self.path.parent}: {found.who} is at work on this run")
            _remove_stale(self.path, found)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._owned():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises RunIsTaken when another process took the run over meanwhile."""
        if self._lost:
            raise RunIsTaken(f"{self.path.parent}: another process took this run over")

    def _content(self) -> dict[str, object]:
        return {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "birth": _birth(os.getpid()),
            "time": time.time(),
            "nimg": self.nimg,
        }

    def _create(self) -> bool:
        # Written aside and linked into place: whole from the first moment, and exclusive.
        aside = self.path.with_name(f".claim-{self.token}")
        try:
            aside.write_text(json.dumps(self._content()))
            os.link(aside, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_in_place()
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _create_in_place(self) -> bool:
        """For file systems without hard links: exclusive too, though whole a moment later."""
        try:
            with self.path.open("x") as file:
                file.write(json.dumps(self._content()))
        except FileExistsError:
            return False
        return True

    def _owned(self) -> bool:
        """Whether the claim is still ours. A file that cannot be read now tells nothing."""
        try:
            found = _parse(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return False
        except OSError:
            return not self._lost
        return found is not None and found.token == self.token

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if not self._owned():
                self._lost = True
                return
            try:
                write_json_atomic(self.path, self._content())
            except OSError:
                continue  # a full disk is told by the run itself


def _read(path: Path) -> Holder | None:
    try:
        return _parse(path.read_text())
    except (OSError, ValueError):
        return None


def _parse(text: str) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _remove_stale(path: Path, seen: Holder | None) -> None:
    """Takes a dead owner's claim away; one that was renewed meanwhile is put back."""
    aside = path.with_name(f".stale-{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = _read(aside)
    if found is not None and (seen is None or found.token != seen.token):
        with contextlib.suppress(FileExistsError):
            try:
                os.link(aside, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with path.open("x") as file:
                    file.write(aside.read_text())
    aside.unlink(missing_ok=True)


def _birth(pid: int) -> str:
    """When a process of this host started; empty = there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *rest = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    except ProcessLookupError:  # it ended while being read
        return ""
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    try:  # no /proc: only whether it lives
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return _UNKNOWN
