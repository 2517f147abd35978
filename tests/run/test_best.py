"""The best snapshot is chosen on one generated sample and reported on another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_training
import numpy as np
import pytest
from fake_training import Engine
from made_records import make_grid, make_record, write_record

from bench.analysis.cells import cells, read_runs
from bench.analysis.facts import Facts
from bench.config import grid as grids
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, ReportSpec, RunSpec
from bench.metrics.evaluate import Scores
from bench.report import main_table
from bench.report.tables import to_markdown
from bench.run.runner import execute
from bench.store import record as records
from bench.store.record import Record
from projgan.config import Config, Data, Generator, Train
from projgan.files import write_json_atomic

CONFIG = replace(
    Config(),
    data=Data(name="clevr", resolution=32),
    generator=Generator(width=4, z_dim=8),
    train=Train(total_kimg=0.4, batch=50),
)
EVAL = EvalSpec(("fd_lab", "kid_lab"), every_kimg=0.1, fake=10, best=("fd_lab",))
SPEC = RunSpec("g", "Row", {}, "lab", CONFIG, EVAL)


class Judge:
    """Measures with given values, one per call, and remembers the images that it saw."""

    def __init__(self, values: Sequence[float]):
        self.values = iter(values)
        self.seen: list[np.ndarray] = []
        self.asked: list[tuple[str, ...]] = []

    def __call__(
        self,
        batches: Iterable[Any],
        reference: object,
        keys: Sequence[str],
        certified: bool = False,
    ) -> Scores:
        scores = Scores()
        self.seen.append(np.concatenate([batch.numpy() for batch in batches]))
        self.asked.append(tuple(keys))
        scores.update(dict.fromkeys(keys, next(self.values)))
        scores.real = 64
        if certified:
            scores.certificates = dict.fromkeys(keys, 1e-12)
        return scores


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return fake_training.install(monkeypatch)


@pytest.fixture
def run(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Record, Judge]]]:
    def do(values: Sequence[float], spec: RunSpec = SPEC) -> tuple[Record, Judge]:
        judge = Judge(values)
        monkeypatch.setattr("bench.run.measuring.evaluate", judge)
        write_json_atomic(RunPaths(tmp_path / spec.run_id).spec, spec.to_json())
        return execute(tmp_path / spec.run_id, tmp_path / "data"), judge

    yield do


def test_the_best_snapshot_is_measured_again_on_other_images(
    run: Callable[..., tuple[Record, Judge]], tmp_path: Path
) -> None:
    record, judge = run([9.0, 5.0, 7.0, 8.0, 5.5])
    assert record["status"] == "finished"
    best = record["best"]["copied:fd_lab"]
    assert (best["nimg"], best["chosen"], best["fresh"]) == (200, 5.0, 5.5)
    assert best["certificate"] == 1e-12
    assert best["eval"]["fake"] == 10 and best["eval"]["seed"] != 0
    assert judge.asked[-1] == ("copied:fd_lab",)  # what no column asks for is not paid for
    curve, fresh = judge.seen[1], judge.seen[-1]
    assert curve.shape == fresh.shape == (10, 3, 32, 32)
    assert not any((image == other).all() for image in fresh for other in curve)
    assert records.run_state(SPEC, tmp_path).state == "finished"


def test_it_is_measured_once_and_again_only_when_the_choice_changes(
    run: Callable[..., tuple[Record, Judge]],
) -> None:
    first, _ = run([9.0, 5.0, 7.0, 8.0, 5.5])
    second, judge = run([])
    assert second == first and judge.seen == []
    finer = replace(SPEC, eval=replace(EVAL, also_at_kimg=(0.15,)))
    third, judge = run([], finer)  # nothing was kept there, so the choice stays
    assert third["best"] == first["best"] and judge.seen == []
    other = replace(SPEC, eval=replace(EVAL, fake=20))  # measured anew, so chosen anew
    fourth, _ = run([9.0, 5.0, 7.0, 3.0, 3.3], other)
    assert (fourth["best"]["copied:fd_lab"]["nimg"], fourth["best"]["copied:fd_lab"]["fresh"]) == (
        400,
        3.3,
    )


def test_a_finished_run_that_lacks_it_is_measured_without_training(
    run: Callable[..., tuple[Record, Judge]], engine: Engine, tmp_path: Path
) -> None:
    record, _ = run([9.0, 5.0, 7.0, 8.0], replace(SPEC, eval=replace(EVAL, best=())))
    assert "best" not in record
    assert records.run_state(SPEC, tmp_path).note == "to measure at the best: copied:fd_lab"
    engine.trained.clear()
    record, _ = run([5.5])
    assert record["best"]["copied:fd_lab"]["fresh"] == 5.5 and engine.trained == []


def test_a_lost_generator_costs_the_fresh_value_alone(
    run: Callable[..., tuple[Record, Judge]], tmp_path: Path
) -> None:
    run([9.0, 5.0, 7.0, 8.0], replace(SPEC, eval=replace(EVAL, best=())))
    RunPaths(tmp_path / SPEC.run_id).snapshot(200).unlink()
    record, judge = run([])
    assert record["status"] == "finished" and "best" not in record and judge.seen == []


def test_what_is_measured_again_follows_from_the_columns(tmp_path: Path) -> None:
    def best(columns: str, extra: str = "") -> tuple[str, ...]:
        path = tmp_path / "made.yaml"
        path.write_text(
            f"name: made\nabout: x\nrows: [{{label: A}}]\neval: {{metrics: [fd, kid]{extra}}}\n"
            f"report: {{rank_by: fd, columns: [{columns}]}}\n"
        )
        (spec,) = {run.eval.best for run in grids.load(str(path)).runs}
        return spec

    assert best("fd") == ()
    assert best('fd, "best:fd"') == ("fd_lab",)
    assert best("fd", ", best: true") == ("fd_lab", "kid_lab")
    assert best('fd, "best:fd"', ", best: false") == ()


BEST = ReportSpec(rank_by="fd_lab", columns=("fd_lab", "best:fd_lab"))


def test_the_table_shows_the_fresh_value_and_the_gap(tmp_path: Path) -> None:
    grid = make_grid({"A": {}}, BEST)
    (spec,) = grid.runs
    curve = {1000: {"fd_lab": 9.0}, 2000: {"fd_lab": 3.0}, 4000: {"fd_lab": 4.0}}

    def table(**changes: Any) -> str:
        write_record(tmp_path, spec, make_record(spec, curve, **changes))
        return to_markdown(main_table.build(Facts.read(grid, tmp_path)))

    fresh = {"nimg": 2000, "chosen": 3.0, "fresh": 3.25}
    text = table(best={"fd_lab": fresh})
    assert "| row | FD-lab | best FD-lab | FD-lab gap |" in text
    assert "| A | 4.00 | 3.25 | 0.250 |" in text and "picked after looking" not in text
    for old in ({}, {"best": {"fd_lab": {**fresh, "chosen": 3.5}}}, {"best": [1]}):
        text = table(**old)  # never measured, chosen from another curve, damaged
        assert "| A | 4.00 | 3.00ᵃ | –ᵇ |" in text and "ᵃ picked after looking" in text


def test_by_simulation_the_best_value_is_optimistic_and_the_fresh_one_is_not(
    tmp_path: Path,
) -> None:
    """200 runs of 20 snapshots that are all alike: 10, measured with 1 % noise."""
    rng = np.random.default_rng(0)
    grid = make_grid({"A": {}}, BEST, seeds=range(200))
    for spec in grid.runs:
        wanted = replace(spec, eval=replace(spec.eval, best=("fd_lab",)))
        values = 10 + 0.1 * rng.standard_normal(20)
        record = make_record(spec, {200 * (i + 1): {"fd_lab": v} for i, v in enumerate(values)})
        loaded = records.load(write_record(tmp_path, spec, record))
        assert loaded is not None
        nimg, chosen = records.best_chosen(loaded, wanted)["copied:fd_lab"]
        fresh = 10 + 0.1 * rng.standard_normal()
        record["best"] = {"fd_lab": {"nimg": nimg, "chosen": chosen, "fresh": fresh}}
        write_record(tmp_path, spec, record)
    (cell,) = cells(read_runs(grid.runs, tmp_path))
    picked, fresh_best = cell.best("fd_lab"), cell.fresh_best("fd_lab")
    assert picked is not None and fresh_best is not None and fresh_best.n == 200
    assert fresh_best.mean == pytest.approx(10, abs=0.025)  # standard error 0.007
    assert picked.mean == pytest.approx(10 - 0.187, abs=0.03)  # the mean smallest of 20
