"""do=compare: runs, or the rows of two grids, against each other as a report of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.analysis import cells as aggregate
from bench.config import columns as vocabulary
from bench.config.metrics import grid_key, metric_keys
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, Grid, ReportSpec, Row, RunSpec, flatten
from bench.store import record as records
from projgan.config import from_dict
from projgan.errors import UserError, unknown

BESIDE = ("params_m", "images_per_s", "train_s")  # of every run, beside the metrics


def of_runs(ids: Sequence[str], runs_dir: Path, target: str | None = None) -> Grid:
    """Runs as the rows of a grid; all are held against the first.

    Args:
        ids: of runs in `runs_dir`.
        runs_dir: their folder.
        target: what shall be reached. None = the best of the first run.

    Raises:
        UserError: fewer than two, one twice, or one that is not there.
    """
    _several("runs", ids)
    files = [*runs_dir.glob("*/spec.json"), *runs_dir.glob("*/record.json")]
    known = sorted({path.parent.name for path in files})
    for name in ids:
        if name not in known:
            there = unknown(f"run in {runs_dir}", name, known)
            raise UserError(there if known else f"{runs_dir} holds no run; give runs_dir=FOLDER")
    specs = [_spec(runs_dir / name) for name in ids]
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):  # the same cell and seed, configured otherwise
        names = [f"{name} · {id}" for name, id in zip(names, ids, strict=True)]
    runs = [replace(s, row=n, axes={}) for s, n in zip(specs, names, strict=True)]
    runs = _alike(runs)
    metric = _metric(runs)
    report = ReportSpec(
        rank_by=metric,
        columns=(*_common(runs), *BESIDE),
        compare_to=names[0],
        target=target or f"row:{names[0]}",
    )
    return Grid(
        name=_folder(ids),
        about=f"runs against each other: {' and '.join(ids)}",
        scale=" and ".join(dict.fromkeys(spec.scale for spec in specs)),
        rows=tuple(Row(name) for name in names),
        axes={},
        seeds=tuple(sorted({spec.config.train.seed for spec in specs})),
        eval=specs[0].eval,
        report=report,
        runs=tuple(runs),
    )


def _spec(folder: Path) -> RunSpec:
    """What a run was asked for; of a published one, what its record says of that."""
    paths = RunPaths(folder)
    if paths.spec.is_file():
        return RunSpec.read(paths.spec)
    record = records.load(paths.record) or {}
    points = record.get("snapshots") or []
    if not points:
        raise UserError(f"{paths.record} holds no snapshot to compare")
    done = points[-1]["eval"]
    keys = list(points[-1]["metrics"])
    norms = "standing" if any(key.startswith("standing:") for key in keys) else "copied"
    metrics = tuple(grid_key(key, norms) for key in keys)
    measured = EvalSpec(metrics=metrics, fake=done["fake"], norms=norms)
    config = from_dict(record["config"])
    network = (record.get("backbone") or {}).get("label") or config.discriminator.kind
    network += ", random weights" if config.backbone.weights == "random" else ""
    return RunSpec("published", network, {}, record["scale"], config, measured)


def of_grids(grids: Sequence[Grid], runs_dir: Path, target: str | None = None) -> Grid:
    """Grids row by row: rows of one label (and axis values) are paired by seed.

    Args:
        grids: two or more; all are held against the first.
        runs_dir: of their records.
        target: what shall be reached. None = the median of the best values of the first's rows.

    Raises:
        UserError: fewer than two, one twice, or no metric that all have.
    """
    names = [grid.name for grid in grids]
    _several("grids", names)
    # An axis that only some of the grids have is a fixed setting of the others.
    axes = {key: values for grid in grids for key, values in grid.axes.items()}
    runs = []
    for grid in grids:
        for spec in grid.runs:
            settings = flatten(spec.config)
            at = {key: spec.axes.get(key, settings[key]) for key in axes}
            runs.append(replace(spec, axes={**at, "grid": grid.name}))
    runs = _alike(runs)
    metric = _metric(runs)
    labels = dict.fromkeys(row.label for grid in grids for row in grid.rows)
    report = ReportSpec(
        rank_by=metric,
        columns=(*_common(runs), *BESIDE),
        compare_to=f"grid={names[0]}",
        target=target or _usual_best(grids[0], runs_dir, metric),
    )
    return Grid(
        name=_folder(names),
        about=f"grids against each other: {' and '.join(names)}",
        scale=grids[0].scale,
        rows=tuple(Row(label) for label in labels),
        axes={**axes, "grid": tuple(names)},
        seeds=tuple(sorted({seed for grid in grids for seed in grid.seeds})),
        eval=grids[0].eval,
        report=report,
        runs=tuple(runs),
    )


def _alike(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """The runs as measured with the first one's norms: others are other numbers."""
    norms = runs[0].eval.norms
    return [replace(spec, eval=replace(spec.eval, norms=norms)) for spec in runs]


def _several(key: str, names: Sequence[str]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{key}={','.join(names)}: give two or more, each once, as {key}=A,B")


def _common(runs: Sequence[RunSpec]) -> list[str]:
    """The metrics that all runs are measured in, in the first run's order."""
    each = [metric_keys(spec.eval.metrics) for spec in runs]
    return [key for key in each[0] if all(key in keys for keys in each)]


def _metric(runs: Sequence[RunSpec]) -> str:
    common = _common(runs)
    if not common:
        raise UserError("do=compare: no metric was asked of all of them; compare others")
    return common[0]


def _usual_best(grid: Grid, runs_dir: Path, metric: str) -> str | None:
    """A value that about half of a grid's rows reach; None = none of its runs has the metric."""
    cells = aggregate.cells(aggregate.read_runs(grid.runs, runs_dir))
    lower = vocabulary.lower_is_better(metric)
    bests = [stat.mean for cell in cells if (stat := cell.best(metric, lower))]
    return f"{median(bests):.3g}" if bests else None


def _folder(names: Sequence[str]) -> str:
    return "compare-" + "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", name) for name in names)
