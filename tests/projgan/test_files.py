"""Whatever goes wrong in a write, the old content or the new is there, never a part."""

from __future__ import annotations

import ast
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from faulty_disk import FAULTS, Disk

from projgan.checkpoint import load_checkpoint, previous, save_checkpoint
from projgan.files import remove_leftovers, replacing, write_bytes_atomic

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = b"old " * 500, b"the new content " * 500


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("step", FAULTS)
def test_an_error_at_any_step_leaves_the_old_content(
    tmp_path: Path, disk: Disk, step: str, code: int
) -> None:
    path = tmp_path / "record.json"
    write_bytes_atomic(path, OLD)
    with disk.failing(step, code), pytest.raises(OSError) as caught:
        write_bytes_atomic(path, NEW)
    assert caught.value.errno == code
    assert path.read_bytes() == OLD and [p.name for p in tmp_path.iterdir()] == ["record.json"]
    write_bytes_atomic(path, NEW)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("step", FAULTS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_while_a_checkpoint_is_written_costs_neither_of_the_two(
    tmp_path: Path, disk: Disk, step: str, code: int
) -> None:
    path = tmp_path / "checkpoint.pt"
    for n in (1, 2):
        save_checkpoint(path, {"nimg": n, "w": torch.zeros(3000)})
    with disk.failing(step, code), pytest.raises(OSError):
        save_checkpoint(path, {"nimg": 3, "w": torch.zeros(3000)})
    for file, nimg in ((path, 2), (previous(path), 1)):
        state = load_checkpoint(file)
        assert state is not None and state["nimg"] == nimg


def test_a_checkpoint_that_rotted_does_not_push_the_good_one_out(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    for n in (1, 2):
        save_checkpoint(path, {"nimg": n})
    path.write_bytes(path.read_bytes()[:-1])
    with disk.failing("write", errno.ENOSPC), pytest.raises(OSError):
        save_checkpoint(path, {"nimg": 3})
    state = load_checkpoint(path)
    assert state is not None and state["nimg"] == 1
    assert "damaged" in caplog.text and "earlier state" in caplog.text


def test_two_damaged_states_are_told_and_none_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"")
    previous(path).write_bytes(b"PGCKPT1\n")
    assert load_checkpoint(path) is None
    assert "beginning anew" in caplog.text


def test_a_killed_swap_goes_on_from_the_state_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"nimg": 1})
    path.rename(previous(path))
    with caplog.at_level(logging.WARNING):
        state = load_checkpoint(path)
    assert state is not None and state["nimg"] == 1 and "is missing" in caplog.text


def test_a_folder_that_may_not_be_written_keeps_its_files() -> None:
    with tempfile.TemporaryDirectory() as name, not_as_root(Path(name)):
        path = Path(name) / "run" / "record.json"
        write_bytes_atomic(path, OLD)
        path.parent.chmod(0o500)
        try:
            with pytest.raises(PermissionError):
                write_bytes_atomic(path, NEW)
        finally:
            path.parent.chmod(0o700)
        assert path.read_bytes() == OLD and len([*path.parent.iterdir()]) == 1


@contextmanager
def not_as_root(folder: Path) -> Iterator[None]:
    """Root may write anywhere; within, this process is nobody, to whom `folder` belongs."""
    if os.geteuid():
        yield
        return
    nobody = 65534
    os.chown(folder, nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_vanishes_while_a_file_is_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run" / "record.json"
    with pytest.raises(FileNotFoundError), replacing(path) as file:
        file.write(NEW)
        shutil.rmtree(path.parent)
    assert not path.parent.exists()


# Forks for each place at which to die, so that Python is started once: kills itself after so many
# bytes, or before, between and after the renames.
KILLED = """
import os, signal, sys
from pathlib import Path
from faulty_disk import die_at
from projgan.files import write_bytes_atomic
folder, old, new = Path(sys.argv[1]), b"old " * 500, b"the new content " * 500
for place in sys.argv[2:]:
    run = folder / place
    write_bytes_atomic(run / "file.prev", b"older")
    write_bytes_atomic(run / "file", old)
    if (child := os.fork()) == 0:
        die_at(place)
        write_bytes_atomic(run / "file", new, keep=run / "file.prev")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(place, -os.waitstatus_to_exitcode(status))
"""


def kill_writers(folder: Path, places: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), *places],
                          capture_output=True, text=True, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert told == [[place, str(signal.SIGKILL.value)] for place in places]


def check_survivors(folder: Path, places: list[str]) -> None:
    for place in places:
        run = folder / place
        found = {p.name: p.read_bytes() for p in run.iterdir() if not p.name.startswith(".")}
        if place == "replaced":
            assert found == {"file": NEW, "file.prev": OLD}
        elif place == "between":
            assert found == {"file.prev": OLD}
        else:
            assert found == {"file": OLD, "file.prev": b"older"}
        remove_leftovers(run)
        assert {p.name for p in run.iterdir()} == set(found)


def test_a_kill_at_any_byte_leaves_a_whole_file(tmp_path: Path) -> None:
    places = ["fsync", "between", "replaced", *map(str, [0, 1, 4096, len(NEW) - 1, len(NEW)])]
    kill_writers(tmp_path, places)
    check_survivors(tmp_path, places)


@pytest.mark.slow
def test_a_kill_at_every_single_byte_leaves_a_whole_file(tmp_path: Path) -> None:
    places = [str(n) for n in range(len(NEW) + 1)]
    for start in range(0, len(places), 1000):
        kill_writers(tmp_path, places[start : start + 1000])
    check_survivors(tmp_path, places)


# What is written otherwise, and why it may be.
DIRECT = {
    "bench/store/lease.py": "a claim is created exclusively, and signed in place",
    "bench/dispatch/local.py": "the log of a run grows",
    "bench/cli/prove_resume.py": "logs grow",
    "bench/dispatch/code_snapshot.py": "a folder that is renamed into its place when it is whole",
    "bench/run/memory.py": "no file, a switch of the kernel",
    "projgan/checkpoint.py": "into memory",
    "projgan/data/prepare.py": "grows over sessions, and counts once its meta.json is there",
    "bench/metrics/statistics.py": "into memory",
}


def writes(call: ast.Call) -> bool:
    """Whether a call writes a file where it will be read."""
    name = ast.unparse(call.func).rpartition(".")[2]
    words = [v.value for v in [*call.args, *(k.value for k in call.keywords)]
             if isinstance(v, ast.Constant) and isinstance(v.value, str)]  # fmt: skip
    if name == "open":
        return any(set(word) <= set("rwxab+") and set(word) & set("wxa+") for word in words)
    return name in ("write_text", "write_bytes", "savez", "savetxt", "tofile", "save_file") or (
        ast.unparse(call.func) in ("torch.save", "np.save")
    )


def test_every_file_is_written_aside_and_renamed() -> None:
    found = set()
    making = ROOT / "projgan/pretrain"  # run by hand, once
    files = [*ROOT.glob("projgan/**/*.py"), *ROOT.glob("bench/**/*.py")]
    for path in (p for p in files if making not in p.parents):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.Call) and writes(node) for node in ast.walk(tree)):
            found.add(str(path.relative_to(ROOT)))
    assert found == {*DIRECT}
