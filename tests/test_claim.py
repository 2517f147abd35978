"""Claims: one owner at a time, the dead are taken over, the living never."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import claim as claims
from bench.claim import Claim, RunIsTaken, holder


def forge(path: Path, **changes: object) -> None:
    """A claim of another process."""
    content = {"token": "x", "host": socket.gethostname(), "pid": os.getpid(), "birth": "0",
               "time": time.time(), "nimg": 7}  # fmt: skip
    path.write_text(json.dumps(content | changes))


def test_a_second_claim_is_refused_and_names_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    with Claim(path):
        with pytest.raises(RunIsTaken, match=str(os.getpid())), Claim(path):
            pass
        assert holder(path) is not None
    assert holder(path) is None and list(tmp_path.iterdir()) == []


def test_a_claim_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claim(tmp_path / "claim.json"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_on_this_host_owns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    forge(path, pid=process.pid, birth="12345")
    assert holder(path) is None
    with Claim(path) as mine:
        found = holder(path)
        assert found is not None and found.token == mine.token
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_number_is_not_the_owner(tmp_path: Path) -> None:
    forge(tmp_path / "claim.json", birth="not when this process began")
    assert holder(tmp_path / "claim.json") is None


def test_another_host_is_judged_by_its_last_sign_of_life(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    forge(path, host="elsewhere")
    found = holder(path)
    assert found is not None and (found.who, found.nimg) == (
        f"process {os.getpid()} on elsewhere",
        7,
    )
    forge(path, host="elsewhere", time=time.time() - 2 * claims.STALE_SECONDS)
    assert holder(path) is None


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}'])
def test_a_damaged_claim_does_not_block_the_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claim.json"
    path.write_text(text)
    with Claim(path):
        assert holder(path) is not None


def test_whoever_lost_the_run_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    path = tmp_path / "claim.json"
    with Claim(path) as mine:
        mine.check()
        forge(path, token="theirs")
        mine._thread.join(timeout=10)
        with pytest.raises(RunIsTaken, match="took this run over"):
            mine.check()
    assert json.loads(path.read_text())["token"] == "theirs"  # not ours to remove


def test_the_heartbeat_tells_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    path = tmp_path / "claim.json"
    with Claim(path) as mine:
        mine.nimg = 4096
        deadline = time.monotonic() + 10
        while json.loads(path.read_text())["nimg"] != 4096:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def assert_renewed_claim_stays(path: Path) -> None:
    forge(path, token="old")
    seen = claims._read(path)
    forge(path, token="new")
    claims._remove_stale(path, seen)
    found = claims._read(path)
    assert found is not None and found.token == "new"


def test_a_claim_renewed_meanwhile_is_not_removed_as_stale(tmp_path: Path) -> None:
    assert_renewed_claim_stays(tmp_path / "claim.json")


def test_a_read_error_that_passes_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *args: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with Claim(tmp_path / "claim.json") as mine:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", fail)
            assert mine._owned()
        assert mine._owned()
        (tmp_path / "claim.json").unlink()
        assert not mine._owned()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_links_keeps_claims_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, "no links")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "claim.json"
    with Claim(path) as mine:
        found = holder(path)
        assert found is not None and found.token == mine.token
        with pytest.raises(RunIsTaken), Claim(path):
            pass
    assert list(tmp_path.iterdir()) == []
    assert_renewed_claim_stays(path)


def test_a_process_that_ends_while_it_is_asked_about_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(path: Path, *args: object) -> str:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(Path, "read_text", gone)
    assert claims._birth(os.getpid()) == ""


def test_without_proc_the_last_sign_of_life_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_birth", lambda pid: claims._UNKNOWN)
    path = tmp_path / "claim.json"
    forge(path, birth=claims._UNKNOWN)
    assert holder(path) is not None
    forge(path, birth=claims._UNKNOWN, time=time.time() - 2 * claims.STALE_SECONDS)
    assert holder(path) is None
