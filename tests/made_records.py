"""Made-up grids and run folders for the tests of the report side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.cells import Cell
from bench.analysis.facts import Facts
from bench.config.metrics import record_key, version
from bench.config.spec import EvalSpec, Grid, ReportSpec, Row, RunSpec
from bench.store.record import SCHEMA, protocol
from projgan.config import from_dict

LAB = {
    "data": {"name": "clevr", "resolution": 32, "images": 8192},
    "train": {"total_kimg": 4, "batch": 32},
}


def make_grid(
    rows: Mapping[str, Mapping[str, Any]],
    report: ReportSpec,
    axes: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0,),
    name: str = "made",
    scale: str = "lab",
) -> Grid:
    """A grid of one axis at most; rows are dotted settings by label."""
    runs = []
    ((key, values),) = (axes or {"": (None,)}).items()
    for label, settings in rows.items():
        for value in values:
            for seed in seeds:
                at = {key: value} if key else {}
                nested: dict[str, dict[str, Any]] = {k: dict(v) for k, v in LAB.items()}
                for dotted, setting in {**settings, **at, "train.seed": seed}.items():
                    group, field = dotted.split(".")
                    nested.setdefault(group, {})[field] = setting
                runs.append(RunSpec(name, label, at, scale, from_dict(nested), EvalSpec(fake=2000)))
    return Grid(
        name=name,
        about="a made grid",
        scale=scale,
        rows=tuple(Row(label, settings) for label, settings in rows.items()),
        axes={k: tuple(v) for k, v in (axes or {}).items()},
        seeds=tuple(seeds),
        eval=EvalSpec(fake=2000),
        report=report,
        runs=tuple(runs),
    )


def make_record(
    spec: RunSpec, curve: Mapping[int, Mapping[str, float]], **changes: Any
) -> dict[str, Any]:
    """A finished record; `curve` is metrics by number of images, measured as `spec` asks for."""
    norms = spec.eval.norms
    if norms != "copied":  # otherwise it is of the first schema
        changes |= {"schema": SCHEMA}
        curve = {
            n: {record_key(k, norms): v for k, v in values.items()} for n, values in curve.items()
        }
    return {
        "schema": 1,
        "run_id": spec.run_id,
        "status": "finished",
        "error": None,
        "scale": "lab",
        "recipe_version": 1,
        "config": spec.to_json()["config"],
        "backbone": {
            "name": spec.config.backbone.name,
            "label": spec.row,
            "params_m": 0.251,
            "accuracy": 81.25,
            "accuracy_kind": "top-1, %",
        },
        "params": {"generator_m": 0.4, "discriminator_m": 0.6},
        "data": {"name": "clevr", "fingerprint": "f00d", "images": 8192},
        "snapshots": [
            {
                "nimg": nimg,
                "train_seconds": nimg / 100,
                "metrics": dict(metrics),
                "versions": {record_key(k, norms): version(record_key(k, norms)) for k in metrics},
                "eval": {"seconds": 1.0, "real": 8192, **protocol(spec)},
                "samples": picture if norms == "copied" else {norms: picture},
            }
            for nimg, metrics in curve.items()
            for picture in [f"samples/{nimg:09d}.png"]
        ],
        "throughput": {"images_per_s": 100.0, "warmup_seconds": 1.0},
        "memory": {"peak_mb": 812.4, "kind": "rss"},
        "time": {"train_s": 40.0, "eval_s": 10.0, "total_s": 51.0},
        "environment": {"python": "3.11", "commit": "abc", "device": "cpu"},
        "started": "2000-01-01T00:00:00",
        "ended": "2000-01-01T00:01:00",
        **changes,
    }


def facts_of(grid: Grid, cells: Sequence[Cell]) -> Facts:
    """The facts of cells that were made before."""
    return Facts(grid, [run for cell in cells for run in cell.runs])


def write_record(runs_dir: Path, spec: RunSpec, record: Mapping[str, Any]) -> Path:
    folder = runs_dir / spec.run_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "record.json"
    path.write_text(json.dumps(record))
    return path
