"""Kinds of failures of a run, and what is done about each. Free of torch.

A failure is noted in the record (`failures`: kind, error, at), so that who goes on with the run,
in this process or on another machine, knows how often it was tried without getting on.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from projgan.config import Train
from projgan.errors import UserError

# How often a run is tried in a row without getting on before it counts as failed, by the kind of
# the failure.
TRIES = {
    # In training, the micro-batch is halved and gradients accumulate to the same batch; the record
    # and a footnote say it, since batch norm sees fewer images. Elsewhere the run fails.
    "memory": 1,
    # The run fails; losses, images of the batch and the state are kept in diverged/.
    "diverged": 1,
    # The run goes back to the queue and on from its checkpoint; as a job of SLURM, on another node.
    "node": 3,
    # Everything stops: no run could keep what it does.
    "storage": 1,
    # The run fails with one line that names the remedy.
    "mistake": 1,
    # The run is tried once more from its checkpoint, then it fails.
    "code": 2,
}

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
_NODE = {
    errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT, errno.ENOTCONN,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.EREMOTEIO,
}  # fmt: skip
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|ALLOC_FAILED|Unable to allocate", re.IGNORECASE
)
# What a broken card, link or neighbour says; other errors of CUDA are those of a program.
_NODE_WORDS = re.compile(
    r"\bECC\b|unspecified launch failure|fallen off the bus|GPU is lost|hardware error|"
    r"unable to determine the device handle|devices? .*(busy|unavailable)|NCCL|"
    r"Connection (closed|reset) by peer|Stale file handle",
    re.IGNORECASE,
)


# What one of several processes says when another has left.
_NEIGHBOUR_WORDS = re.compile(
    r"NCCL|Connection (closed|reset|refused)|Broken pipe|Socket Timeout", re.IGNORECASE
)


class StorageFull(UserError):
    """Nothing can be written: no run can go on."""


class TryAgain(UserError):
    """The run is to begin anew from its checkpoint, in new processes; its record says why."""


class NodeFault(TryAgain):
    """The machine failed the run, not the run itself: it belongs back in the queue."""


class NeighbourLeft(UserError):
    """A process that trains along is gone; who started both hears why.

    Attributes:
        start: images with which this session of training began.
        nimg: images after which it ended.
    """

    def __init__(self, message: str, start: int, nimg: int):
        super().__init__(message)
        self.start, self.nimg = start, nimg


def kind_of(error: BaseException) -> str:
    """Return the row of TRIES that an error belongs to, by it or by what caused it."""
    causes = list(_causes(error))
    if any(type(e).__name__ == "TrainingDiverged" for e in causes):
        return "diverged"
    if any(_is_memory(e) for e in causes):
        return "memory"
    for e in causes:
        if isinstance(e, NodeFault):
            return "node"
        if isinstance(e, OSError) and e.errno in _STORAGE | _NODE:
            return "storage" if e.errno in _STORAGE else "node"
        if isinstance(e, StorageFull):
            return "storage"
    if any(isinstance(e, RuntimeError) and _NODE_WORDS.search(str(e)) for e in causes):
        return "node"
    return "mistake" if isinstance(error, UserError) else "code"


def one_line(error: BaseException) -> str:
    """Return what a record says of an error."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    return first if isinstance(error, UserError) and first else f"{type(error).__name__}: {first}"


def is_of_a_neighbour(error: BaseException) -> bool:
    """Return whether an error of one of several processes says that another has left."""
    return any(isinstance(e, RuntimeError) and _NEIGHBOUR_WORDS.search(str(e)) for e in
               _causes(error))  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A failure of a run.

    Attributes:
        kind: a row of TRIES.
        error: in one line.
        at: images after which it happened; of a machine's fault, those with which it began, since
            what a machine that dies had done is lost.
    """

    kind: str
    error: str
    at: int


def settle(
    record: dict[str, Any], failure: Failure, train: Train | None = None, processes: int = 1
) -> bool:
    """Notes a failure in a record and settles whether the run is tried again.

    Args:
        train: what was trained, when it failed in a training step. None = it failed elsewhere.
        processes: that trained together.

    Returns:
        Whether the run is to be tried again; else the record says that it has failed.
    """
    smaller = halved(record, train, processes) if train else None
    again = note(record, failure)
    if failure.kind == "memory" and smaller:
        record["micro_batch"] = {"images": smaller, "since": failure.at}
        return True
    if not again:
        record |= {"status": "failed", "error": failure.error, "failure": failure.kind}
    return again


def note(record: dict[str, Any], failure: Failure) -> bool:
    """Notes a failure; returns whether the run may be tried again.

    It may where fewer than TRIES came in a row: of one kind, each at no more images
    than the one before.
    """
    noted = record.setdefault("failures", [])
    noted.append(asdict(failure))
    in_a_row = 0
    for earlier in reversed(noted):
        if earlier["kind"] != failure.kind or earlier["at"] < failure.at:
            break
        in_a_row += 1
    return in_a_row < TRIES[failure.kind]


def micro_batch(record: dict[str, Any], train: Train, processes: int) -> int:
    """Return the number of images that each process of a run trains on at once."""
    smaller = record.get("micro_batch")
    return smaller["images"] if smaller else train.micro_batch or train.batch // processes


def halved(record: dict[str, Any], train: Train, processes: int) -> int | None:
    """The next smaller micro-batch; None = there is none that batch norm can do with."""
    size, unit = micro_batch(record, train, processes), train.least_part(processes)
    half = -(-size // (2 * unit)) * unit
    return half if 2 <= half < size else None


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_MEMORY_WORDS.search(str(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
