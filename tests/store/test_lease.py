"""Claims: one owner at a time, the dead are taken over, the living never."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from killed_processes import forge_claim

from bench.store import lease as claims
from bench.store.lease import Lease, RunIsTaken, holder
from projgan.files import fenced, replacing, write_text_atomic


def left(folder: Path) -> list[str]:
    """What a claim left behind, beside its number."""
    return [path.name for path in folder.iterdir() if path.name != "claim.number"]


def test_a_second_claim_is_refused_and_names_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    with Lease(path):
        with pytest.raises(RunIsTaken, match=str(os.getpid())), Lease(path):
            pass
        assert holder(path) is not None
    assert holder(path) is None and left(tmp_path) == []


def test_a_claim_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lease(tmp_path / "claim.json"):
        raise ZeroDivisionError
    assert left(tmp_path) == []


def test_a_dead_process_on_this_host_owns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    forge_claim(path, pid=process.pid, birth="12345")
    assert holder(path) is None
    with Lease(path) as mine:
        found = holder(path)
        assert found is not None and found.token == mine.token
    assert left(tmp_path) == []


def test_a_reused_process_number_is_not_the_owner(tmp_path: Path) -> None:
    forge_claim(tmp_path / "claim.json", birth="not when this process began")
    assert holder(tmp_path / "claim.json") is None


def test_another_host_is_judged_by_its_last_sign_of_life(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    forge_claim(path, host="elsewhere")
    found = holder(path)
    assert found is not None and (found.who, found.nimg) == (
        f"process {os.getpid()} on elsewhere",
        7,
    )
    forge_claim(path, host="elsewhere", time=time.time() - 2 * claims.STALE_SECONDS)
    assert holder(path) is None


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}'])
def test_a_damaged_claim_does_not_block_the_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claim.json"
    path.write_text(text)
    with Lease(path):
        assert holder(path) is not None


def test_whoever_lost_the_run_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    path = tmp_path / "claim.json"
    with Lease(path) as mine:
        mine.check()
        forge_claim(path, token="theirs")
        mine._thread.join(timeout=10)
        with pytest.raises(RunIsTaken, match="took this run over"):
            mine.check()
    assert json.loads(path.read_text())["token"] == "theirs"  # not ours to remove


def test_the_heartbeat_tells_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    path = tmp_path / "claim.json"
    with Lease(path) as mine:
        mine.nimg = 4096
        deadline = time.monotonic() + 10
        while json.loads(path.read_text())["nimg"] != 4096:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def assert_renewed_claim_stays(path: Path) -> None:
    forge_claim(path, token="old")
    seen = claims._read(path)
    forge_claim(path, token="new")
    claims._remove_stale(path, seen)
    found = claims._read(path)
    assert found is not None and found.token == "new"


def test_a_claim_renewed_meanwhile_is_not_removed_as_stale(tmp_path: Path) -> None:
    assert_renewed_claim_stays(tmp_path / "claim.json")


def test_a_read_error_that_passes_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **options: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with Lease(tmp_path / "claim.json") as mine:
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
    with Lease(path) as mine:
        found = holder(path)
        assert found is not None and found.token == mine.token
        with pytest.raises(RunIsTaken), Lease(path):
            pass
    assert left(tmp_path) == []
    assert_renewed_claim_stays(path)


def test_a_process_that_ends_while_it_is_asked_about_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(path: Path, **options: object) -> str:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(Path, "read_text", gone)
    assert claims._birth(os.getpid()) == ""


def test_without_proc_the_last_sign_of_life_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_birth", lambda pid: claims._UNKNOWN)
    path = tmp_path / "claim.json"
    forge_claim(path, birth=claims._UNKNOWN)
    assert holder(path) is not None
    forge_claim(path, birth=claims._UNKNOWN, time=time.time() - 2 * claims.STALE_SECONDS)
    assert holder(path) is None


def test_every_claim_takes_the_next_number(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    for expected in (1, 2, 3):
        with Lease(path) as mine:
            found = holder(path)
            assert found is not None and mine.number == found.number == expected
    forge_claim(path, birth="dead", number=9)  # whose number file was lost
    (tmp_path / "claim.number").unlink()
    with Lease(path) as mine:
        assert mine.number == 10


def test_an_owner_that_lost_the_run_cannot_write(tmp_path: Path) -> None:
    path, record = tmp_path / "run" / "claim.json", tmp_path / "run" / "record.json"
    with Lease(path) as mine, fenced(path.parent, mine.fence):
        write_text_atomic(record, "ours")
        path.unlink()  # as one who thinks that we are dead does
        with Lease(path) as other:
            assert other.number == mine.number + 1
            with pytest.raises(RunIsTaken, match="took this run over"):
                write_text_atomic(record, "late")
        with pytest.raises(RunIsTaken, match="took this run over"):  # though it has ended by now
            write_text_atomic(record, "late")
        write_text_atomic(tmp_path / "elsewhere", "not guarded")
    assert record.read_text() == "ours"
    assert sorted(left(path.parent)) == ["record.json"]


def test_a_run_taken_while_a_file_is_written_is_not_overwritten(tmp_path: Path) -> None:
    path, record = tmp_path / "claim.json", tmp_path / "record.json"
    with Lease(path) as mine, fenced(tmp_path, mine.fence):
        write_text_atomic(record, "ours")
        with pytest.raises(RunIsTaken), replacing(record) as file:
            file.write(b"late")
            path.unlink()
            with Lease(path):
                pass
    assert record.read_text() == "ours" and left(tmp_path) == ["record.json"]


def test_a_run_whose_folder_vanished_is_not_brought_back(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Lease(run / "claim.json") as mine, fenced(run, mine.fence):
        shutil.rmtree(run)
        with pytest.raises(RunIsTaken, match="folder of the run is gone"):
            write_text_atomic(run / "record.json", "{}")
    assert not run.exists()


def test_a_heartbeat_never_brings_a_lost_claim_back(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    with Lease(path) as mine:
        forge_claim(path, token="theirs")
        mine._sign()
        assert json.loads(path.read_text())["token"] == "theirs"
        path.unlink()
        with pytest.raises(FileNotFoundError):
            mine._sign()
        assert not path.exists()


def test_a_claim_of_another_version_is_understood(tmp_path: Path) -> None:
    forge_claim(tmp_path / "claim.json", host="elsewhere", invented_later=1)
    assert holder(tmp_path / "claim.json") is not None


SLEEPER = """
import sys, time
from pathlib import Path
from bench.store import lease as claims
claims.HEARTBEAT_SECONDS = 0.05
with claims.Lease(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_stopped_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claim.json"
    command = [sys.executable, "-c", SLEEPER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "mine\n"
            found = holder(path)
            assert found is not None and not found.hangs
            process.send_signal(signal.SIGSTOP)
            monkeypatch.setattr(claims, "SILENT_SECONDS", 0.2)
            time.sleep(0.3)
            found = holder(path)
            assert found is not None and f"process {process.pid}" in found.hangs
            with pytest.raises(RunIsTaken), Lease(path):  # alive: nobody may take its run
                pass
        finally:
            process.kill()
    assert holder(path) is None


def test_a_process_that_beats_and_does_not_get_on_is_found(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    with Lease(path) as mine:
        mine.moved(64)
        mine._moved -= 2 * claims.IDLE_SECONDS
        mine._sign()
        found = holder(path)
        assert found is not None and found.nimg == 64 and "no progress for 60 min" in found.hangs
        mine.moved()
        mine._sign()
        found = holder(path)
        assert found is not None and found.nimg == 64 and not found.hangs


def drill(tmp_path: Path, processes: int, runs: int, seed: int) -> int:
    """Does the drill, checks what is left, and returns how many processes were killed."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(tests / "claim_drill.py"), str(tmp_path),
         *map(str, (processes, runs, seed))],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tests.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(f"run{i}" for i in range(runs))
    assert sorted((tmp_path / "finished.txt").read_text().split()) == names  # each exactly once
    claims_taken = 0
    for name in names:
        run = tmp_path / name
        assert json.loads((run / "record.json").read_text()) == [0, 1, 2, 3, 4]
        assert (run / "log.txt").read_text().split() == ["0", "1", "2", "3", "4"]  # none twice
        assert sorted(left(run)) == ["log.txt", "record.json"]
        claims_taken += int((run / "claim.number").read_text())
    killed = int(done.stdout.split()[1])
    assert claims_taken >= runs + killed
    return killed


def test_thirty_two_processes_with_crashes_finish_each_run_once(tmp_path: Path) -> None:
    assert drill(tmp_path, processes=32, runs=24, seed=0) > 5


@pytest.mark.slow
def test_the_same_again_and_again(tmp_path: Path) -> None:
    assert sum(drill(tmp_path / str(s), processes=32, runs=64, seed=s) for s in range(20)) > 300


@pytest.mark.parametrize("beats", [True, False])
def test_an_owner_on_another_host_is_watched_for_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    """Its claim is fresh in both cases, as that of a job whose node died a moment ago."""
    monkeypatch.setattr(claims, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(claims, "WATCH_SECONDS", 0.05)
    path = tmp_path / "claim.json"
    with Lease(path):
        content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"host": "far", "time": time.time()}))
    if beats:
        later = json.dumps(content | {"host": "far", "time": time.time() + 1})
        beat = threading.Timer(0.2, lambda: path.write_text(later))
        beat.start()
        with pytest.raises(RunIsTaken, match="on far is at work"), Lease(path):
            pass
        beat.join()
    else:
        with Lease(path) as second:
            assert json.loads(path.read_text())["token"] == second.token
