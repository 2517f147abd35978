"""A run that is killed at random points equals, to the bit, one that was never touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.prove_resume import PLACES, plan, shortened
from bench.config import grid as grids

ROOT = Path(__file__).resolve().parents[2]
TOY = ["data.images=32", "generator.width=4", "train.batch=4", "projection.channels=8",
       "discriminator.width=16", "only=ResNet18"]  # fmt: skip


def prove(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), "do=prove-resume", *TOY, *arguments],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip


def check(tmp_path: Path, kills: int, steps: int, seed: int = 0) -> str:
    done = prove(tmp_path, f"kills={kills}", f"steps={steps}", f"seeds=[{seed}]")
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("generator", "heads", "average", "optim_g", "optim_d", "projection",
                 "batches and losses", "metrics at"):  # fmt: skip
        assert what in done.stdout
    assert "DIFFERENT" not in done.stdout
    assert not list((tmp_path / "runs").iterdir())
    return done.stdout


def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    told = check(tmp_path, kills=20, steps=8)
    assert told.count("] killed ") == 20 and "writing the checkpoint" in told


@pytest.mark.slow
def test_two_hundred_kills_change_nothing(tmp_path: Path) -> None:
    told = check(tmp_path, kills=200, steps=40, seed=1)
    assert told.count("] killed ") == 200
    assert told.count("writing the checkpoint") > 10


def test_a_difference_is_shown(tmp_path: Path) -> None:
    """A process that goes on with another learning rate than its checkpoint's is found out."""
    code = (
        "import sys, torch, projgan.trainer as t, bench.cli.main\n"
        "whole = t.Trainer.load_state\n"
        "def load(self, state):\n"
        "    whole(self, state)\n"
        "    self.optim_g.state.clear()\n"  # as the released code does: no optimiser state
        "t.Trainer.load_state = load\n"
        "sys.exit(bench.cli.main.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "do=prove-resume", *TOY, "kills=5", "steps=4"],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    lines = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    assert "DIFFERENT" in lines["generator"] and "DIFFERENT" in lines["optim_g"]
    assert "equal" in lines["projection"]
    assert list((tmp_path / "runs").glob("prove-resume-*"))


@pytest.mark.parametrize("seed", range(5))
def test_no_kill_lets_the_run_pass_where_another_waits(seed: int) -> None:
    """Else the run would end early, and what was planned behind would kill nothing."""
    spec = shortened(grids.load("smoke", overrides=TOY[:3], only="ResNet18").runs[0], 40)
    kills, measured = plan(spec, 200, seed), 0
    assert len(kills) == 200 and {kill.place for kill in kills} == {*PLACES}
    for kill in kills:
        following = next(n for n in spec.snapshot_at if n > kill.nimg)
        assert following > measured
        if kill.place != "measuring":
            measured = max((n for n in spec.snapshot_at if n <= kill.nimg), default=0)
