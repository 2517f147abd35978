"""What a record says of its machine: true, complete, and nothing private."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.store import environment as module
from bench.store.environment import environment

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    module.checkout.cache_clear()
    return tmp_path


def test_is_what_a_record_holds() -> None:
    got = environment(torch.device("cpu"))
    assert list(got) == [
        *("python", "torch", "timm", "numpy", "pillow", "platform"),
        *("cpu", "threads", "device", "commit", "dirty"),
    ]
    assert got["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert got["threads"] == torch.get_num_threads()
    assert got["device"] == "cpu"
    assert json.loads(json.dumps(got)) == got


def test_names_no_host_and_no_path() -> None:
    text = json.dumps(environment())
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    host = platform.node()
    assert len(host) < 4 or host not in text
    assert platform.release() not in text


def test_needs_no_torch() -> None:
    code = (
        "import sys; import bench.run.memory; from bench.store.environment import environment; "
        "got = environment(); assert got['torch'] and got['threads'] >= 1; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_commit_and_whether_it_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "results").write_text("untracked files do not count")
    assert module.checkout(checkout) == (commit, False)
    module.checkout.cache_clear()
    (checkout / "file").write_text("b")
    assert module.checkout(checkout) == (commit, True)


def test_another_projects_commit_is_not_ours(checkout: Path) -> None:
    inside = checkout / "site-packages"
    inside.mkdir()
    assert module.checkout(inside) == (None, None)


def test_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert module.checkout(checkout) == (None, None)


def test_absent_package_is_none() -> None:
    assert module._version("no-such-package-here") is None
