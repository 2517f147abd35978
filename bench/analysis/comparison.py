"""Grids made of runs or of other grids, so that a report holds them against each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.analysis.cells import cells, read_runs
from bench.config.columns import lower_is_better
from bench.config.metrics import grid_key, metric_keys
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, Grid, ReportSpec, Row, RunSpec, flatten
from bench.store import record as records
from projgan.config import from_dict
from projgan.errors import UserError, unknown

BESIDE = ("params_m", "images_per_s", "train_s")  # columns beside the metrics


def of_runs(ids: Sequence[str], runs_dir: Path, target: str | None = None) -> Grid:
    """Runs as the rows of a grid, compared with the first.

    Args:
        ids: names of folders in `runs_dir`.
        runs_dir: holds one folder per run.
        target: what shall be reached. None = the best of the first run.

    Raises:
        UserError: fewer than two, one twice, or one that is not there.
    """
    _check_several("runs", ids)
    files = [*runs_dir.glob("*/spec.json"), *runs_dir.glob("*/record.json")]
    known = sorted({path.parent.name for path in files})
    for name in ids:
        if name not in known:
            message = unknown(f"run in {runs_dir}", name, known)
            raise UserError(message if known else f"{runs_dir} holds no run; give runs_dir=FOLDER")
    specs = [_spec(runs_dir / name) for name in ids]
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):  # the same cell and seed, configured otherwise
        names = [f"{name} · {id}" for name, id in zip(names, ids, strict=True)]
    runs = [replace(s, row=n, axes={}) for s, n in zip(specs, names, strict=True)]
    scales = " and ".join(dict.fromkeys(spec.scale for spec in specs))
    return _grid("runs", ids, runs, names, {}, scales, names[0], target or f"row:{names[0]}")


def of_grids(grids: Sequence[Grid], runs_dir: Path, target: str | None = None) -> Grid:
    """Grids row by row, compared with the first: rows of one label (and axis values) are paired by
    seed.

    Args:
        grids: two or more.
        runs_dir: holds one folder per run.
        target: what shall be reached. None = the median of the best values of the first's rows.

    Raises:
        UserError: fewer than two, one twice, or no metric that all have.
    """
    names = [grid.name for grid in grids]
    _check_several("grids", names)
    # An axis that only some of the grids have is a fixed setting of the others.
    axes = {key: values for grid in grids for key, values in grid.axes.items()}
    runs = []
    for grid in grids:
        for spec in grid.runs:
            settings = flatten(spec.config)
            at = {key: spec.axes.get(key, settings[key]) for key in axes}
            runs.append(replace(spec, axes={**at, "grid": grid.name}))
    labels = list(dict.fromkeys(row.label for grid in grids for row in grid.rows))
    axes["grid"] = tuple(names)
    first = grids[0]
    made = _grid("grids", names, runs, labels, axes, first.scale, f"grid={names[0]}", target)
    if target is None:
        usual = _median_best(first, runs_dir, str(made.report.rank_by))
        made = replace(made, report=replace(made.report, target=usual))
    return made


def _grid(
    kind: str,
    names: Sequence[str],
    runs: Sequence[RunSpec],
    labels: Sequence[str],
    axes: Mapping[str, tuple[Any, ...]],
    scale: str,
    compare_to: str,
    target: str | None,
) -> Grid:
    """A grid of these runs with the metrics that all of them are measured in."""
    # As measured with the first one's norms: others are other numbers.
    norms = runs[0].eval.norms
    runs = [replace(spec, eval=replace(spec.eval, norms=norms)) for spec in runs]
    measured = [metric_keys(spec.eval.metrics) for spec in runs]
    common = [key for key in measured[0] if all(key in keys for keys in measured)]
    if not common:
        raise UserError("do=compare: no metric was asked of all of them; compare others")
    slug = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", name) for name in names)
    return Grid(
        name=f"compare-{slug}",
        about=f"{kind} against each other: {' and '.join(names)}",
        scale=scale,
        rows=tuple(map(Row, labels)),
        axes=axes,
        seeds=tuple(sorted({spec.config.train.seed for spec in runs})),
        eval=runs[0].eval,
        report=ReportSpec(
            rank_by=common[0], columns=(*common, *BESIDE), compare_to=compare_to, target=target
        ),
        runs=tuple(runs),
    )


def _check_several(key: str, names: Sequence[str]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{key}={','.join(names)}: give two or more, each once, as {key}=A,B")


def _spec(folder: Path) -> RunSpec:
    """The description of a run; that of a published one is made from its record."""
    paths = RunPaths(folder)
    if paths.spec.is_file():
        return RunSpec.read(paths.spec)
    record = records.load(paths.record) or {}
    if not record.get("snapshots"):
        raise UserError(f"{paths.record} holds no snapshot to compare")
    last = record["snapshots"][-1]
    norms = "standing" if any(key.startswith("standing:") for key in last["metrics"]) else "copied"
    metrics = tuple(grid_key(key, norms) for key in last["metrics"])
    measured = EvalSpec(metrics=metrics, fake=last["eval"]["fake"], norms=norms)
    config = from_dict(record["config"])
    network = (record.get("backbone") or {}).get("label") or config.discriminator.kind
    network += ", random weights" if config.backbone.weights == "random" else ""
    return RunSpec("published", network, {}, record["scale"], config, measured)


def _median_best(grid: Grid, runs_dir: Path, metric: str) -> str | None:
    """A value that about half of a grid's rows reach; None = none of its runs has the metric."""
    lower = lower_is_better(metric)
    found = cells(read_runs(grid.runs, runs_dir))
    bests = [stat.mean for cell in found if (stat := cell.best(metric, lower))]
    return f"{median(bests):.3g}" if bests else None
