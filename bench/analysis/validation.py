"""Checks of a grid's report section, before anything is trained."""

from __future__ import annotations

from bench.analysis import feature_overlap, paper_numbers, target
from bench.config import yaml_types
from bench.config.columns import expand
from bench.config.metrics import METRICS
from bench.config.spec import STATISTICS, Grid, value_name
from projgan.errors import ConfigError, unknown


def validate(grid: Grid, narrowed: bool = False) -> Grid:
    """Refuse what a report could not show, before anything is trained.

    Args:
        grid: as `config.grid.load` gives it; it is returned.
        narrowed: whether rows were left out: then those that others are held against may be.

    Raises:
        ConfigError: an unknown column, ranking metric, target or table of the paper, a row that
            is compared with and not there, a ranking metric whose network learned from what a
            backbone learned from, or a row that picks no line of the paper's table.
    """
    with yaml_types.at(f"{grid.name}.yaml: report"):
        _check_comparison(grid, narrowed)
        _check_shown(grid)
    return grid


def _check_comparison(grid: Grid, narrowed: bool) -> None:
    report, labels = grid.report, [row.label for row in grid.rows]
    if report.compare_to is not None and not narrowed:
        axes = [f"{k}={value_name(k, v)}" for k, values in grid.axes.items() for v in values]
        replaced = report.compare_to.partition("=")[0] in grid.overrides
        if report.compare_to not in (known := [*labels, *axes]) and not replaced:
            raise ConfigError(unknown("report.compare_to", report.compare_to, known))
    if report.target is not None:
        target.check(report.target, report.rank_by, labels, narrowed)


def _check_shown(grid: Grid) -> None:
    report = grid.report
    expand(report.columns)
    if report.rank_by is not None and report.rank_by not in METRICS:
        raise ConfigError(unknown("rank_by metric", report.rank_by, METRICS))
    if report.statistic not in STATISTICS:
        raise ConfigError(unknown("statistic", report.statistic, STATISTICS))
    if report.rank_by and not report.rank_despite_leakage:
        _check_ranking(grid, report.rank_by)
    if report.paper:
        chosen = {row.label: row.paper for row in grid.rows}
        of_each_cell = {(run.row, repr(run.axes)): run for run in grid.runs}
        for run in of_each_cell.values():
            paper_numbers.paper_row(report.paper, run, chosen.get(run.row))


def _check_ranking(grid: Grid, metric: str) -> None:
    shared = feature_overlap.shared_by(grid.runs, metric)
    if shared:
        row, reason = next(iter(shared.items()))
        raise ConfigError(
            f"rank_by: {metric} cannot rank row {row!r} ({reason}): rank by another metric, or "
            "give the reason for it as rank_despite_leakage"
        )
