"""One process per run: an exclusively created file with host, process and heartbeat.

Locks of the file system are avoided because network file systems do not keep them. Whoever creates
the claim owns the run; a claim whose owner is dead is taken over.

Every claim of a run takes the next number, kept in a file of its own beside the claim. An owner
that was thought dead and wakes up again finds a higher number there: `Lease.fence`, asked before
every write, then refuses. What is left is the moment between that question and the rename that
follows it; should a sleep of ten minutes fall into it, the file that arrives late is one that the
new owner writes again.
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
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType

from projgan.errors import UserError
from projgan.files import fenced, write_text_atomic

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 600.0  # of an owner who cannot be asked, such as one on another host
SILENT_SECONDS = 90.0  # a process that lives and has not beaten for so long is stopped or stuck
WATCH_SECONDS = 1.0  # between two looks at a claim that may be dead
IDLE_SECONDS = 1800.0  # one that beats without any step, image or measurement hangs
_UNKNOWN = "alive"  # birth of a process where no /proc tells it
_LENGTH = 512  # of a claim, padded: writing it again changes no length
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
    number: int = 0  # how many claims there have been; the last one counts
    moved: float | None = None  # when the run last got on
    start: int = 0  # images when this owner began to train
    job: str = ""  # of a scheduler, in which the process runs

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def who(self) -> str:
        return f"process {self.pid} on {self.host}"

    def alive(self) -> bool:
        if self.here:
            birth = _birth(self.pid)
            if birth != _UNKNOWN or self.birth != _UNKNOWN:
                return birth == self.birth
            # Without /proc a number in use may be another's by now: signs of life decide.
        return time.time() - self.time < STALE_SECONDS

    @property
    def hangs(self) -> str:
        """Why the owner, which lives, seems to hang; empty = it does not."""
        now = time.time()
        if (silent := now - self.time) > SILENT_SECONDS:
            return f"no sign of life for {silent / 60:.0f} min from {self.who}"
        if self.moved is not None and (idle := now - self.moved) > IDLE_SECONDS:
            return f"no progress for {idle / 60:.0f} min in {self.who}"
        return ""


def holder(path: Path) -> Holder | None:
    """The living owner of a claim. None = the run is free."""
    found = _read(path)
    return found if found and found.alive() else None


def last_holder(path: Path) -> Holder | None:
    """Who held a claim that was not given back, dead or alive. None = it is free."""
    return _read(path)


class Lease:
    """Context in which this process owns a run; its thread gives signs of life."""

    def __init__(self, path: Path):
        self.path = path
        self.nimg = 0  # progress, shown by do=status
        self.start: int | None = None
        self.number = 0
        self.token = uuid.uuid4().hex
        self._moved = time.time()
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = 0
        while not self._create():
            found = _read(self.path)
            if found and found.alive() and _beats(self.path, found):
                raise RunIsTaken(f"{self.path.parent}: {found.who} is at work on this run")
            _remove_stale(self.path, found)
            before = max(before, found.number if found else 0)
        # Exclusive from here on: the next number is ours, and it is on the disk before anything of
        # the run is read.
        try:
            self.number = max(before, _last_number(self._numbers)) + 1
            write_text_atomic(self._numbers, f"{self.number}\n")
            self._sign()
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
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
        """Raises RunIsTaken when a heartbeat found that the run is no longer ours; free."""
        if self._lost:
            raise RunIsTaken(f"{self.path.parent}: another process took this run over")

    def fence(self) -> None:
        """Raises RunIsTaken unless ours is the last number on the disk; asked at every write."""
        self.check()
        if (last := _last_number(self._numbers)) != self.number:
            self._lost = True
            how = "another process took this run over" if last else "the folder of the run is gone"
            raise RunIsTaken(f"{self.path.parent}: {how}")

    def moved(self, nimg: int | None = None) -> None:
        """The run got on. `nimg`: so many images have been shown."""
        if nimg is not None:
            self.nimg = nimg
            self.start = nimg if self.start is None else self.start
        self._moved = time.time()

    @property
    def _numbers(self) -> Path:
        return self.path.with_name("claim.number")

    def _content(self) -> dict[str, object]:
        return {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "birth": _birth(os.getpid()),
            "time": time.time(),
            "nimg": self.nimg,
            "number": self.number,
            "moved": self._moved,
            "job": job_here(),
            "start": self.start or 0,
        }

    def _text(self) -> str:
        return json.dumps(self._content()).ljust(_LENGTH)

    def _create(self) -> bool:
        # Written aside and linked into place: whole from the first moment, and exclusive.
        aside = self.path.with_name(f".claim-{self.token}")
        try:
            aside.write_text(self._text())
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
                file.write(self._text())
        except FileExistsError:
            return False
        return True

    def _owned(self) -> bool:
        """Whether the claim is still ours. A file that cannot be read now tells nothing."""
        try:
            found = _parse(self.path.read_text(encoding="utf-8"))
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
            with contextlib.suppress(OSError):  # a full disk is told by the run itself
                self._sign()

    def _sign(self) -> None:
        """Gives a sign of life, in place and in one write of the same length.

        The claim is never created by this, and one that was taken away meanwhile not brought back.
        """
        with self.path.open("r+b", buffering=0) as file:
            if (found := _parse(file.read().decode())) is None or found.token != self.token:
                return
            os.pwrite(file.fileno(), self._text().encode(), 0)
            os.fsync(file.fileno())


@contextlib.contextmanager
def leased(path: Path) -> Iterator[Lease]:
    """Within, this process owns the run of a claim, and writes to its folder only while it does.

    Raises:
        RunIsTaken: another process has it.
    """
    with Lease(path) as claim, fenced(path.parent, claim.fence):
        yield claim


def _read(path: Path) -> Holder | None:
    for _ in range(2):  # a sign of life may be just being written
        try:
            if (found := _parse(path.read_text(encoding="utf-8"))) is not None:
                return found
        except (OSError, ValueError):
            return None
        time.sleep(0.01)
    return None


def _parse(text: str) -> Holder | None:
    known = {f.name for f in fields(Holder)}
    try:  # a newer version may say more
        return Holder(**{k: v for k, v in json.loads(text).items() if k in known})
    except (ValueError, TypeError, AttributeError):
        return None


def job_here() -> str:
    """The SLURM job that this process belongs to, as squeue names it; empty = none."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _last_number(path: Path) -> int:
    """The number of the last claim; 0 = there was none, or nobody can tell any more."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def _beats(path: Path, seen: Holder) -> bool:
    """Whether an owner still gives signs of life; one on another host is watched for them.

    A job that was requeued after its node died meets the claim of its former self, minutes before
    that is stale by its age: what counts is that nothing moves, by the clock of this host alone.
    """
    if seen.here:
        return True
    deadline = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < deadline:
        found = _read(path)
        if found is None:
            return path.exists()
        if (found.token, found.time) != (seen.token, seen.time):
            return True
        time.sleep(WATCH_SECONDS)
    return False


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
                    file.write(aside.read_text(encoding="utf-8"))
    aside.unlink(missing_ok=True)


def _birth(pid: int) -> str:
    """When a process of this host started; empty = there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
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
