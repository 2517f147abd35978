"""Everything that can be refused before a run begins, checked cheaply; leaves nothing behind."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.spec import RunSpec
from projgan.config import Config
from projgan.errors import ConfigError, UserError


def check(runs: Sequence[RunSpec], runs_dir: Path, results_dir: Path, data_dir: Path) -> None:
    """Refuses runs that cannot work.

    Raises:
        UserError: one line about the first fault found.
    """
    from projgan.data import check_data

    folders = {"runs_dir": runs_dir, "results_dir": results_dir, "data_dir": data_dir}
    for key, folder in folders.items():
        check_folder(key, folder)
    for data in dict.fromkeys(run.config.data for run in runs):
        check_data(data)
    seen = set()
    for run in runs:
        cfg = run.config
        parts = (cfg.data, cfg.backbone, cfg.projection, cfg.discriminator, cfg.generator)
        if parts not in seen:
            seen.add(parts)
            try:
                _check_networks(cfg)
            except UserError as error:
                raise ConfigError(f"row {run.label!r}: {error}") from error


def check_folder(key: str, folder: Path) -> None:
    """Refuses a folder that cannot be made or written to."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{key}={folder}: {place} is a file; give another folder")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{key}={folder}: cannot write in {place} ({reason})") from error


def _check_networks(cfg: Config) -> None:
    """Builds the networks where that is cheap: unknown names, missing weights, unfit sizes."""
    from projgan.discriminator import build_discriminator
    from projgan.generators import build_generator

    build_generator(cfg)
    if cfg.backbone.zoo == "lab":
        build_discriminator(cfg)
