"""Checkpoints that survive a kill at any moment: whole or not there, with a checksum.

The file is a short magic word, the SHA-256 of the rest, and what `torch.save` writes. The new one
is written beside its place; the last good one stays as `<name>.prev` until the next is whole.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
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
    if path.exists():
        os.replace(path, previous(path))
    write_bytes_atomic(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads one file; DataError where it is torn, altered or of another kind."""
    data = path.read_bytes()
    payload = data[_HEAD:]
    if not data.startswith(_MAGIC) or hashlib.sha256(payload).digest() != data[len(_MAGIC) : _HEAD]:
        raise DataError(f"Checkpoint {path} is damaged (checksum does not match)")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The newest good state: `path`, else the one before it, else None. Says what it skipped."""
    for candidate in (path, previous(path)):
        if candidate.exists():
            try:
                return read_checkpoint(candidate)
            except (DataError, OSError) as error:
                log.warning("%s; going back to an earlier state", error)
    return None
