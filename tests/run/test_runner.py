"""execute(): nothing is done twice, nothing is lost, and a failure is a line in the record."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_training
import pytest
from fake_training import SPEC, Engine, metrics, paths
from PIL import Image

from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.metrics.evaluate import Scores
from bench.run.retry import StorageFull
from bench.run.runner import execute
from bench.store import record as records
from bench.store.lease import Lease, RunIsTaken, holder
from bench.store.record import Record
from projgan.config import Config
from projgan.errors import DataError, UserError
from projgan.files import write_json_atomic


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return fake_training.install(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Record]:
    def do(spec: RunSpec = SPEC, force: bool = False) -> Record:
        paths = RunPaths(tmp_path / spec.run_id)
        write_json_atomic(paths.spec, spec.to_json())
        return execute(paths.dir, tmp_path / "data", force=force)

    return do


def stop_at(nimg: int, error: BaseException) -> Callable[[Config, int], None]:
    def fail(cfg: Config, now: int) -> None:
        if now == nimg:
            raise error

    return fail


def interrupt(engine: Engine, run: Callable[..., Record], nimg: int) -> None:
    """Starts the run and interrupts it there; the next attempt is left alone."""
    engine.fail = stop_at(nimg, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run()
    engine.fail = stop_at(-1, KeyboardInterrupt())


def test_a_run_from_start_to_end(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    record = run()
    assert record["status"] == "finished" and record["ended"] and record["error"] is None
    assert metrics(record) == {200: {"copied:fd_lab": 1.0}, 400: {"copied:fd_lab": 1.0}}
    assert record["snapshots"][0]["eval"]["fake"] == 10
    assert record["data"]["images"] == 64 and record["backbone"] is None
    assert record["throughput"]["images_per_s"] == 100 and record["memory"]["peak_mb"] > 0
    assert record["time"]["train_s"] == 4.0
    assert records.load(paths(tmp_path).record) == record
    with Image.open(paths(tmp_path).dir / record["snapshots"][1]["samples"]["copied"]) as picture:
        assert picture.size == (8 * 32, 8 * 32)
    assert paths(tmp_path).snapshot(400).exists() and not paths(tmp_path).lease.exists()


def test_what_tables_show_is_certified_and_no_other_snapshot(
    engine: Engine, run: Callable[..., Record]
) -> None:
    early, final = run()["snapshots"]
    assert early["certificates"] == early["intervals"] == {}
    assert final["certificates"] == {"copied:fd_lab": 1e-12}
    assert final["intervals"] == {"copied:fd_lab": [0.5, 2.0]}
    # A new metric is certified too, and what was certified stays.
    asked = replace(SPEC, eval=replace(SPEC.eval, metrics=("fd_lab", "kid_lab")))
    early, final = run(asked)["snapshots"]
    assert early["certificates"] == {}
    assert set(final["certificates"]) == {"copied:fd_lab", "copied:kid_lab"}


def test_a_finished_run_is_left_alone(engine: Engine, run: Callable[..., Record]) -> None:
    first = run()
    engine.trained.clear()
    assert run() == first and engine.trained == []


def test_an_interrupted_run_goes_on(engine: Engine, run: Callable[..., Record]) -> None:
    interrupt(engine, run, 300)
    engine.trained.clear()
    record = run()
    assert [nimg for _, nimg in engine.trained] == [250, 300, 350, 400]
    assert len(engine.measured) == 2 and record["status"] == "finished"


def test_a_kill_between_checkpoint_and_measuring_loses_nothing(
    engine: Engine, run: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.evaluate

    def killed(*args: object, **options: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.run.measuring.evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr("bench.run.measuring.evaluate", whole)
    record = run()
    assert metrics(record) == {200: {"copied:fd_lab": 1.0}, 400: {"copied:fd_lab": 1.0}}
    assert len(engine.trained) == 8  # 50 images each, none twice
    assert record["throughput"]["images_per_s"] == 100


def test_a_failure_is_recorded_with_its_traceback_in_the_log(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    engine.fail = stop_at(250, ValueError("two\nlines"))
    record = run()
    assert (record["status"], record["error"]) == ("failed", "ValueError: two")
    assert set(metrics(record)) == {200}
    assert "Traceback" in paths(tmp_path).log.read_text()
    engine.fail = stop_at(-1, ValueError())
    assert run()["status"] == "finished"  # execute does what it is told; the caller chooses


def test_a_user_error_is_recorded_in_its_own_words(
    engine: Engine, run: Callable[..., Record]
) -> None:
    engine.fail = stop_at(0, UserError("the picture x.png is torn"))
    assert run()["error"] == "the picture x.png is torn"


def test_a_new_metric_measures_the_kept_generators(
    engine: Engine, run: Callable[..., Record]
) -> None:
    run()
    engine.trained.clear()
    engine.value = 2.0
    record = run(replace(SPEC, eval=replace(SPEC.eval, metrics=("fd_lab", "kid_lab"))))
    assert engine.trained == [] and record["status"] == "finished"
    assert metrics(record)[200] == {"copied:fd_lab": 1.0, "copied:kid_lab": 2.0}


def test_intervals_and_networks_are_recorded_with_the_values(
    engine: Engine, run: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = engine.evaluate

    def with_interval(*arguments: Any, **options: Any) -> Scores:
        scores = measured(*arguments, **options)
        for key in scores:
            scores.intervals[key] = (0.5, 1.5)
            scores.extractors[key] = "a hash"
        return scores

    monkeypatch.setattr("bench.run.measuring.evaluate", with_interval)
    run()
    entry = run(replace(SPEC, eval=replace(SPEC.eval, metrics=("fd_lab", "kid_lab"))))["snapshots"]
    assert entry[0]["intervals"] == {"copied:fd_lab": [0.5, 1.5], "copied:kid_lab": [0.5, 1.5]}
    assert entry[0]["eval"]["extractors"] == {"copied:fd_lab": "a hash", "copied:kid_lab": "a hash"}


def test_another_number_of_samples_measures_everything_again(
    engine: Engine, run: Callable[..., Record]
) -> None:
    run()
    engine.trained.clear()
    engine.value = 3.0
    record = run(replace(SPEC, eval=replace(SPEC.eval, fake=20)))
    assert metrics(record) == {200: {"copied:fd_lab": 3.0}, 400: {"copied:fd_lab": 3.0}}
    assert engine.trained == []


def test_snapshots_that_were_not_kept_are_not_trained_again(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    run(replace(SPEC, eval=replace(SPEC.eval, every_kimg=0.4)))
    before = paths(tmp_path).record.read_bytes()
    finer = replace(SPEC, eval=replace(SPEC.eval, every_kimg=0.1))
    engine.trained.clear()
    at = records.run_state(finer, tmp_path)
    assert at.state == "finished" and "0.1, 0.2, 0.3 kimg; force=true" in at.note
    assert set(metrics(run(finer))) == {400} and engine.trained == []
    assert paths(tmp_path).record.read_bytes() == before
    assert set(metrics(run(finer, force=True))) == {100, 200, 300, 400}


def test_points_that_an_unfinished_run_has_passed_do_not_keep_it_from_its_end(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    interrupt(engine, run, 300)
    finer = replace(SPEC, eval=replace(SPEC.eval, every_kimg=0.1))
    record = run(finer)
    assert set(metrics(record)) == {200, 300, 400} and record["status"] == "finished"
    assert records.run_state(finer, tmp_path).note.startswith("not kept at 0.1 kimg")


def test_a_damaged_generator_costs_its_new_metrics_alone(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    run()
    paths(tmp_path).snapshot(200).write_bytes(b"torn")
    paths(tmp_path).snapshot(400).write_bytes(b"torn")  # this one is in the checkpoint too
    engine.trained.clear()
    both = replace(SPEC, eval=replace(SPEC.eval, metrics=("fd_lab", "kid_lab")))
    found = metrics(run(both))
    assert set(found[200]) == {"copied:fd_lab"} and set(found[400]) == {
        "copied:fd_lab",
        "copied:kid_lab",
    }
    assert engine.trained == [] and records.run_state(both, tmp_path).state == "finished"


def test_force_forgets(engine: Engine, run: Callable[..., Record]) -> None:
    run()
    engine.value = 5.0
    assert metrics(run(force=True))[400] == {"copied:fd_lab": 5.0}


def test_a_damaged_record_is_kept_aside_and_costs_no_training(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    whole = run()
    paths(tmp_path).record.write_text("{torn")
    engine.trained.clear()
    engine.measured.clear()
    record = run()
    assert record["status"] == "finished" and engine.trained == [] and len(engine.measured) == 2
    assert metrics(record) == metrics(whole) and record["params"] == whole["params"]
    assert [s["train_seconds"] for s in record["snapshots"]] == [2.0, 4.0]
    assert (paths(tmp_path).dir / "record.json.damaged-1").read_text() == "{torn"
    assert "damaged record" in paths(tmp_path).log.read_text()
    assert records.run_state(SPEC, tmp_path).state == "finished"


def test_a_damaged_record_of_an_interrupted_run_goes_on_from_the_checkpoint(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    interrupt(engine, run, 300)
    paths(tmp_path).record.write_text("")
    engine.trained.clear()
    assert set(metrics(run())) == {200, 400}
    assert [nimg for _, nimg in engine.trained] == [250, 300, 350, 400]


def test_a_record_that_is_not_ours_to_judge_is_not_touched(
    engine: Engine, run: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run()
    engine.trained.clear()
    paths(tmp_path).record.write_text(json.dumps(record | {"schema": 99}))

    def files() -> dict[Path, bytes]:
        every = paths(tmp_path).dir.rglob("*")
        ours = [path for path in every if path.is_file() and path.name != "claim.number"]
        return {path: path.read_bytes() for path in ours}

    before = files()
    with pytest.raises(DataError, match="newer version"):
        run()
    assert files() == before and engine.trained == []

    def refuse(path: Path, *args: object, **options: object) -> str:
        if path.name == "record.json":
            raise PermissionError(errno.EACCES, "Permission denied")
        return path.read_bytes().decode()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        with pytest.raises(DataError, match="cannot be read"):
            run()
    assert files() == before


def test_images_that_changed_are_not_mixed_into_a_run(
    engine: Engine, run: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(engine, run, 300)
    other = replace(fake_training.DATASET, fingerprint="beef")
    monkeypatch.setattr("bench.run.runner.open_dataset", lambda *args: other)
    record = run()
    assert record["status"] == "failed" and "force=true" in record["error"]
    assert run(force=True)["status"] == "finished"


def test_two_processes_do_not_share_a_run(
    engine: Engine, run: Callable[..., Record], tmp_path: Path
) -> None:
    run()
    before = paths(tmp_path).record.read_bytes()
    with Lease(paths(tmp_path).lease), pytest.raises(RunIsTaken):
        run(force=True)
    assert paths(tmp_path).record.read_bytes() == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    engine: Engine, run: Callable[..., Record], tmp_path: Path, code: int
) -> None:
    engine.fail = stop_at(300, OSError(code, "No space left on device"))
    with pytest.raises(StorageFull, match="make room"):
        run()
    kept = json.loads(paths(tmp_path).record.read_text())
    assert set(metrics(kept)) == {200} and kept["status"] == "running"
    engine.fail = stop_at(-1, OSError())
    assert set(metrics(run())) == {200, 400}


def test_time_adds_up_over_sessions(engine: Engine, run: Callable[..., Record]) -> None:
    interrupt(engine, run, 300)
    record = run()
    measured = sum(s["eval"]["seconds"] for s in record["snapshots"])
    assert record["time"]["train_s"] == 4.0  # from the checkpoints: nothing counted twice
    assert record["time"]["eval_s"] >= measured > 0
    assert record["time"]["total_s"] == 4.0 + record["time"]["eval_s"]


def test_whoever_loses_the_run_at_any_write_changes_nothing(
    engine: Engine, run: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another takes the run over just before the n-th write, for every n; the late one leaves."""
    whole, asked, lose_at = Lease.fence, 0, 0
    found: dict[Path, bytes] = {}

    def files() -> dict[Path, bytes]:
        every = [path for path in paths(tmp_path).dir.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in every if path.name != "log.txt"}

    def fence(self: Lease) -> None:
        nonlocal asked
        asked += 1
        if asked == lose_at:
            self.path.unlink()
            with Lease(self.path):  # as one does who thinks us dead
                pass
            found.update(files())
        whole(self)

    monkeypatch.setattr(Lease, "fence", fence)
    once = replace(SPEC, eval=replace(SPEC.eval, every_kimg=0.4))
    run(once)
    writes = asked
    assert writes > 12  # two of each file: when it is begun, and when it takes its place
    for n in range(1, writes + 1):
        shutil.rmtree(paths(tmp_path).dir)
        found.clear()
        asked, lose_at = 0, n
        with pytest.raises(RunIsTaken):
            run(once)
        # A file that was begun beside its place is the late one's own, and gone.
        begun = [path for path in found if path.name.endswith(".part")]
        assert files() == {path: found[path] for path in found if path not in begun}, n


@pytest.mark.slow
def test_thirty_two_processes_with_crashes_do_a_grid(tmp_path: Path) -> None:
    """Each run is finished and under one owner at a time; what a crash cost is done again."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(tests / "grid_drill.py"), str(tmp_path), "32", "0"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tests.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    started, killed = map(int, done.stdout.split())
    assert killed > 30 and 32 < started <= 32 + killed  # the last may die when all is done
    runs = [RunPaths(path.parent) for path in tmp_path.glob("*/spec.json")]
    assert len(runs) == 24
    for run in runs:
        record = records.load(run.record)
        assert record is not None and record["status"] == "finished"
        assert metrics(record) == {200: {"copied:fd_lab": 1.0}, 400: {"copied:fd_lab": 1.0}}
        assert (
            holder(run.lease) is None
        )  # the claim of one who died when all was done may lie there
        steps = [tuple(map(int, line.split())) for line in
                 (run.dir / "steps.txt").read_text().splitlines()]  # fmt: skip
        owners = [number for number, _ in steps]
        assert owners == sorted(owners)  # one after the other, never two at a time
        for number in {*owners}:
            mine = [nimg for owner, nimg in steps if owner == number]
            assert mine == list(range(mine[0], mine[-1] + 50, 50)) and mine[0] in (0, 200)
        assert {nimg for _, nimg in steps} == {*range(0, 400, 50)}
