"""A copy of the source that queued jobs run: what is edited meanwhile does not reach them.

The copy is named by a hash of its content, so submissions of the same state share one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from bench.config.paths import ROOT, SOURCE_NOTE
from bench.store.environment import checkout, command_output

PARTS = ("bench", "projgan", "experiments", "run_bench.py")
_PACKAGES = ("bench", "projgan")
_UNUSED = {"__pycache__"}


def freeze(runs_dir: Path) -> Path:
    """Copies the source that is running now to below `runs_dir`, or finds it there.

    Copied is what git tracks or would offer to track, as it is on the disk; without git, all of
    the packages.

    Returns:
        The copy's folder, absolute; put first on Python's path it is what is imported.
    """
    files = _files()
    digest = hashlib.sha256()
    contents = {}
    for name in files:
        contents[name] = (ROOT / name).read_bytes()
        digest.update(f"{name}\0{len(contents[name])}\0".encode() + contents[name])
    place = (runs_dir / ".slurm" / "source" / digest.hexdigest()[:16]).absolute()
    if place.is_dir():
        return place
    commit, dirty = checkout(ROOT)
    note = {"commit": commit, "dirty": dirty}
    contents[SOURCE_NOTE] = json.dumps(note).encode()
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
    try:
        for name, content in contents.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(content)
        aside.chmod(0o755)
        aside.rename(place)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not place.is_dir():  # else another submission was quicker with the same
            raise
    return place


def _files() -> list[str]:
    """Names below the checkout, sorted."""
    listed = command_output(
        "git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard",
        "--", *PARTS,
    )  # fmt: skip
    if checkout(ROOT)[0] is not None and listed:
        names = {name for name in listed.split("\0") if name}
    else:
        found = [path for part in _PACKAGES for path in (ROOT / part).rglob("*")]
        names = {str(path.relative_to(ROOT)) for path in found if not _UNUSED & {*path.parts}}
    return sorted(name for name in names if (ROOT / name).is_file())
