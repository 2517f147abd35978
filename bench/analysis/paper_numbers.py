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


REL = ("rel_fd_l1", "rel_fd_l2", "rel_fd_l3", "rel_fd_l4", "rel_fid")  # columns of table1.csv

PaperRow = dict[str, PaperValue]  # column key -> number


def paper_row(paper: str, spec: RunSpec, where: Mapping[str, str] | None = None) -> PaperRow:
    """The paper's numbers for the row that `spec` belongs to; empty = the paper has no such row.

    Args:
        paper: A name of PAPERS.
        spec: Any run of the row; label and config say which line of the paper it is.
        where: The row's own choice of that line, column -> value. None = by label and config.
    """
    if paper not in PAPERS:
        raise ConfigError(unknown("report.paper", paper, PAPERS))
    if where is None:
        return PAPERS[paper].find(spec)
    lines = [x for x in read(paper) if all(x.get(k) == v for k, v in where.items())]
    if len(lines) != 1:
        raise ConfigError(
            f"Row {spec.row!r}: paper: {dict(where)} picks {len(lines)} lines of "
            f"experiments/paper/{paper}.csv; name columns and values that pick one"
        )
    return PAPERS[paper].values(lines[0])


def main_column(paper: str) -> str:
    """The column of the paper's table that a ranking is compared with."""
    return "paper_rel_fid" if paper == "table1" else "paper_fid"


def _table1(spec: RunSpec) -> PaperRow:
    """Table 1: projection x layers with a discriminator; ratios to the RGB discriminator."""
    discriminator = spec.config.discriminator
    if discriminator.kind == "rgb":
        return {f"paper_{c}": PaperValue(1.0, "by definition") for c in REL}
    if spec.config.backbone.weights != "pretrained":
        return {}
    projection = {"none": "no_projection"}.get(kind := spec.config.projection.kind, kind)
    layers = ";".join(f"L{i}" for i in discriminator.layers)
    if discriminator.kind == "perceptual":
        if layers != "L1;L2;L3;L4":
            return {}
        layers = "perceptual"
    for line in read("table1"):
        if (line["projection"], line["discriminators_on"]) == (projection, layers):
            return _table1_values(line)
    return {}


def _table1_values(line: dict[str, str]) -> PaperRow:
    return _values({f"paper_{c}": (line[c], line["confidence"]) for c in REL})


def _table2(spec: RunSpec) -> PaperRow:
    """Table 2: feature networks on LSUN-Church. A control row with random weights has no line."""
    if spec.config.backbone.weights != "pretrained" or spec.config.discriminator.on_images:
        return {}
    lines = {_plain(line["network"]): line for line in read("table2")}
    for name in (_plain(spec.row), _plain(spec.config.backbone.name)):
        if name in lines:
            return _table2_values(lines[name])
    return {}


def _table2_values(line: dict[str, str]) -> PaperRow:
    return _values(
        {
            "paper_params_m": (line["params_m"], line["params_confidence"]),
            "paper_top1": (line["imagenet_top1"], line["top1_confidence"]),
            "paper_fid": (line["fid"], line["fid_confidence"]),
        }
    )


# Generator and discriminator -> the method's name in Figure 4. The RGB baseline is nobody's own.
_METHODS = {
    ("fastgan", "projected"): "Projected FastGAN",
    ("stylegan2", "projected"): "Projected StyleGAN2-ADA",
    ("fastgan", "fastgan"): "FastGAN",
    ("stylegan2", "stylegan2"): "StyleGAN2-ADA",
}


def _method(spec: RunSpec) -> str | None:
    """Which of the paper's methods a run is; None = none of them."""
    config = spec.config
    on_features = not config.discriminator.on_images
    if on_features and config.backbone.weights != "pretrained":
        return None
    generator = config.generator.name.removesuffix("_lite")
    return _METHODS.get((generator, config.discriminator.kind))


def _figure4(spec: RunSpec) -> PaperRow:
    """Figure 4: right panel for a grid over subsets (CLEVR), left panel's dashed levels else."""
    method = _method(spec)
    if method is None:
        return {}
    right = "data.subset" in spec.axes
    subset = spec.config.data.subset
    thousands = 70.0 if subset is None else subset / 1000
    for line in read("figure4"):
        if line["method"] != method:
            continue
        hit = (
            line["panel"] == "right" and float(line["x"] or "nan") == thousands
            if right
            else line["kind"] == "dashed converged level"
        )
        if hit:
            return _figure4_values(line)
    return {}


def _figure4_values(line: dict[str, str]) -> PaperRow:
    return _values({"paper_fid": (line["fid"], line["confidence"])})


# Columns of the tables that are sorted by data set -> columns of ours.
_BY_DATA = {"fid": "paper_fid", "imgs_millions": "paper_imgs_m", "precision": "paper_precision",
            "recall": "paper_recall", "kid": "paper_kid", "swav_fid": "paper_swav_fid"}  # fmt: skip


def _data_line(paper: str, spec: RunSpec) -> dict[str, str] | None:
    """The line of a table by method, data set and resolution, where all images are trained on."""
    config = spec.config
    method = _method(spec)
    if method is None or config.data.subset is not None:
        return None
    method = {"Projected FastGAN": "Projected GAN"}.get(method, method)
    for line in read(paper):
        here = (_plain(line["dataset"]), line["resolution"] or str(config.data.resolution))
        if (
            line["method"] == method
            and here == (_plain(config.data.name), str(config.data.resolution))
            and line["confidence"] != "excluded"
        ):
            return line
    return None


def _by_data(paper: str) -> Source:
    """A table of the paper that is sorted by data set."""

    def find(spec: RunSpec) -> PaperRow:
        line = _data_line(paper, spec)
        return _by_data_values(line) if line else {}

    return Source(find, _by_data_values)


def _by_data_values(line: dict[str, str]) -> PaperRow:
    held = {ours: line[name] for name, ours in _BY_DATA.items() if name in line}
    return _values({ours: (text, line["confidence"]) for ours, text in held.items()})


def protocol(paper: str, spec: RunSpec) -> dict[str, str | None]:
    """How the numbers of one of the paper's tables were measured; None = nobody here knows.

    Args:
        paper: A name of PAPERS.
        spec: A run of the row, whose data set decides where the table has several.
    """
    lines = [line for line in read("protocols") if line["paper"] == paper]
    fields: dict[str, str | None] = {line["field"]: line["value"] or None for line in lines}
    if paper == "figure4" and "data.subset" in spec.axes:
        fields |= {"data": "CLEVR", "real": None}
    if paper in _SORTED_BY_DATA and (line := _data_line(paper, spec)):
        fields |= {"data": line["dataset"], "resolution": line["resolution"] or None}
    sizes = {_plain(line["dataset"]): line["images"] for line in read("supplement_dataset_sizes")}
    if not fields.get("real"):
        fields["real"] = sizes.get(_plain(fields.get("data") or ""))
    return fields


def unconfirmed(paper: str) -> list[str]:
    """Fields of a table's protocol that nobody here could confirm, and what they rest on."""
    basis = {"memory": "from memory", "inferred": "inferred"}
    return [
        f"{line['field']} {basis[word]}"
        for line in read("protocols")
        if line["paper"] == paper and (word := line["confidence"].split()[0]) in basis
    ]


@dataclass(frozen=True)
class Source:
    """One of the paper's tables or figures."""

    find: Callable[[RunSpec], PaperRow]  # the line that a row's label and config point to
    values: Callable[[dict[str, str]], PaperRow]  # the numbers of a line


def _chosen_by_the_row(spec: RunSpec) -> PaperRow:
    """The supplement's ablations: a row of a grid names its line by `paper:`."""
    return {}


_SORTED_BY_DATA = ("table3", "table4", "supplement_precision_recall", "supplement_extra_metrics",
                   "supplement_extra_datasets")  # fmt: skip

PAPERS = {
    "table1": Source(_table1, _table1_values),
    "table2": Source(_table2, _table2_values),
    "figure4": Source(_figure4, _figure4_values),
    "supplement_ablations": Source(_chosen_by_the_row, _figure4_values),
    **{name: _by_data(name) for name in _SORTED_BY_DATA},
}


def _values(raw: dict[str, tuple[str, str]]) -> PaperRow:
    return {
        key: PaperValue(float(text) if text else None, conf or "missing")
        for key, (text, conf) in raw.items()
    }


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.cache
def read(name: str) -> list[dict[str, str]]:
    """A file of experiments/paper/, one dict for each line."""
    path = PAPER / f"{name}.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); restore it by git") from None
