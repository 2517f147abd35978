"""Speed of the harness at ten thousand runs: plan, status and report, of few and of many rows.

Records are as long as those that the project publishes. Processor time, which other work on the
machine hardly changes, comes with `--benchmark-timer=time.process_time`.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.analysis.cells import cells, read_runs
from bench.cli import main
from bench.config import columns as vocabulary
from bench.config import grid as grids
from bench.config.paths import PUBLISHED, ROOT
from bench.config.spec import Grid
from bench.dispatch import slurm_queue
from bench.store.record import protocol

RUNS = 10_000
NETWORKS = [f"efficientnet_lite{i}" for i in range(5)]


def write_grid(path: Path, rows: int, axes: dict[str, list[Any]]) -> Path:
    """A grid whose rows differ in the network and the learning rate."""
    at = range(RUNS // rows)
    for values in axes.values():
        at = at[: len(at) // len(values)]
    text = {
        "name": path.stem,
        "about": "as many rows, and as many seeds as make ten thousand runs",
        "rows": [
            {
                "label": f"row {i}",
                "set": {"backbone.name": NETWORKS[i % 5], "optim.lr_d": 1e-4 * (1 + i // 5)},
            }
            for i in range(rows)
        ],
        "axes": axes,
        "seeds": list(at),
        "eval": {"metrics": ["fd", "kid", "fd_levels"]},
        "report": {"rank_by": "fd", "baseline": "row 0", "columns": ["params_m", "fd", "kid"]},
    }
    path.write_text(json.dumps(text))  # which is YAML
    return path


def write_records(grid: Grid, runs_dir: Path) -> None:
    """A finished record for every run: a published one with numbers that differ."""
    published = next((ROOT / "results" / PUBLISHED / "records").glob("*/record.json"))
    record = json.loads(published.read_text())
    stages, luck = record["snapshots"], random.Random(0)
    for spec in grid.runs:
        worse = 1 + luck.gauss(0.0, 0.1)
        snapshots = [
            stage
            | {
                "nimg": nimg,
                "metrics": {k: worse * v for k, v in stage["metrics"].items()},
                "eval": stage["eval"] | protocol(spec),
            }
            for nimg, stage in zip(spec.snapshot_at, itertools.cycle(stages), strict=False)
        ]
        made = record | {"run_id": spec.run_id, "config": spec.to_json()["config"]}
        (folder := runs_dir / spec.run_id).mkdir(parents=True)
        text = json.dumps(made | {"snapshots": snapshots}, indent=1)
        (folder / "record.json").write_text(text)


@pytest.fixture(scope="module", params=[10, 100], ids=["10 rows", "100 rows"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`grid=` and `runs_dir=` of ten thousand finished runs."""
    folder = tmp_path_factory.mktemp("harness")
    path = write_grid(folder / "made.yaml", request.param, {})
    write_records(grids.load(str(path)), folder / "runs")
    return [f"grid={path}", f"runs_dir={folder / 'runs'}"]


def timed(benchmark: BenchmarkFixture, work: Callable[[], object], rounds: int = 3) -> None:
    benchmark.pedantic(work, rounds=rounds)
    benchmark.extra_info["runs"] = RUNS


def commanded(benchmark: BenchmarkFixture, *words: str) -> None:
    def whole() -> None:
        assert main.main(list(words)) == 0

    timed(benchmark, whole)


def test_grid_expansion(benchmark: BenchmarkFixture) -> None:
    timed(benchmark, lambda: grids.load("backbones", seeds=range(RUNS // 10)))


def test_plan_of_a_new_grid(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    axes = {"data.subset": [100, 300, 1000, 3000, 8000], "generator.width": [8, 12, 16, 20]}
    path = write_grid(tmp_path / "axes.yaml", 10, axes)
    commanded(benchmark, f"grid={path}", "do=plan", f"runs_dir={tmp_path / 'runs'}")


@pytest.mark.parametrize("verb", ["plan", "status"])
def test_finished_runs(benchmark: BenchmarkFixture, made: list[str], verb: str) -> None:
    commanded(benchmark, f"do={verb}", *made)


def test_report(benchmark: BenchmarkFixture, made: list[str], tmp_path: Path) -> None:
    commanded(benchmark, "do=report", *made, f"results_dir={tmp_path}")


def test_run_states(benchmark: BenchmarkFixture, made: list[str]) -> None:
    grid, runs_dir = (word.partition("=")[2] for word in made)
    specs = grids.load(grid).runs
    timed(benchmark, lambda: slurm_queue.run_states(specs, Path(runs_dir)))


def test_aggregation(benchmark: BenchmarkFixture, made: list[str]) -> None:
    """Records to the values of a table."""
    name, runs_dir = (word.partition("=")[2] for word in made)
    grid = grids.load(name)

    def values() -> None:
        for cell in cells(read_runs(grid.runs, Path(runs_dir))):
            for key in vocabulary.expand(grid.report.columns):
                cell.stat(key)

    timed(benchmark, values)
