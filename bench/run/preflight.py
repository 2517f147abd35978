"""Everything that can be refused before a run begins; leaves nothing behind when it refuses.

Networks are built once each, so that weights that are missing, damaged or cannot be downloaded show
now and not in the last row hours later. At lab scale this takes a second or two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.config.spec import RunSpec
from bench.run.progress import Show
from projgan.config import Config
from projgan.errors import UserError
from projgan.weights import use_data_dir, weights_dir


def check(
    runs: Sequence[RunSpec],
    runs_dir: Path,
    results_dir: Path,
    data_dir: Path,
    show: Show | None = None,
    echo: Callable[[str], None] = print,
) -> None:
    """Refuses runs that cannot work.

    Folders of images are packed here, which reads every image: one that cannot be read is refused
    now, and the runs find the images ready. Rendered images cannot be damaged; a run makes them.

    `show` is told how far the packing is, `echo` what of a folder or archive is passed over.

    Raises:
        UserError: one line about the first fault found.
    """
    from projgan.data.dataset import check_data, open_dataset

    folders = {"runs_dir": runs_dir, "results_dir": results_dir, "data_dir": data_dir}
    for key, folder in folders.items():
        check_folder(key, folder)
    data_sets = dict.fromkeys(run.config.data for run in runs)
    sources = [check_data(data, data_dir) for data in data_sets]
    for note in dict.fromkeys(source.note for source in sources if source):
        if note:
            echo(f"note: {note}")
    seen = set()
    for run in runs:
        cfg = run.config
        parts = (cfg.data, cfg.backbone, cfg.projection, cfg.discriminator, cfg.generator)
        if parts not in seen:
            seen.add(parts)
            try:
                with use_data_dir(data_dir):
                    _check_networks(cfg)
            except UserError as error:
                raise UserError(f"row {run.label!r}: {error}") from error
    measured = {
        (run.config.data.resolution, run.config.backbone.zoo, run.eval): run for run in runs
    }
    for run in measured.values():
        _check_extractors(run, data_dir)
    for data in data_sets:  # last, as it may take long
        if data.path is not None:
            named = f"packing {data.path}"
            open_dataset(data, data_dir, partial(show, named) if show else None)


def check_classes(runs: Sequence[RunSpec], data_dir: Path) -> None:
    """Refuses data.classes that are not those of the data, where these are at hand."""
    for data in dict.fromkeys(run.config.data for run in runs if run.config.data.classes):
        from projgan.data.dataset import check_data, find_prepared

        if find_prepared(data, data_dir) is not None:
            check_data(data, data_dir)


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
    """Builds the networks: unknown names, weights that are not there, maps that do not fit."""
    from projgan.discriminators.projected import build_discriminator
    from projgan.generators import build_generator

    build_generator(cfg)
    build_discriminator(cfg)


def _check_extractors(run: RunSpec, data_dir: Path) -> None:
    """Loads the networks of the metrics; the run's own is checked with the run."""
    import torch

    from bench.config.extractors import TRAINING
    from bench.config.metrics import METRICS, metric_keys
    from bench.metrics.extractors import EXTRACTORS, Source

    size, cpu = run.config.data.resolution, torch.device("cpu")
    source = Source(size, cpu, weights_dir(data_dir), run.levels_backbone)
    names = {METRICS[key].extractor for key in metric_keys(run.eval.metrics)}
    names -= {"own", TRAINING}
    for name in sorted(names):
        try:
            EXTRACTORS[name].load(source)
        except UserError as error:
            raise UserError(f"eval.metrics: {error}") from error
