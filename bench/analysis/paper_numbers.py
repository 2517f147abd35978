"""The paper's numbers beside ours, and how far the two rankings agree.

The numbers lie in `experiments/paper/*.csv`, each with its source and a confidence. An empty
field is a number that nobody here has seen; it stays unknown.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.config.paths import PAPER
from projgan.errors import ConfigError, DataError, unknown

if TYPE_CHECKING:
    from bench.config.spec import RunSpec

# What a table says under a number whose confidence begins so; "" = read from the paper itself.
CONFIDENCE = {
    "verified-image": "",
    "verified-secondary": "the paper's number as another text quotes it",
    "verified": "",
    "digitised": "digitised from the paper's figure, a few per cent of error",
    "inferred": "inferred from the paper's other numbers",
    "memory": "the paper's number from memory, not confirmed",
    "by definition": "1 by the paper's definition",
    "not applicable": "not applicable",
    "missing": "unknown: in the paper, not in the sources at hand",
}


@dataclass(frozen=True)
class PaperValue:
    value: float | None  # None = unknown here
    confidence: str

    @property
    def note(self) -> str:
        """The footnote that this number needs; empty = none."""
        for start, text in CONFIDENCE.items():
            if self.confidence.startswith(start):
                return text
        return f"confidence: {self.confidence}"


Line = Mapping[str, str]  # of a CSV file
PaperRow = dict[str, PaperValue]  # column key -> number


def paper_row(paper: str, spec: RunSpec, where: Mapping[str, str] | None = None) -> PaperRow:
    """Return the paper's numbers for the row of a run; empty = the paper has no such row.

    Args:
        paper: A name of PAPERS.
        spec: Any run of the row; label and config say which line of the paper it is.
        where: The row's own choice of that line, column -> value. None = by label and config.

    Raises:
        ConfigError: an unknown table, or a choice that picks no line or several.
    """
    if paper not in PAPERS:
        raise ConfigError(unknown("report.paper", paper, PAPERS))
    source = PAPERS[paper]
    if where is None:
        line = source.line(paper, spec)
    else:
        lines = _lines(paper, **where)
        if len(lines) != 1:
            raise ConfigError(
                f"Row {spec.row!r}: paper: {dict(where)} picks {len(lines)} lines of "
                f"experiments/paper/{paper}.csv; name columns and values that pick one"
            )
        line = lines[0]
    return source.values(line) if line else {}


def main_column(paper: str) -> str:
    """Return the column of the paper's table that a ranking is compared with."""
    return "paper_rel_fid" if paper == "table1" else "paper_fid"


def _lines(paper: str, **fields: str) -> list[Line]:
    """The lines of a file that have these values."""
    return [line for line in read(paper) if all(line.get(k) == v for k, v in fields.items())]


def _table1(paper: str, spec: RunSpec) -> Line | None:
    """Table 1: projection x layers with a discriminator; ratios to the RGB discriminator."""
    discriminator = spec.config.discriminator
    if discriminator.kind == "rgb":
        return dict.fromkeys(RELATIVE, "1") | {"confidence": "by definition"}
    if spec.config.backbone.weights != "pretrained":
        return None
    projection = {"none": "no_projection"}.get(kind := spec.config.projection.kind, kind)
    layers = ";".join(f"L{i}" for i in discriminator.layers)
    if discriminator.kind == "perceptual":
        layers = "perceptual" if layers == "L1;L2;L3;L4" else "none"
    return next(iter(_lines(paper, projection=projection, discriminators_on=layers)), None)


def _table2(paper: str, spec: RunSpec) -> Line | None:
    """Table 2: feature networks on LSUN-Church. A control row with random weights has no line."""
    if spec.config.backbone.weights != "pretrained" or spec.config.discriminator.on_images:
        return None
    lines = {_plain(line["network"]): line for line in read(paper)}
    return lines.get(_plain(spec.row)) or lines.get(_plain(spec.config.backbone.name))


# Generator and discriminator -> the method's name in Figure 4. The RGB baseline is nobody's own.
_METHODS = {
    ("fastgan", "projected"): "Projected FastGAN",
    ("stylegan2", "projected"): "Projected StyleGAN2-ADA",
    ("fastgan", "fastgan"): "FastGAN",
    ("stylegan2", "stylegan2"): "StyleGAN2-ADA",
}


def _method(spec: RunSpec) -> str | None:
    """The method of the paper that a run is; None = none of them."""
    config = spec.config
    if not config.discriminator.on_images and config.backbone.weights != "pretrained":
        return None
    generator = config.generator.name.removesuffix("_lite")
    return _METHODS.get((generator, config.discriminator.kind))


def _figure4(paper: str, spec: RunSpec) -> Line | None:
    """Figure 4: right panel for a grid over subsets (CLEVR), left panel's dashed levels else."""
    where = {"kind": "dashed converged level"}
    if "data.subset" in spec.axes:
        subset = spec.config.data.subset
        where = {"panel": "right", "x": f"{70 if subset is None else subset / 1000:g}"}
    return next(iter(_lines(paper, method=_method(spec) or "none", **where)), None)


def _by_data(paper: str, spec: RunSpec) -> Line | None:
    """A line by method, data set and resolution, where all images are trained on."""
    data, method = spec.config.data, _method(spec)
    if method is None or data.subset is not None:
        return None
    method = {"Projected FastGAN": "Projected GAN"}.get(method, method)
    resolution = str(data.resolution)
    same = (
        line
        for line in _lines(paper, method=method)
        if _plain(line["dataset"]) == _plain(data.name)
        and (line["resolution"] or resolution) == resolution
        and line["confidence"] != "excluded"
    )
    return next(same, None)


def _chosen_by_the_row(paper: str, spec: RunSpec) -> Line | None:
    """The supplement's ablations: a row of a grid names its line by `paper:`."""
    return None


@dataclass(frozen=True)
class Source:
    """One of the paper's tables or figures."""

    line: Callable[[str, RunSpec], Line | None]  # the one that a row's label and config point to
    columns: Mapping[str, str]  # of the CSV file -> ours

    def values(self, line: Line) -> PaperRow:
        """The numbers of a line, each with its own confidence or that of the whole line."""
        return {
            ours: PaperValue(
                float(line[name]) if line[name] else None,
                line.get(f"{name}_confidence", line["confidence"]) or "missing",
            )
            for name, ours in self.columns.items()
            if name in line
        }


RELATIVE = {f"rel_{key}": f"paper_rel_{key}" for key in ("fd_l1", "fd_l2", "fd_l3", "fd_l4", "fid")}
FID = {"fid": "paper_fid"}
OF_NETWORKS = {"params_m": "paper_params_m", "imagenet_top1": "paper_top1", **FID}
OF_DATA = {**FID, "imgs_millions": "paper_imgs_m", "precision": "paper_precision",
           "recall": "paper_recall", "kid": "paper_kid", "swav_fid": "paper_swav_fid"}  # fmt: skip
PAPERS = {
    "table1": Source(_table1, RELATIVE),
    "table2": Source(_table2, OF_NETWORKS),
    "figure4": Source(_figure4, FID),
    "supplement_ablations": Source(_chosen_by_the_row, FID),
    "table3": Source(_by_data, OF_DATA),
    "table4": Source(_by_data, OF_DATA),
    "supplement_precision_recall": Source(_by_data, OF_DATA),
    "supplement_extra_metrics": Source(_by_data, OF_DATA),
    "supplement_extra_datasets": Source(_by_data, OF_DATA),
}


def protocol(paper: str, spec: RunSpec) -> dict[str, str | None]:
    """Return how the numbers of one of the paper's tables were measured; None = nobody here knows.

    Args:
        paper: A name of PAPERS.
        spec: A run of the row, whose data set decides where the table has several.
    """
    lines = [line for line in read("protocols") if line["paper"] == paper]
    fields: dict[str, str | None] = {line["field"]: line["value"] or None for line in lines}
    if paper == "figure4" and "data.subset" in spec.axes:
        fields |= {"data": "CLEVR", "real": None}
    if PAPERS[paper].line is _by_data and (line := _by_data(paper, spec)):
        fields |= {"data": line["dataset"], "resolution": line["resolution"] or None}
    sizes = {_plain(line["dataset"]): line["images"] for line in read("supplement_dataset_sizes")}
    if not fields.get("real"):
        fields["real"] = sizes.get(_plain(fields.get("data") or ""))
    return fields


def unconfirmed(paper: str) -> list[str]:
    """Return the fields of a table's protocol that are not confirmed, and what they rest on."""
    basis = {"memory": "from memory", "inferred": "inferred"}
    return [
        f"{line['field']} {basis[word]}"
        for line in read("protocols")
        if line["paper"] == paper and (word := line["confidence"].split()[0]) in basis
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.cache
def read(name: str) -> list[dict[str, str]]:
    """Return a file of experiments/paper/, one dict for each line."""
    path = PAPER / f"{name}.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); restore it by git") from None
