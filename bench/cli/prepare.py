"""do=prepare: a data set of the paper, or any other, from what a user has fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import paths, yaml_types
from bench.config.schema import DataSetEntry, DataSetsFile
from bench.run.preflight import check_folder
from projgan.config import Data
from projgan.errors import DataError, UserError

if TYPE_CHECKING:
    from projgan.data.sources import Classes, ImageSource

Echo = Callable[[str], None]


def known() -> dict[str, DataSetEntry]:
    """The data sets of experiments/datasets.yaml, by name."""
    file: DataSetsFile = yaml_types.read(DataSetsFile, paths.DATASETS)
    return file.sets


def prepare(
    name: str,
    source: Path,
    overrides: Sequence[str],
    data_dir: Path,
    progress: Callable[[str, int, int], None],
    echo: Echo,
    anew: bool = False,
) -> Path:
    """Packs a source as the data set `name` and says what came of it.

    Args:
        name: of the data set.
        source: where its images are.
        overrides: `data.resolution=…` and `data.filter=…`, and nothing else.
        data_dir: where packed data sets are kept.
        progress: told what is done and how far.
        echo: takes lines for the user.
        anew: replaces what is there of another source, or of another state of it.

    Raises:
        UserError: a name or setting that is wrong, a source of another size than the data set's,
            an image that cannot be read.
    """
    from projgan.data.dataset import RENDERED
    from projgan.data.prepare import prepare as pack
    from projgan.data.prepare import summary

    changes = yaml_types.parse_overrides(overrides)
    size, how = changes.get("data.resolution", Data().resolution), changes.get("data.filter")
    if name in RENDERED:
        raise UserError(f"data={name} is rendered here; give what is prepared another name")
    cfg = Data(
        name=name,
        resolution=yaml_types.convert("data.resolution", size, "command line"),
        filter=yaml_types.convert("data.filter", how or Data().filter, "command line"),
    )
    check_folder("data_dir", data_dir)
    entry = known().get(name)

    def check(opened: ImageSource, classes: Classes) -> None:
        if entry is not None:
            compare(name, entry, len(opened.names), echo)
        for note in filter(None, (opened.note, classes.note)):
            echo(f"note: {note}")

    folder = pack(name, source, cfg.resolution, data_dir, progress, check, anew, cfg.filter)
    said = summary(folder)
    classes = f", {len(said['classes'])} classes" if said["classes"] else ""
    echo(f"{name}: {said['count']} images{classes} of {said['kind']} {said['source']} in {folder}")
    echo(f"sha256 {said['sha256']}; train on it with data.name={name} "
         f"data.resolution={cfg.resolution}{f' data.filter={how}' if how else ''}")  # fmt: skip
    return folder


def compare(name: str, entry: DataSetEntry, count: int, echo: Echo) -> None:
    """Refuses a source that is not the data set it is called, as far as its size tells."""
    if count == entry.images:
        return
    if entry.sure:
        raise DataError(
            f"source holds {count} images, but {name} ({entry.title}) has {entry.images}: complete "
            "it, or give what it is another name with data="
        )
    echo(f"note: {count} images; {name} is listed with {entry.images}, which is not confirmed")
