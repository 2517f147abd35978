"""do=watch: what a look shows, and that it ends."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from made_records import make_grid, make_record, write_record

from bench.cli import watch
from bench.config.paths import RunPaths
from bench.config.spec import Grid, ReportSpec
from bench.store.lease import Lease

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def grid() -> Grid:
    rows = {"One": {"backbone.name": "resnet18"}, "Two": {"backbone.name": "vit"}}
    return make_grid(rows, ReportSpec(rank_by="fd_lab"))


def test_a_look_tells_state_distance_and_time_left(grid: Grid, tmp_path: Path) -> None:
    one, two = grid.runs
    write_record(tmp_path, one, make_record(one, {4000: {"fd_lab": 3.25}}))
    write_record(tmp_path, two, make_record(two, {1000: {"fd_lab": 9.5}}, status="running"))
    clock = [100.0]
    watched = watch.Watch(grid, tmp_path, lambda: clock[0])
    with Lease(RunPaths(tmp_path / two.run_id).lease) as claim:
        claim.moved(1000)
        claim._sign()
        first, second = watched.lines()
        assert (first.state.state, first.left) == ("finished", 0.0)
        assert second.state.state == "running" and second.share == 0.25
        # Not seen moving yet: as long per image as the runs so far, of 51 s for 4000 or 1000.
        assert second.left == pytest.approx((51 / 4000 + 51 / 1000) / 2 * 3000)
        claim.moved(2000)
        claim._sign()
        clock[0] += 50.0
        _, second = watched.lines()
        assert second.left == pytest.approx(100.0)  # 1000 images in 50 s, 2000 to go
    lines = watch.rows(grid, [first, second])
    assert lines[1][1:6] == ["One", "finished", "████████████ 100%", "4/4", "3.25"]
    assert lines[2][1:7] == ["Two", "running", "██████······  50%", "2/4", "9.5", "1:40"]
    assert watch.summary([first, second]) == (
        "2 runs: 1 finished, 1 running; about 1:40 left with 1 at a time"
    )


def test_where_no_one_looks_it_says_it_once(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    assert watch.watch(grid, tmp_path, said.append)
    assert len(said) == 2 and "missing" in said[0]
    assert said[1] == "2 runs: 2 missing; time left not known yet"
    bad = make_record(grid.runs[0], {}, status="failed", error="too hot")
    write_record(tmp_path, grid.runs[0], bad)
    assert not watch.watch(grid, tmp_path, said.append)
    assert "too hot" in said[2]


def test_on_a_terminal_it_is_a_table_that_ends_when_all_is_done(tmp_path: Path) -> None:
    """Two runs of the smoke grid: one has failed, the other fails while we look."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests');"
        "from bench.config import grid as grids; from bench.cli import watch;"
        "from made_records import make_record, write_record;"
        "runs = Path(sys.argv[1]); grid = grids.load('smoke'); watch.TICK = 0.2;"
        "a, b = grid.runs; write_record(runs, a, make_record(a, {}, status='failed', error='hot'));"
        "import threading; fail = lambda: write_record(runs, b,"
        " make_record(b, {}, status='failed', error='late'));"
        "threading.Timer(0.7, fail).start();"
        "sys.exit(0 if not watch.watch(grid, runs, print) else 1)"
    )
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, stdout=there, stderr=there, env={**os.environ, "COLUMNS": "140", "TERM": "xterm"},
    )  # fmt: skip
    os.close(there)
    text = b""

    def read() -> None:
        nonlocal text
        while True:
            try:
                part = os.read(here, 4096)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            text += part

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(timeout=60) == 0
    reader.join(timeout=10)
    os.close(here)
    assert b"missing" in text and b"late" in text  # before and after
    assert b"2 runs: 2 failed" in text
