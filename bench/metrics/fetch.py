"""do=fetch-weights: every file of weights that a grid needs, before its jobs have no network.

One flat folder holds them all. What is there is left, what can be fetched is fetched, and for the
rest one line says what the file is called, where it is published and where to place it. Hashes
are kept in the folder's `weights.json`, and a file that is not what it was is told.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.metrics import METRICS, metric_keys
from bench.config.spec import Grid
from projgan.backbones import registry
from projgan.config import Backbone
from projgan.errors import UserError, reason
from projgan.files import replacing, sha256_of, write_json_atomic
from projgan.weights import beside, installed, placed, weights_dir

Echo = Callable[[str], None]
LEDGER = "weights.json"


@dataclass(frozen=True)
class Need:
    """One file.

    Attributes:
        name: of the file in the folder, without its suffix where several are accepted.
        wants: the rows' backbones and the metrics that need it.
        get: fetches it or finds it; raises a UserError that says how to place it by hand.
    """

    name: str
    wants: str
    get: Callable[[], Path]


def needs(grid: Grid) -> list[Need]:
    """What the runs of a grid load and does not ship with the package."""
    found: dict[str, Need] = {}
    for run in grid.runs:
        chosen = [] if run.config.discriminator.on_images else [run.config.backbone]
        keys = metric_keys(run.eval.metrics)
        if any(METRICS[key].extractor == "levels" for key in keys):
            chosen.append(run.judge)
        for part in (p for backbone in chosen for p in registry.parts(backbone)):
            if part.zoo == "imagenet" and part.weights == "pretrained":
                tag = registry.find(part).tag
                found.setdefault(tag, Need(tag, f"backbone {part.name}", _backbone(part)))
        for key in keys:
            for name, get in _of_extractor(METRICS[key].extractor).items():
                found.setdefault(name, Need(name, METRICS[key].group, get))
    return list(found.values())


def fetch_weights(grid: Grid, data_dir: Path, echo: Echo) -> bool:
    """Fetches and lists all that a grid needs.

    Args:
        grid: whose runs are to be.
        data_dir: whose weights/ is the folder where $PROJGAN_WEIGHTS is not set.
        echo: takes a line for each file.

    Returns:
        Whether everything is there now.
    """
    with beside(data_dir):
        folder, wanted = weights_dir(), needs(grid)
        ledger = _read_ledger(folder)
        missing = 0
        for need in wanted:
            before = placed(need.name) or _file(folder / need.name)
            try:
                packaged = None if before else installed(need.name)
                path = before or packaged or need.get()
            except UserError as error:
                missing += 1
                echo(f"missing  {need.name} ({need.wants}): {error}")
                continue
            if (
                packaged is None and path.parent != folder
            ):  # a cache's: nodes without network look here
                path = _copied(path, folder / f"{need.name}{path.suffix}")
            sha256, size = sha256_of(path), path.stat().st_size
            known = ledger.get(path.name, {}).get("sha256")
            if known not in (None, sha256):
                echo(f"changed  {path.name}: it had sha256 {known} when it was listed first")
            if path != packaged:
                ledger.setdefault(path.name, {"sha256": sha256, "bytes": size, "for": need.wants})
            state = "there  " if before else "package" if packaged else "fetched"
            echo(f"{state}  {path.name} ({need.wants}), {size / 1e6:.1f} MB, sha256 {sha256}")
        if ledger:
            write_json_atomic(folder / LEDGER, ledger)
    here = len(wanted) - missing
    echo(f"{grid.name} ({grid.scale}): {here} of {len(wanted)} files of weights in {folder}")
    return not missing


def _backbone(backbone: Backbone) -> Callable[[], Path]:
    def get() -> Path:
        from projgan.backbones.build import fetch

        return fetch(registry.find(backbone))[0]

    return get


def _of_extractor(name: str) -> dict[str, Callable[[], Path]]:
    """Files of a metric's network by name: imported where it is asked for, as it loads numpy."""
    from bench.metrics import inception, pretrained

    folder = weights_dir()
    clean = {inception.CLEAN_FILE: lambda: inception.find_clean(folder)}
    table: dict[str, dict[str, Callable[[], Path]]] = {
        "inception": clean,
        "inception_graph": clean,
        "inception_legacy": {inception.LEGACY_FILE: lambda: inception.find_legacy(folder)},
    }
    if name in pretrained.FILES:
        file = pretrained.FILES[name]
        return {file.name: lambda: pretrained.find(name, folder)}
    return table.get(name, {})


def _copied(source: Path, path: Path) -> Path:
    with source.open("rb") as reader, replacing(path) as writer:
        shutil.copyfileobj(reader, writer)
    return path


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_ledger(folder: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
        return said
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{folder / LEDGER}: damaged ({reason(error)}); delete it") from None
