"""Where files of weights are that do not ship: one flat folder, which a user may fill by hand.

It is $PROJGAN_WEIGHTS or, where that is not set, `weights/` in the folder of the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PROJGAN_WEIGHTS"
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")

_data_dir = Path("data")


@contextmanager
def beside(data_dir: Path) -> Iterator[None]:
    """Within, the data folder is `data_dir`, whose weights/ is looked into."""
    global _data_dir
    before, _data_dir = _data_dir, data_dir
    try:
        yield
    finally:
        _data_dir = before


def weights_dir(data_dir: Path | None = None) -> Path:
    """The folder; `data_dir` is that of the data. None = what `beside` said last."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else (data_dir or _data_dir) / "weights"


def placed(tag: str) -> Path | None:
    """A network's file that lies in the folder under its tag; None = there is none."""
    for suffix in SUFFIXES:
        if (path := weights_dir() / f"{tag}{suffix}").is_file():
            return path
    return None
