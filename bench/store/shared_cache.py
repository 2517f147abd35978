"""What many processes need and one computes: the others wait and read it.

The way is that of a run's claim: a file that is created exclusively and gives signs of life, for
network file systems do not keep locks. Who dies in the middle is followed by one who waits.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.store.lease import Lease, RunIsTaken, holder

log = logging.getLogger(__name__)
T = TypeVar("T")
Check = Callable[[], None]  # raises where another has taken the work over; costs one small read

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0  # seconds between two looks at another's claim


class _TakenOver(Exception):
    """Another process took the work over while we were at it."""


def once(path: Path, load: Callable[[], T | None], make: Callable[[Check], T]) -> T:
    """The content of `path`: read where it is there, else made by one process among all.

    Args:
        path: the file that holds it.
        load: reads it; None where it is not there or cannot be trusted.
        make: computes it and writes the file, whole or not at all; asks its `Check` now and then.

    Returns:
        What `load` or `make` gave. An error of `make` is raised here, and who waited tries next.
    """
    place = path.with_name(f".{path.name}.claim") / "claim.json"
    while (found := load()) is None:
        claim = Lease(place)
        try:
            claim.__enter__()
        except RunIsTaken:
            _wait(place, path)
            continue
        except FileNotFoundError:  # the claim's folder went in the moment that we came
            continue
        try:
            if (found := load()) is None:  # nobody was faster
                for part in path.parent.glob(f".{path.name}.*.part"):  # of one who died
                    part.unlink(missing_ok=True)
                found = make(_check(claim))
            return found
        except _TakenOver:
            continue
        finally:
            _release(claim)
    return found


def _check(claim: Lease) -> Check:
    def check() -> None:
        try:
            claim.fence()
        except RunIsTaken as error:
            raise _TakenOver from error

    check()
    return check


def _release(claim: Lease) -> None:
    """Gives the claim back; its folder goes where nobody else is at it."""
    try:
        claim.fence()
        ours = True
    except RunIsTaken:
        ours = False
    claim.__exit__(None, None, None)
    if ours:
        with contextlib.suppress(OSError):
            claim.path.with_name("claim.number").unlink(missing_ok=True)
            claim.path.parent.rmdir()


def _wait(place: Path, path: Path) -> None:
    """Until nobody living holds the claim."""
    pause, told = _FIRST_WAIT, ""
    while (owner := holder(place)) is not None:
        said = owner.hangs or f"{owner.who} computes it"
        if said != told:
            log.info("Waiting for %s: %s", path.name, told := said)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_WAIT)
