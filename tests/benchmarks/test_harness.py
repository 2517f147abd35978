"""Speed of the harness on ten thousand runs: expanding a grid, standings, aggregation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from made_records import make_record, write_record

from bench import columns, jobs
from bench import grid as grids
from bench.aggregate import cells, read_runs
from bench.spec import Grid

SEEDS = range(1000)
METRICS = ("fd_lab", "kid_lab", "fd_l1", "fd_l2", "fd_l3", "fd_l4")


@pytest.fixture(scope="module")
def grid() -> Grid:
    return grids.load("backbones", seeds=SEEDS)


@pytest.fixture(scope="module")
def runs_dir(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for number, spec in enumerate(grid.runs):
        curve = {n: dict.fromkeys(METRICS, 10 + number / 7) for n in spec.snapshot_at}
        write_record(folder, spec, make_record(spec, curve))
    return folder


def test_grid_expansion(benchmark: BenchmarkFixture) -> None:
    benchmark.pedantic(lambda: grids.load("backbones", seeds=SEEDS), rounds=3)
    benchmark.extra_info["runs"] = 10 * len(SEEDS)


def test_standings(benchmark: BenchmarkFixture, grid: Grid, runs_dir: Path) -> None:
    benchmark.pedantic(lambda: jobs.standings(grid.runs, runs_dir), rounds=3)


def test_aggregation(benchmark: BenchmarkFixture, grid: Grid, runs_dir: Path) -> None:
    """Records to the values of a table."""

    def values() -> None:
        for cell in cells(read_runs(grid.runs, runs_dir)):
            for key in columns.expand(grid.report.columns):
                cell.stat(key)

    benchmark.pedantic(values, rounds=3)
