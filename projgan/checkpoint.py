"""Checkpoints that survive a kill at any moment: whole or not there, with a checksum.

The file is a short magic word, the SHA-256 of the rest, and what `torch.save` writes. The new one
is written whole beside its place first; then the last good one becomes `<name>.prev` and the new
one takes its place. At every moment one whole state is on the disk under one of the two names.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from projgan.errors import DataError
from projgan.files import write_bytes_atomic

_MAGIC = b"PGCKPT1\n"
_HEAD = len(_MAGIC) + 32
log = logging.getLogger(__name__)


def previous(path: Path) -> Path:
    return path.with_name(path.name + ".prev")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, strings, nested dicts and lists) to `path`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    content = _MAGIC + hashlib.sha256(payload).digest() + payload
    write_bytes_atomic(path, content, keep=previous(path))


def read_checkpoint(path: Path, needs: Collection[str] = ()) -> dict[str, Any]:
    """Reads one file.

    Args:
        needs: what the state must hold.

    Raises:
        DataError: it is torn, altered or of another kind. Nothing in it is ever executed: only
            tensors and plain values are read, whatever the checksum says.
    """
    data = path.read_bytes()
    payload = data[_HEAD:]
    if not data.startswith(_MAGIC) or hashlib.sha256(payload).digest() != data[len(_MAGIC) : _HEAD]:
        raise DataError(f"Checkpoint {path} is damaged (checksum does not match)")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"Checkpoint {path} holds more than tensors and numbers; not read"
        ) from None
    except Exception as error:  # whatever a file that was made by hand makes torch stumble over
        raise DataError(f"Checkpoint {path} is damaged ({type(error).__name__})") from None
    if not isinstance(state, dict) or not set(needs) <= state.keys():
        raise DataError(f"Checkpoint {path} does not hold what a state is made of")
    return state


def load_checkpoint(path: Path, needs: Collection[str] = ()) -> dict[str, Any] | None:
    """The newest good state: `path`, else the one before it, else None. Says what it skipped.

    Args:
        needs: what a good state holds.
    """
    damaged = False
    for candidate in (path, previous(path)):
        if candidate.exists():
            try:
                state = read_checkpoint(candidate, needs)
            except (DataError, OSError) as error:
                damaged = True
                log.warning("%s; going back to an earlier state", error)
            else:
                if candidate != path and not damaged:  # killed between the two renames
                    log.warning("%s is missing; going on from %s", path, candidate.name)
                return state
    if damaged:
        log.warning("No whole state is left beside %s; beginning anew", path)
    return None
