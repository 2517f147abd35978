"""Each kind of failure is told from the others, and its policy is kept."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_training
import pytest
import torch
from fake_training import SPEC, Engine, metrics, paths

from bench.analysis.cells import cells, read_runs
from bench.report.main_table import _label
from bench.run import retry
from bench.run.retry import TRIES, Failure, NodeFault, kind_of
from bench.run.runner import execute
from bench.store import record as records
from bench.store.record import Record
from projgan.config import Config, Train
from projgan.divergence import TrainingDiverged
from projgan.errors import DataError
from projgan.files import write_json_atomic


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return fake_training.install(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[], Record]:
    def do() -> Record:
        write_json_atomic(paths(tmp_path).spec, SPEC.to_json())
        return execute(paths(tmp_path).dir, tmp_path / "data")

    return do


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "memory"),
        (TrainingDiverged("The generator's loss is nan", 7), "diverged"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage"),
        (caused(DataError("cannot write"), OSError(errno.EROFS, "Read-only")), "storage"),
        (OSError(errno.EIO, "Input/output error"), "node"),
        (OSError(errno.ESTALE, "Stale file handle"), "node"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "node"),
        (RuntimeError("CUDA error: unspecified launch failure"), "node"),
        (RuntimeError("CUDA error: device-side assert triggered"), "code"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "code"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "code"),
        (DataError("the picture x.png is torn"), "mistake"),
        (ZeroDivisionError(), "code"),
    ],
)
def test_kinds(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind and kind in TRIES


def test_getting_on_in_between_starts_the_count_again() -> None:
    record: Record = {}
    assert [retry.note(record, Failure("node", "", at)) for at in (0, 0, 64, 64, 64)] == [
        True, True, True, True, False,
    ]  # fmt: skip
    for kind, again in (("code", False), ("node", True)):
        record = {"failures": [{"kind": "code", "error": "", "at": 9}]}
        assert retry.note(record, Failure(kind, "", 9)) == again


@pytest.mark.parametrize(
    ("batch", "group", "processes", "halves"),
    [
        (64, None, 1, [32, 16, 8, 4, 2]),
        (3, None, 1, [2]),
        (64, 8, 1, [32, 16, 8]),  # batch norm sees whole groups
        (24, 8, 1, [16, 8]),
        (64, 8, 4, [8]),
        (64, 8, 16, []),  # a group lies in two processes, which must be at it together
    ],
)
def test_halves(batch: int, group: int | None, processes: int, halves: list[int]) -> None:
    record: dict[str, Any] = {}
    found = []
    train = Train(batch=batch, norm_group=group)
    while (smaller := retry.halved(record, train, processes)) is not None:
        record["micro_batch"] = {"images": smaller, "since": 0}
        found.append(smaller)
    assert found == halves


def fail_when(test: Callable[[Config, int], bool], error: Exception) -> Callable[..., None]:
    def fail(cfg: Config, now: int) -> None:
        if test(cfg, now):
            raise error

    return fail


def test_want_of_memory_halves_the_micro_batch_and_is_told(
    engine: Engine,
    run: Callable[[], Record],
    tmp_path: Path,
) -> None:
    def too_large(cfg: Config, now: int) -> bool:
        return now >= 250 and (cfg.train.micro_batch or cfg.train.batch) > 13

    engine.fail = fail_when(too_large, torch.OutOfMemoryError("out of memory"))
    record = run()
    assert record["status"] == "finished" and set(metrics(record)) == {200, 400}
    assert record["micro_batch"] == {"images": 13, "since": 250}
    assert [f["kind"] for f in record["failures"]] == ["memory", "memory"]
    assert record["config"]["train"]["micro_batch"] is None  # its identity is what was asked for
    assert "gradients accumulated" in paths(tmp_path).log.read_text()
    engine.trained.clear()
    assert run() == record and engine.trained == []


def test_without_a_smaller_micro_batch_the_run_fails(
    engine: Engine,
    run: Callable[[], Record],
) -> None:
    engine.fail = fail_when(lambda *at: True, torch.OutOfMemoryError("out of memory"))
    record = run()
    assert (record["status"], record["failure"]) == ("failed", "memory")
    assert record["micro_batch"]["images"] == 2


def test_want_of_memory_while_measuring_leaves_the_training_as_it_is(
    engine: Engine,
    run: Callable[[], Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def evaluate(*args: object, **options: object) -> object:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("bench.run.measuring.evaluate", evaluate)
    record = run()
    assert (record["status"], record["failure"]) == ("failed", "memory")
    assert "micro_batch" not in record


def test_divergence_is_not_tried_again(
    engine: Engine,
    run: Callable[[], Record],
) -> None:
    error = TrainingDiverged("The generator's loss is nan", 300)
    engine.fail = fail_when(lambda cfg, now: now == 250, error)
    record = run()
    assert (record["status"], record["failure"]) == ("failed", "diverged")
    assert len([n for _, n in engine.trained if n == 250]) == 1


def test_a_fault_of_the_code_stops_after_two_tries(
    engine: Engine,
    run: Callable[[], Record],
) -> None:
    engine.fail = fail_when(lambda cfg, now: now == 300, ValueError("a bug"))
    record = run()
    assert (record["status"], record["error"]) == ("failed", "ValueError: a bug")
    assert [f["at"] for f in record["failures"]] == [300, 300]
    assert [n for _, n in engine.trained] == [50, 100, 150, 200, 250, 300, 250, 300]


def test_a_fault_that_passes_costs_no_run(
    engine: Engine,
    run: Callable[[], Record],
) -> None:
    raised: list[int] = []

    def fail(cfg: Config, now: int) -> None:
        if now == 300 and not raised:
            raised.append(now)
            raise ValueError("once")

    engine.fail = fail
    record = run()
    assert record["status"] == "finished" and set(metrics(record)) == {200, 400}
    assert [f["error"] for f in record["failures"]] == ["ValueError: once"]


def test_a_fault_of_the_node_gives_the_run_back_and_counts(
    engine: Engine,
    run: Callable[[], Record],
    tmp_path: Path,
) -> None:
    engine.fail = fail_when(lambda cfg, now: now == 300, OSError(errno.EIO, "Input/output error"))
    for _ in range(3):  # the first one got on: its checkpoint counts, and the others begin with it
        with pytest.raises(NodeFault):
            run()
        at = records.run_state(SPEC, tmp_path)
        assert at.state == "stopped" and "Input/output error" in at.note
    record = run()
    assert (record["status"], record["failure"]) == ("failed", "node")
    engine.fail = fail_when(lambda *at: False, ValueError())
    record = run()  # asked for again, it begins to count anew
    assert record["status"] == "finished" and record["failures"] == []


def test_the_table_has_a_footnote(
    engine: Engine,
    run: Callable[[], Record],
    tmp_path: Path,
) -> None:
    record = run()
    record["micro_batch"] = {"images": 4, "since": 0}
    records.save(paths(tmp_path).record, record)
    cell = cells(read_runs([SPEC], tmp_path))[0]
    assert any("micro-batches of 4" in note for note in _label(cell, False).notes)
