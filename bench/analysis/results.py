"""Records as one tidy pandas DataFrame: a line for each run, snapshot, metric and norms.

`bench.load_results` is the public door; docs/python.md lists the columns with their units.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.metrics import METRICS
from bench.config.spec import RunSpec
from bench.store import record as records
from projgan.config import from_dict
from projgan.errors import DataError

# Column -> pandas dtype, in order; a column for each axis follows. docs/python.md explains each.
COLUMNS: dict[str, str] = {
    "grid": "str", "row": "str", "scale": "str", "run_id": "str", "status": "str",
    "seed": "Int64", "pretrain_seed": "Int64", "images": "Int64", "train_s": "float64",
    "final": "boolean", "metric": "str", "norms": "str", "value": "float64", "low": "float64",
    "high": "float64", "unit": "str", "lower_is_better": "boolean", "version": "Int64",
    "stale": "boolean", "fake": "Int64", "real": "Int64", "images_per_s": "float64",
    "device": "str",
}  # fmt: skip


def load_results(runs_dir: str | Path = "runs", grid: str | None = None) -> pd.DataFrame:
    """Load every measured value below a folder of runs as a tidy DataFrame.

    Args:
        runs_dir: Folder that holds one folder per run, such as `runs` or the published
            `results/reference/records`.
        grid: Name of a grid: its runs alone. None = the runs of all grids, and those of none.

    Returns:
        One line per run × snapshot × metric × norms, sorted as the grids list their runs; the
        columns of `COLUMNS` and one for each axis (NaN where a run does not vary it). A run that
        several grids share has lines for each of them. A run without a value has one line.

    Raises:
        DataError: There is no such folder, or it holds no run of `grid`.
        UserError: A record is damaged; the line names the file.
    """
    folder = Path(runs_dir)
    if not folder.is_dir():
        raise DataError(f"runs_dir={folder}: there is no such folder")
    places = _places(folder)
    lines = []
    for path in sorted(folder.glob("*/record.json")):
        record = records.load(path)
        if record is None:
            continue
        found = places.get(path.parent.name) or [{"grid": None, "row": None, "axes": {}}]
        for place in found:
            if grid is None or place["grid"] == grid:
                lines += list(_lines(record, place))
    if grid is not None and not lines:
        raise DataError(f"{folder} holds no run of grid={grid}; do=plan shows where its runs stand")
    axes = dict.fromkeys(key for line in lines for key in line if key not in COLUMNS)
    frame = pd.DataFrame(lines, columns=[*COLUMNS, *axes])
    return frame.astype(COLUMNS)


def _places(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The grids that a run stands in, by its id: grid, row and axis values.

    A run's spec.json names the grid that it was begun for; the manifest of every report beside the
    folder (`results/*/`, `results/reference/*/`) names those that share it.
    """
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for path in folder.glob("*/spec.json"):
        try:
            spec = RunSpec.read(path)
        except DataError:
            continue  # of another version: the record still says what was trained
        place: dict[str, Any] = {"grid": spec.grid, "row": spec.row, "axes": dict(spec.axes)}
        found.setdefault(path.parent.name, {})[spec.grid, spec.row] = place
    reports = [
        *folder.parent.glob("*/manifest.json"),
        *folder.parent.glob("results/*/manifest.json"),
    ]
    for path in sorted(reports):
        for run_id, place in _reported(path):
            found.setdefault(run_id, {})[place["grid"], place["row"]] = place
    return {run_id: list(places.values()) for run_id, places in found.items()}


def _reported(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The runs of a report, each with its place there; none where the file is no report's."""
    found: list[tuple[str, dict[str, Any]]] = []
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for cell in manifest["cells"]:
            axes = cell["axes"]
            row = cell["cell"].rsplit(" · ", len(axes))[0] if axes else cell["cell"]
            place = {"grid": manifest["grid"], "row": row, "axes": axes}
            found += [(run["run_id"], place) for run in cell["runs"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # of something else that lies beside the runs
    return found


def _lines(record: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of one run in one grid."""
    config = from_dict(record["config"])
    axes = {k: tuple(v) if isinstance(v, list) else v for k, v in place["axes"].items()}
    run = {
        "grid": place["grid"], "row": place["row"], "scale": record.get("scale"),
        "run_id": record["run_id"], "status": record["status"], "seed": config.train.seed,
        "pretrain_seed": config.backbone.pretrain_seed,
        "images_per_s": record["throughput"].get("images_per_s"),
        "device": record["environment"].get("device"),
    } | axes  # fmt: skip
    last = max((s["nimg"] for s in record["snapshots"]), default=None)
    empty = True
    for snapshot in sorted(record["snapshots"], key=lambda s: s["nimg"]):
        done = snapshot.get("eval") or {}
        for key, value in snapshot["metrics"].items():
            norms, _, name = key.rpartition(":")
            low, high = (snapshot.get("intervals") or {}).get(key) or (None, None)
            known = METRICS.get(name)
            empty = False
            yield run | {
                "images": snapshot["nimg"], "train_s": snapshot["train_seconds"],
                "final": snapshot["nimg"] == last, "metric": name, "norms": norms or None,
                "value": value, "low": low, "high": high, "unit": known.unit if known else "",
                "lower_is_better": known.lower_is_better if known else None,
                "version": (snapshot.get("versions") or {}).get(key, 1),
                "stale": records.is_stale(snapshot, key),
                "fake": done.get("fake"), "real": done.get("real"),
            }  # fmt: skip
    if empty:
        yield run
