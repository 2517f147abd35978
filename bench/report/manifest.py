"""manifest.json: what leads from every cell of a report back to the runs behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.cells import Cell, Run
from bench.config.metrics import record_key, version
from bench.config.spec import Grid
from projgan.errors import DataError, reason
from projgan.files import sha256_of, write_text_atomic

_PATHS = ("data.path", "backbone.weights")  # fields that may hold a path


def make(grid: Grid, cells: Sequence[Cell], hashes: Mapping[str, str]) -> dict[str, Any]:
    """What leads from every cell back to its runs; the same records give the same manifest."""
    points = (point for cell in cells for run in cell.runs for point in run.points)
    found = sorted(
        {record_key(key, grid.eval.norms) for p in points for key in p.metrics | p.missing}
    )
    return {
        "schema": 1,
        "grid": grid.name,
        "about": grid.about,
        "scale": grid.scale,
        "rank_by": grid.report.rank_by,
        "paper": grid.report.paper,
        "overrides": public(grid.overrides),
        "target": grid.report.target,
        "seeds": list(grid.seeds),
        "norms": grid.eval.norms,
        "versions": {key: version(key) for key in found},
        "cells": [
            {"cell": cell.name, "axes": dict(cell.axes), "runs": [evidence(r) for r in cell.runs]}
            for cell in cells
        ],
        "files": dict(hashes),
    }


def write(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes a manifest as JSON with a line for each run, which is quick to read and to compare.

    Of ten thousand runs json's own indented form takes seconds: Python writes it, not C.
    """
    cells = []
    for cell in manifest["cells"]:
        head = json.dumps({k: v for k, v in cell.items() if k != "runs"}, allow_nan=False)
        runs = ",\n".join(f"   {json.dumps(run, allow_nan=False)}" for run in cell["runs"])
        cells.append(f'  {head[:-1]}, "runs": [\n{runs}\n  ]}}')
    files = json.dumps(manifest["files"], indent=1, allow_nan=False).replace("\n", "\n ")
    parts = [
        f' "{key}": {json.dumps(value, allow_nan=False)}'
        for key, value in manifest.items()
        if key not in ("cells", "files")
    ]
    parts += [' "cells": [\n' + ",\n".join(cells) + "\n ]", f' "files": {files}']
    write_text_atomic(path, "{\n" + ",\n".join(parts) + "\n}\n")


def public(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as a report shows them: of a path its last part, as the rest is the machine's."""

    def shown(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [shown(part) for part in value]
        return Path(value).name if isinstance(value, str) else value

    return {k: shown(value) if k in _PATHS else value for k, value in overrides.items()}


def previous(folder: Path) -> dict[str, str]:
    """Name -> hash of what an earlier report wrote here."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a report.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        cells = {
            cell["cell"]: {run["run_id"]: run for run in cell["runs"]} for cell in found["cells"]
        }
    except FileNotFoundError:
        raise DataError(f"{path} is not there; do=report writes it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({reason(error)}); do=report writes it again"
        ) from None
    if not isinstance(found.get("files"), dict) or not cells:
        raise DataError(f"{path} names no files; do=report writes it again")
    result: dict[str, Any] = found
    return result


def as_overrides(found: Mapping[str, Any]) -> list[str]:
    """A report's overrides as `key=value`, those apart that hold a path's last part alone."""
    given = (found.get("overrides") or {}).items()
    return [f"{key}={json.dumps(value)}" for key, value in given if key not in _PATHS]


def remove_stale(folder: Path, before: Mapping[str, str], now: Mapping[str, bytes]) -> None:
    """Removes what an earlier report wrote and this one did not, if nobody changed it since."""
    for name in before.keys() - now.keys():
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and path.is_file() and sha256_of(path) == before[name]:
            path.unlink()


def evidence(run: Run) -> dict[str, Any]:
    record = run.record or {}
    found: dict[str, Any] = {
        "run_id": run.spec.run_id,
        "status": run.status,
        "reason": run.reason or None,
        "seed": run.spec.config.train.seed,
        "recipe_version": record.get("recipe_version"),
        "config_sha256": run.config_sha256,
        "data": record.get("data"),
        "backbone": record.get("backbone"),
        "environment": record.get("environment"),
        "eval": run.final.eval if run.final else None,
        "metrics": run.final.metrics if run.final else None,
        "apart": run.incomparable or None,
        "intervals": run.final.intervals if run.final else None,
        "certificates": run.final.certificates if run.final else None,
    }
    return found
