"""Grids on a real SLURM cluster of four nodes, from the command line to the records.

What every drill comes to: nothing is lost, nothing is done twice, and do=status tells the truth.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from slurm_cluster import Cluster, cluster, needs_cluster, until, why_not

from bench.config.paths import ROOT, RunPaths
from bench.dispatch.slurm import max_array
from bench.dispatch.slurm_job import avoid_nodes, nodes_to_avoid
from bench.store import record as records
from bench.store.lease import holder
from projgan.checkpoint import load_checkpoint

pytestmark = needs_cluster

# An RGB discriminator, 32 images and a metric without a network: seconds to train, no weights.
GRID = """
name: {name}
about: a grid of the tests
base:
  discriminator.kind: rgb
  discriminator.width: 16
  backbone.weights: random
  data.images: 32
  generator.width: 4
  generator.z_dim: 8
  train.batch: 8
  train.total_kimg: {kimg}
rows:
  - {{label: One, set: {{optim.lr_g: 1e-4}}}}
  - {{label: Two, set: {{optim.lr_g: 2e-4}}, resources: {{gpus: 2}}}}
  - {{label: Three, set: {{optim.lr_g: 3e-4}}}}
  - {{label: Bad, set: {{optim.lr_g: 4e-4}}}}
eval: {{metrics: [swd], every_kimg: {every}, also_at_kimg: [], fake: 16}}
report: {{rank_by: swd, columns: [swd]}}
"""
MINE = "{gpus: 1, cpus: 1, time: 30, warning: 60, options: {begin: now+4}}"
HELD = "{gpus: 1, cpus: 1, options: {hold: true}}"
MOST = 3  # jobs of an array that the cluster allows


@dataclass
class User:
    """Someone at the cluster's login node, with a checkout and a folder to work in."""

    cluster: Cluster
    home: Path
    root: Path  # the checkout

    def types(self, command: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, str(self.root / "run_bench.py"), *command.split()],
            cwd=self.home, env=self.cluster.environment, capture_output=True, text=True,
            timeout=900,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def states(self, grid: str) -> dict[str, str]:
        """What do=status shows of each row: its state, and the rest of the line."""
        lines = self.types(f"grid={grid} do=status").splitlines()
        found = (re.match(r"[0-9a-f]{12}  (\w+) +(.*)", line) for line in lines)
        return {match[1]: match[2] for match in found if match}

    def run(self, row: str) -> RunPaths:
        for spec in self.home.glob("runs/*/spec.json"):
            if json.loads(spec.read_text())["row"] == row:
                return RunPaths(spec.parent)
        raise AssertionError(f"{row} has no folder")

    def job(self, row: str) -> str:
        found = json.loads(self.run(row).job.read_text())["id"]
        assert isinstance(found, str)
        return found

    def log(self, row: str) -> str:
        found = json.loads(self.run(row).job.read_text())["log"]
        path = self.home / "runs" / found
        return path.read_text() if found and path.exists() else ""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster(EXTRA=f"MaxArraySize={MOST}") as made:
        yield made


@pytest.fixture
def user(slurm: Cluster, tmp_path: Path) -> Iterator[User]:
    with at_work(slurm, tmp_path) as made:
        yield made


@contextmanager
def at_work(slurm: Cluster, tmp_path: Path, root: Path = ROOT) -> Iterator[User]:
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "tiny.yaml").write_text(GRID.format(name="tiny", kimg=0.032, every=0.016))
    (tmp_path / "long.yaml").write_text(GRID.format(name="long", kimg=1000, every=1000))
    made = User(slurm, tmp_path, root)
    yield made
    ids = [json.loads(path.read_text())["id"] for path in tmp_path.glob("runs/*/job.json")]
    if ids := [id for id in ids if id]:
        slurm.tell("scancel", "--full", *ids)
        until(lambda: not set(slurm.queue("%i")) & {*ids}, "the jobs to leave")


def trains(user: User, row: str) -> Callable[[], bool]:
    def check() -> bool:
        owner = holder(user.run(row).lease)
        return owner is not None and owner.nimg > 0

    return check


def has_another_owner(run: RunPaths, token: str) -> Callable[[], bool]:
    def check() -> bool:
        owner = holder(run.lease)
        return owner is not None and owner.token != token

    return check


def steps(run: RunPaths) -> int:
    """Images that the checkpoint holds."""
    state = load_checkpoint(run.checkpoint) if run.checkpoint.exists() else None
    return int(state["nimg"]) if state else 0


def gone_on(run: RunPaths) -> list[int]:
    """From how many images the run went on, each time."""
    text = run.log.read_text() if run.log.exists() else ""
    return [int(found) for found in re.findall(r"Going on from (\d+) images", text)]


def test_a_grid(slurm: Cluster, tmp_path: Path) -> None:
    """Submitted from a checkout that is broken at once: four runs, one of which fails."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".git", "results", "tests", "runs"))
    with at_work(slurm, tmp_path, root) as user:
        said = user.types("grid=tiny.yaml dispatch=mine.yaml dispatch.parallel=1")
        assert "as an array of 3" in said and "4 runs to do" in said
        (user.run("Bad").dir / "snapshots").write_text("in the way of the folder")
        # The jobs have not begun. The checkout that they were submitted from breaks.
        kept = (root / "bench" / "run" / "runner.py").read_text()
        (root / "bench" / "run" / "runner.py").write_text("raise SystemExit('edited')")
        private = tmp_path / "runs" / ".slurm"
        assert {path.stat().st_mode & 0o777 for path in (private, *private.glob("tiny-*"))} == {
            0o700
        }

        at = user.states("tiny.yaml")
        assert {text.split()[0] for text in at.values()} == {"queued"} and "job" in at["Two"]
        (root / "bench" / "run" / "runner.py").write_text(kept)
        assert "4 runs left alone" in (again := user.types("grid=tiny.yaml dispatch=mine.yaml"))
        assert "nothing to submit" in again
        (root / "bench" / "run" / "runner.py").write_text("raise SystemExit('edited')")

        most = 0

        def ended() -> bool:
            nonlocal most
            array = user.job("One").partition("_")[0]
            rows = [line for line in slurm.queue("%F %T") if line.split()[1] != "PENDING"]
            most = max(most, sum(line.startswith(array) for line in rows))
            return not slurm.queue()

        until(ended, "the jobs to end")
        assert most == 1  # parallel=1
        at = user.states("tiny.yaml")
        for row in ("One", "Two", "Three"):
            assert at[row].startswith("finished"), (at, user.log(row))
            record = records.load(user.run(row).record)
            assert record is not None and record["snapshots"][-1]["nimg"] == 32
            assert record["environment"]["threads"] == 1
            # Two has two GPUs: torchrun's processes, one for each.
            assert record["environment"].get("processes", 1) == (2 if row == "Two" else 1)
        assert at["Bad"].startswith("failed") and "FileExistsError" in at["Bad"]
        assert "edited" not in "".join(map(user.log, at))
        (root / "bench" / "run" / "runner.py").write_text(kept)
        assert "nothing to submit" in user.types("grid=tiny.yaml dispatch=mine.yaml")
        assert "about" in user.types("grid=tiny.yaml do=plan seeds=[0,1]")  # hours, now measured


def interrupted(user: User, row: str, how: Callable[[], object]) -> None:
    """Interrupts a run that trains; it goes on from a later step, in the same job."""
    run = user.run(row)
    job, before, times = user.job(row), steps(run), len(gone_on(run))
    until(trains(user, row), "training")
    how()
    until(lambda: len(gone_on(run)) > times, "going on")
    assert gone_on(run)[-1] > before  # nothing was due: the request was heard
    assert user.job(row) == job


def test_warned_and_cancelled(user: User) -> None:
    """One long run through what interrupts it; each time it goes on from its last step."""
    slurm = user.cluster
    other = slurm.tell("sbatch", "--parsable", "--wrap=sleep 3600")
    user.types("grid=long.yaml only=One dispatch=mine.yaml")
    run = user.run("One")
    until(trains(user, "One"), "training")
    assert user.states("long.yaml")["One"].startswith("running")

    job = user.job("One")
    interrupted(user, "One", lambda: slurm.tell("scancel", "--signal=USR2", job))

    until(trains(user, "One"), "training")
    assert f"cancelled: {job}" in user.types("grid=long.yaml only=One do=cancel")
    until(lambda: not any(line.startswith(job) for line in slurm.queue()), "the job to leave")
    at = user.states("long.yaml")["One"]
    assert at.startswith("stopped") and "cancelled" in at and holder(run.lease) is None
    assert f"{other} RUNNING" in slurm.queue()  # nobody asked for that one
    slurm.tell("scancel", other)


def test_several_runs_in_a_job(user: User) -> None:
    """Without a GPU they run side by side, on the job's cores."""
    said = user.types(
        "grid=tiny.yaml only=[One,Three] dispatch=mine.yaml "
        "dispatch.runs_per_job=2 dispatch.gpus=0 dispatch.cpus=2"
    )
    assert "array" not in said and user.job("One") == user.job("Three")
    # The job also does Three: cancelling One alone would end what nobody named.
    said = user.types("grid=tiny.yaml only=One do=cancel")
    assert "is left alone" in said and "no job of this grid was cancelled" in said
    until(lambda: not user.cluster.queue(), "the job to end")
    at = user.states("tiny.yaml")
    assert at["One"].startswith("finished") and at["Three"].startswith("finished")


def test_what_sbatch_refuses_is_one_line_and_leaves_no_job(user: User) -> None:
    said = user.types("grid=tiny.yaml only=One dispatch=mine.yaml dispatch.partition=nowhere", 1)
    assert "sbatch refuses: " in said and "invalid partition" in said.lower()
    assert len(said.splitlines()) == 2  # what is to do, and why it is not
    assert not user.run("One").job.exists()
    assert user.states("tiny.yaml")["One"].startswith("missing")
    limit = user.types("grid=tiny.yaml only=One dispatch=mine.yaml dispatch.gpus=8", 1)
    assert "sbatch refuses: " in limit


def test_an_array_is_as_long_as_the_cluster_allows(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six runs that ask for the same, where an array may hold three; and what a grid cancels."""
    for key, value in user.cluster.environment.items():
        monkeypatch.setenv(key, value)
    assert max_array() == MOST
    with pytest.raises(AssertionError, match="Invalid job array"):
        user.cluster.tell("sbatch", "--test-only", "--wrap=true", f"--array=0-{MOST}")
    (user.home / "held.yaml").write_text(HELD)
    other = user.cluster.tell("sbatch", "--parsable", "--hold", "--wrap=true")
    said = user.types("grid=tiny.yaml only=[One,Three,Bad] seeds=[0,1] dispatch=held.yaml")
    assert said.count(f"as an array of {MOST}") == 2
    queued = [line for line in user.cluster.queue("%F %r") if not line.startswith(other)]
    assert len(queued) == 6 and len({*queued}) == 2 and all("Held" in line for line in queued)
    said = user.types("grid=tiny.yaml only=[One,Three,Bad] seeds=[0,1] do=cancel")
    assert said.count("_") == 6
    until(lambda: user.cluster.queue("%F") == [other], "the jobs to leave")
    user.cluster.tell("scancel", other)


def test_a_job_avoids_nodes_while_another_is_left(
    slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)
    job = slurm.tell("sbatch", "--parsable", "--hold", "--exclude=node[3,4]", "--wrap=true")
    nodes = nodes_to_avoid(job, "node1")
    assert nodes == "node[3-4],node1" and avoid_nodes(job, nodes)
    assert f"{job} node[1,3-4]" in slurm.queue("%i %x")
    assert nodes_to_avoid(job, "node1") is not None  # known already
    assert nodes_to_avoid(job, "node2") is None  # it would wait for ever
    assert nodes_to_avoid("1", "node2") is None and not avoid_nodes("1", "node2")
    slurm.tell("scancel", job)


# Minutes each


@pytest.mark.slow
def test_requeued_preempted_and_ended_behind_our_back(user: User) -> None:
    slurm = user.cluster
    user.types("grid=long.yaml only=One dispatch=mine.yaml")
    run = user.run("One")
    until(trains(user, "One"), "training")
    # A second copy, as of a job requeued while the first lives: it leaves.
    said = user.types("grid=long.yaml only=One dispatch=inprocess", status=1)
    assert "is at work on this run" in said

    interrupted(user, "One", lambda: slurm.tell("scontrol", "requeue", user.job("One")))
    urgent = ["--partition=urgent", "--nodes=4", "--gpus-per-node=2", "--wrap=sleep 1"]
    interrupted(user, "One", lambda: slurm.tell("sbatch", *urgent))

    # Ended behind our back, without accounting; the same command goes on with it, in another job.
    slurm.tell("scancel", user.job("One"))
    until(lambda: not slurm.queue(), "the job to leave")
    at = user.states("long.yaml")["One"]
    assert at.startswith("stopped") and "has left the queue" in at
    times, job = len(gone_on(run)), user.job("One")
    user.types("grid=long.yaml only=One dispatch=mine.yaml")
    until(lambda: len(gone_on(run)) > times, "going on")
    assert user.job("One") != job


@pytest.mark.slow
def test_a_real_time_limit(user: User) -> None:
    """Far too short for the run, which is warned, requeued, and gets on."""
    user.types("grid=long.yaml only=One dispatch=mine.yaml dispatch.time=3 dispatch.warning=20")
    run = user.run("One")
    until(lambda: gone_on(run), "going on", 1800)
    assert gone_on(run)[0] > 0
    record = records.load(run.record)
    assert record is not None and (record["status"], record["error"]) == ("running", None)
    assert "this job is timed-out" in user.log("One")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["down", "crash", "agent"])
def test_a_node_is_lost(user: User, how: str) -> None:
    """Set down; without power; or its daemon dead and the run alive, which SLURM runs again."""
    slurm = user.cluster
    user.types("grid=long.yaml only=One dispatch=mine.yaml")
    run = user.run("One")
    until(trains(user, "One"), "training")
    node = slurm.tell("squeue", "--noheader", f"--jobs={user.job('One')}", "--format=%N")
    owner = holder(run.lease)
    assert owner is not None
    if how == "down":
        slurm.tell("scontrol", "update", f"nodename={node}", "state=down", "reason=drill")
    else:
        slurm.node(how, node)
    try:
        if how == "agent":
            until(lambda: "is at work on this run" in user.log("One"), "the second copy to leave")
            now = holder(run.lease)
            assert now is not None and now.token == owner.token  # the first has it still
            os.kill(now.pid, signal.SIGTERM)
            until(lambda: holder(run.lease) is None, "the first to end")
            until(lambda: user.states("long.yaml")["One"].startswith("stopped"), "status")
            user.types("grid=long.yaml only=One dispatch=mine.yaml")
        before = steps(run)
        until(has_another_owner(run, owner.token), "another owner")
        until(trains(user, "One"), "training elsewhere")
        assert not gone_on(run) or gone_on(run)[-1] >= before
    finally:
        slurm.node("start", node)


@pytest.mark.slow
def test_a_node_that_fails_a_run_is_left_for_another(user: User) -> None:
    """The worker crashes, as where a card or the memory is broken; the job goes elsewhere."""
    slurm = user.cluster
    user.types("grid=long.yaml only=One dispatch=mine.yaml")
    run = user.run("One")
    job, nodes = user.job("One"), []
    for _ in range(2):
        until(trains(user, "One"), "training")
        nodes.append(slurm.tell("squeue", "--noheader", f"--jobs={job}", "--format=%N"))
        owner = holder(run.lease)
        assert owner is not None
        os.kill(owner.pid, signal.SIGSEGV)
        until(has_another_owner(run, owner.token), "another owner")
    until(trains(user, "One"), "training elsewhere")
    nodes.append(slurm.tell("squeue", "--noheader", f"--jobs={job}", "--format=%N"))
    assert len({*nodes}) == 3 and user.job("One") == job
    record = records.load(run.record)
    assert record is not None and [f["kind"] for f in record["failures"]] == ["node"] * 2
    assert f"the job avoids {nodes[0]},{nodes[1]}" in user.log("One")


@pytest.mark.slow
def test_several_processes_are_warned_and_requeued(user: User) -> None:
    """torchrun in a job: its processes stop after the same step, and go on from there."""
    user.types("grid=long.yaml only=Two dispatch=mine.yaml")
    run = user.run("Two")
    until(trains(user, "Two"), "training")
    owner = holder(run.lease)
    assert owner is not None
    assert b"WORLD_SIZE=2" in Path(f"/proc/{owner.pid}/environ").read_bytes().split(b"\0")
    slurm, job = user.cluster, user.job("Two")
    interrupted(user, "Two", lambda: slurm.tell("scancel", "--signal=USR2", job))
    interrupted(user, "Two", lambda: slurm.tell("scontrol", "requeue", job))
    record = records.load(run.record)
    assert record is not None and not record.get("failures") and record["error"] is None


@pytest.mark.slow
def test_a_run_that_hangs_is_shown(user: User) -> None:
    user.types("grid=long.yaml only=One dispatch=mine.yaml")
    run = user.run("One")
    until(trains(user, "One"), "training")
    owner = holder(run.lease)
    assert owner is not None
    os.kill(owner.pid, signal.SIGSTOP)
    try:
        until(lambda: user.states("long.yaml")["One"].startswith("hung"), "status to tell")
        assert f"job {user.job('One')} on node" in user.states("long.yaml")["One"]
        assert "1 run left alone" in user.types("grid=long.yaml only=One dispatch=mine.yaml")
    finally:
        os.kill(owner.pid, signal.SIGCONT)
    until(lambda: user.states("long.yaml")["One"].startswith("running"), "status to tell")


@pytest.mark.slow
def test_the_controller_is_restarted(user: User) -> None:
    slurm = user.cluster
    user.types("grid=tiny.yaml only=[One,Three] dispatch=mine.yaml dispatch.parallel=1")
    time.sleep(10)  # a controller saves what it knows every few seconds
    slurm.node("agent", "controller")
    try:
        at = user.states("tiny.yaml")
        assert at["Three"].startswith(("queued", "running", "finished")), at
        if not at["Three"].startswith("finished"):
            assert "nothing to submit" in user.types("grid=tiny.yaml dispatch=mine.yaml only=Three")
    finally:
        slurm.node("start", "controller")

    def finished() -> bool:
        at = user.states("tiny.yaml")
        # A job that starts before its node has told the new controller of its GPUs fails at once.
        if lost := [row for row in ("One", "Three") if "has left the queue" in at[row]]:
            assert "Invalid generic resource" in "".join(map(user.log, lost))
            user.types("grid=tiny.yaml only=[One,Three] dispatch=mine.yaml")
        return at["One"].startswith("finished") and at["Three"].startswith("finished")

    until(finished, "the runs to finish")


@pytest.mark.slow
def test_a_preemption_that_gives_no_warning(tmp_path: Path) -> None:
    """SIGTERM and a grace time: the workers keep their last step, and SLURM requeues the job."""
    with (
        cluster(EXTRA="SlurmctldParameters=idle_on_node_suspend") as slurm,
        at_work(slurm, tmp_path) as user,
    ):
        user.types("grid=long.yaml only=One dispatch=mine.yaml")
        run = user.run("One")
        until(trains(user, "One"), "training")
        slurm.tell("sbatch", "--partition=urgent", "--nodes=4", "--gpus-per-node=2",
                   "--wrap=sleep 1")  # fmt: skip
        until(lambda: gone_on(run), "going on")
        assert gone_on(run)[0] > 0


@pytest.mark.slow
@pytest.mark.skipif(
    bool(why_not("mariadbd", "slurmdbd")), reason=why_not("mariadbd", "slurmdbd") or "-"
)
def test_with_accounting(tmp_path: Path) -> None:
    with cluster(ACCT="dbd") as slurm, at_work(slurm, tmp_path) as user:
        user.types("grid=long.yaml only=One dispatch=mine.yaml")
        until(trains(user, "One"), "training")
        slurm.tell("scancel", user.job("One"))
        until(lambda: "ended as cancelled" in user.states("long.yaml")["One"], "sacct to tell")
        assert user.states("long.yaml")["One"].startswith("stopped")
