"""do=prepare: a data set of the paper, or any other, from what a user has fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cli.options import Options
from bench.config import paths, yaml_types
from bench.config.schema import DataSetEntry, DataSetsFile
from bench.run.preflight import check_folder
from bench.run.progress import Show
from projgan.config import Data
from projgan.errors import DataError, UserError

if TYPE_CHECKING:
    from projgan.data.image_source import Classes, ImageSource


def known() -> dict[str, DataSetEntry]:
    """The data sets of experiments/datasets.yaml, by name."""
    file: DataSetsFile = yaml_types.read(DataSetsFile, paths.DATASETS)
    return file.sets


def prepare(options: Options, show: Show, echo: Callable[[str], None]) -> None:
    """Packs the images of `source=` as the data set `data=` and says what came of it.

    Args:
        options: with `data.resolution=…` and `data.filter=…` as overrides, and nothing else.
        show: takes how far it is.
        echo: takes lines for the user.

    Raises:
        UserError: a name or setting that is wrong, a source of another size than the data set's,
            an image that cannot be read.
    """
    from projgan.data.dataset import RENDERED
    from projgan.data.prepare import prepare as pack
    from projgan.data.prepare import summary

    name, source = options.data, options.source
    if name is None or source is None:
        raise UserError("do=prepare needs data=NAME source=PATH, and data.resolution= if not 256")
    if name in RENDERED:
        raise UserError(f"data={name} is rendered here; give what is prepared another name")
    cfg = Data(name=name)
    for key, value in yaml_types.parse_overrides(options.overrides).items():
        made = yaml_types.convert(key, value, yaml_types.COMMAND_LINE)
        cfg = replace(cfg, **{key.removeprefix("data."): made})
    check_folder("data_dir", options.data_dir)
    entry = known().get(name)

    def check(opened: ImageSource, classes: Classes) -> None:
        if entry is not None:
            _check_size(name, entry, len(opened.names), echo)
        for note in filter(None, (opened.note, classes.note)):
            echo(f"note: {note}")

    anew = options.force == "all"
    folder = pack(name, source, cfg.resolution, options.data_dir, show, check, anew, cfg.filter)
    made = summary(folder)
    classes = f", {len(made['classes'])} classes" if made["classes"] else ""
    echo(f"{name}: {made['count']} images{classes} of {made['kind']} {made['source']} in {folder}")
    given = f" data.filter={cfg.filter}" if cfg.filter != Data().filter else ""
    echo(f"sha256 {made['sha256']}; train on it with data.name={name} "
         f"data.resolution={cfg.resolution}{given}")  # fmt: skip


def _check_size(name: str, entry: DataSetEntry, count: int, echo: Callable[[str], None]) -> None:
    """Refuses a source that is not the data set it is called, as far as its size tells."""
    if count == entry.images:
        return
    if entry.sure:
        raise DataError(
            f"source holds {count} images, but {name} ({entry.title}) has {entry.images}: complete "
            "it, or give what it is another name with data="
        )
    echo(f"note: {count} images; {name} is listed with {entry.images}, which is not confirmed")
