"""Grid file + scale + command line -> a checked `Grid` of frozen dataclasses.

Settings override each other in the order defaults < scale < rates of a search < grid base < the
grid's section for the scale < row < axes < seed < command line. Everything is checked here, before
anything runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from bench.config import columns as vocabulary
from bench.config import paths, slurm_settings, yaml_types
from bench.config.metrics import EVAL_NORMS, grid_key, metric_keys
from bench.config.schema import (
    ClaimsFile,
    EvalSection,
    GridFile,
    PresetsFile,
    Rates,
    RatesFile,
    Resources,
    ScaleFile,
    Section,
    SlurmFile,
)
from bench.config.spec import Claim, EvalSpec, Grid, ReportSpec, Row, RunSpec
from projgan.backbones.registry import check, find
from projgan.config import Config, Discriminator, from_dict
from projgan.errors import UserError, unknown

SEED, KIND = "train.seed", "discriminator.kind"
NOT_NAMES = (paths.PUBLISHED, "records")  # folders of results that are no grid's


def list_grids() -> list[tuple[str, str]]:
    """Name and one line about each grid that ships."""
    files = sorted(paths.GRIDS.glob("*.yaml"))
    return [(file.stem, yaml_types.text_of(file, "about")) for file in files]


def list_scales() -> list[str]:
    return sorted(file.stem for file in paths.SCALES.glob("*.yaml"))


@dataclass(frozen=True)
class _Files:
    """The files that a grid is made of, at one scale."""

    path: Path
    grid: GridFile
    name: str  # of the scale
    scale: ScaleFile
    section: Section  # of the grid file, for this scale
    rates: Mapping[str, Rates]  # of a search, by discriminator or preset

    @classmethod
    def read(cls, grid: str, scale: str) -> _Files:
        path = _grid_path(grid)
        if scale not in (known := list_scales()):
            raise UserError(unknown("scale", scale, known))
        file: GridFile = yaml_types.read(GridFile, path)
        _check_names(path, file, known)
        at_scale: ScaleFile = yaml_types.read(ScaleFile, paths.SCALES / f"{scale}.yaml")
        rates = yaml_types.read(RatesFile, paths.RATES).scales.get(scale, {})
        return cls(path, file, scale, at_scale, file.scales.get(scale, Section()), rates)

    def own_name(self, column: str) -> str:
        """The name of a column or metric at this scale."""
        return _own_name(column, self.scale.metrics)

    def row(self, label: str) -> str:
        """A row as messages name it."""
        return f"{self.path.name}: row {label!r}"


def load(
    grid: str,
    scale: str = "lab",
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    only: str | Sequence[str] | None = None,
    norms: str | None = None,
) -> Grid:
    """Load a grid and check all of it but the report section, which `analysis.validation` checks.

    Args:
        grid: Name of a file in experiments/grids/, or the path of a YAML file.
        scale: Name of a file in experiments/scales/.
        overrides: `key=value` texts that hold for every run. A key that is an axis replaces it, and
            a list for a field of one value is an axis.
        seeds: Instead of the grid's own.
        only: Label or labels of the rows to keep.
        norms: `eval.norms` instead of the files' own.

    Raises:
        UserError: One line that names what is wrong and what would be right.
    """
    files = _Files.read(grid, scale)
    given = yaml_types.parse_overrides(overrides)
    measuring = {key: value for key, value in given.items() if key.startswith("eval.")}
    changes = {key: value for key, value in given.items() if key not in measuring}
    chosen = _seeds(files, seeds, changes)
    axes = _axes(files, changes)
    rows = _rows(files, axes, only)
    _check_contradictions(rows, changes)
    report = _report(files, rows, narrowed=only is not None)
    parts = [files.scale.eval, files.grid.eval, files.section.eval, EvalSection(norms=norms)]
    evaluation = _evaluation(files, parts, measuring, report.columns)
    runs = _runs(files, rows, axes, chosen, changes, evaluation)
    report = dataclasses.replace(
        report,
        columns=_columns(files, parts, report, evaluation),
        notes=(*report.notes, *_note_on_rates(files, rows, runs)),
    )
    return Grid(
        name=files.grid.name,
        about=files.grid.about,
        scale=scale,
        rows=tuple(rows),
        axes=axes,
        seeds=tuple(chosen),
        eval=evaluation,
        report=report,
        runs=tuple(runs),
        overrides=given,
    )


def load_claims(scale: str = "lab", path: Path = paths.CLAIMS) -> list[Claim]:
    """The paper's findings as checks, with the metric's name at a scale; `claims.check` is next.

    Raises:
        UserError: One line that names what is wrong in the file.
    """
    if scale not in (known := list_scales()):
        raise UserError(unknown("scale", scale, known))
    file: ClaimsFile = yaml_types.read(ClaimsFile, path)
    names = yaml_types.read(ScaleFile, paths.SCALES / f"{scale}.yaml").metrics
    found: dict[str, Claim] = {}
    for claim in file.claims:
        if claim.id in found:
            raise UserError(f"{path}: claim {claim.id!r} is there twice")
        if scale in (claim.scales or known):
            found[claim.id] = dataclasses.replace(
                claim,
                metric=_own_name(claim.metric, names),
                x=claim.x and _own_name(claim.x, names),
                these=tuple(claim.these),
                than=tuple(claim.than),
            )
    return list(found.values())


def _grid_path(grid: str) -> Path:
    if grid.endswith((".yaml", ".yml")):
        if not Path(grid).is_file():
            raise UserError(f"grid={grid}: there is no such file")
        return Path(grid)
    known = sorted(file.stem for file in paths.GRIDS.glob("*.yaml"))
    if grid not in known:
        raise UserError(unknown("grid", grid, known) + " (or the path of a .yaml file)")
    return paths.GRIDS / f"{grid}.yaml"


def _check_names(path: Path, file: GridFile, scales: list[str]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", file.name) or file.name in NOT_NAMES:
        raise UserError(
            f"{path.name}: name={file.name!r} becomes a folder of results; use letters, digits, "
            f"- and _, and none of {', '.join(NOT_NAMES)}"
        )
    named = [("scales", name) for name in file.scales]
    named += [(f"row {row.label!r}", name) for row in file.rows for name in row.scales or []]
    for where, name in named:
        if name not in scales:
            raise UserError(f"{path.name}: {where}: {unknown('scale', name, scales)}")


def _seeds(files: _Files, asked: Sequence[int] | None, changes: dict[str, Any]) -> Sequence[int]:
    """The seeds of the command line, in either form, or those of the files."""
    usual = next(s for s in (files.section.seeds, files.grid.seeds, [0]) if s is not None)
    with yaml_types.at(files.path.name):
        _check_seeds(usual)
    if SEED in changes:
        seed = yaml_types.convert(SEED, changes.pop(SEED), yaml_types.COMMAND_LINE)
        if asked is not None:
            raise UserError(f"{SEED}={seed} and seeds={list(asked)} exclude each other")
        asked = [seed]
    if asked is None:
        return usual
    _check_seeds(asked)
    return asked


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={list(seeds)}: give distinct whole numbers such as 'seeds=[0,1,2]'")


def _axes(files: _Files, changes: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The axes of the files, replaced by what the command line says of them, and its own.

    What becomes an axis is taken out of `changes`.
    """
    where = f"{files.path.name}: axes"
    crossed = files.grid.axes | files.section.axes
    axes = {key: _axis(where, key, values) for key, values in crossed.items()}
    for key, value in list(changes.items()):
        if yaml_types.is_several(key, value):
            axes[key] = _axis(yaml_types.COMMAND_LINE, key, changes.pop(key))
        elif key in axes:
            axes[key] = (yaml_types.convert(key, changes.pop(key), yaml_types.COMMAND_LINE),)
    return axes


def _check_contradictions(rows: Sequence[Row], changes: Mapping[str, Any]) -> None:
    """An override may not turn a row's label into a lie."""
    for row in rows:
        for key in row.set.keys() & changes.keys():
            if yaml_types.convert(key, row.set[key], row.label) != yaml_types.convert(
                key, changes[key], yaml_types.COMMAND_LINE
            ):
                raise UserError(
                    f"{key}={changes[key]} contradicts row {row.label!r}, which sets it to "
                    f"{row.set[key]}; leave it out, or choose other rows with only=LABEL"
                )


def _axis(where: str, key: str, values: Sequence[Any]) -> tuple[Any, ...]:
    _no_seed(where, [key])
    chosen = tuple(yaml_types.convert(key, value, where) for value in values)
    if not chosen or len(set(map(repr, chosen))) < len(chosen):
        raise UserError(f"{where}: {key}={list(values)}: give one or more distinct values")
    return chosen


def _rows(files: _Files, axes: Mapping[str, Any], only: str | Sequence[str] | None) -> list[Row]:
    """The rows of this scale, or those of them that `only` names."""
    found: dict[str, Row] = {}
    presets: dict[str, dict[str, Any]] = {}
    if any(row.preset is not None for row in files.grid.rows):  # methods that several grids have
        presets = yaml_types.read(PresetsFile, paths.PRESETS).presets
    for row in files.grid.rows:
        where = files.row(row.label)
        _check_label(where, row.label)
        if row.scales is not None and files.name not in row.scales:
            continue  # of one label there may be a row for each scale
        if row.label.lower() in found:
            raise UserError(f"{where} is there twice; labels name the lines of a table")
        if row.preset is not None and row.preset not in presets:
            raise UserError(f"{where}: {unknown('preset', row.preset, presets)}")
        rates = files.rates.get(row.preset or "")
        settings = presets.get(row.preset or "", {}) | (rates.settings if rates else {}) | row.set
        for key in settings.keys() & axes.keys():
            raise UserError(f"{where} sets {key}, which is an axis; take it out of one of the two")
        _no_seed(where, settings)
        asked = _given([files.grid.resources, files.section.resources, row.resources])
        with yaml_types.at(f"{where}: resources"):
            slurm_settings.check(slurm_settings.asking(SlurmFile(), asked))
        found[row.label.lower()] = Row(row.label, settings, row.paper, asked, row.preset)
    if not found:
        raise UserError(f"{files.path.name}: has no row at scale {files.name}")
    if only is None:
        return list(found.values())
    wanted = [only] if isinstance(only, str) else only
    for label in wanted:
        if label.lower() not in found:
            raise UserError(unknown("row", label, [row.label for row in found.values()]))
    keep = {label.lower() for label in wanted}
    return [row for label, row in found.items() if label in keep]


def _check_label(where: str, label: str) -> None:
    if not label.strip():
        raise UserError(f"{where}: a label is what names the line of a table; give it one")
    if not label.isprintable() or label != label.strip():
        raise UserError(
            f"{where}: a label is one line of printable signs with no blank at its ends"
        )


def _report(files: _Files, rows: Sequence[Row], narrowed: bool) -> ReportSpec:
    """What the files say; the notes of all of them."""
    parts = [files.scale.report, files.grid.report, files.section.report]
    given = _given(parts)
    given["columns"] = tuple(map(files.own_name, given.get("columns", ())))
    given["notes"] = tuple(note for part in parts for note in part.notes)
    if "rank_by" in given:
        given["rank_by"] = files.own_name(given["rank_by"])
    report, labels = ReportSpec(**given), [row.label for row in rows]
    if report.baseline is not None and report.baseline not in labels and not narrowed:
        message = unknown("baseline row", report.baseline, labels)
        raise UserError(f"{files.path.name}: report: {message}")
    return report


def _evaluation(
    files: _Files, parts: Sequence[EvalSection], asked: Mapping[str, Any], shown: Sequence[str]
) -> EvalSpec:
    """What the files say, with what the command line asks for; its null is a value too."""
    given, hints = _given(parts), get_type_hints(EvalSpec)
    for key, value in asked.items():
        name = key.removeprefix("eval.")
        unset = value is None and type(None) in get_args(hints.get(name))
        given[name] = None if unset else yaml_types.evaluation(key, value)
    norms = given.get("norms", EvalSpec.norms)

    def own(names: Iterable[str]) -> list[str]:
        return [grid_key(files.own_name(name), norms) for name in names]

    metrics, beside = own(given.get("metrics", ())), own(given.pop("beside", ()))
    named = [name for name in own(shown) if name in vocabulary.WITH_NORMS]
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    again = given.pop("best", None)
    with yaml_types.at(files.path.name):
        keys = metric_keys(metrics)
        best = keys if again else [key for key in keys if f"best:{key}" in shown]
        named += [k for k in metric_keys(beside) if ":" not in k or k.partition(":")[2] in keys]
        given["metrics"] = tuple(dict.fromkeys([*metrics, *named]))
        return EvalSpec(**given, best=() if again is False else tuple(best))


def _columns(
    files: _Files, parts: Sequence[EvalSection], report: ReportSpec, evaluation: EvalSpec
) -> tuple[str, ...]:
    """Names of columns as `evaluation` has them; a metric of other norms stands beside its own."""
    beside = [name for part in parts for name in part.beside or () if ":" not in name]
    found: dict[str, None] = {}
    for column in [*report.columns, *map(files.own_name, beside)]:
        name = grid_key(column, evaluation.norms)
        others = [f"{norms}:{name}" for norms in EVAL_NORMS]
        found |= dict.fromkeys([name, *(key for key in others if key in evaluation.metrics)])
    return tuple(found)


def _runs(
    files: _Files,
    rows: Sequence[Row],
    axes: Mapping[str, tuple[Any, ...]],
    seeds: Sequence[int],
    changes: Mapping[str, Any],
    evaluation: EvalSpec,
) -> list[RunSpec]:
    """Every row at every choice of axis values and every seed."""
    file = files.path.name
    scale = (f"scale {files.name}", files.scale.set)
    base = [
        (f"{file}: base", files.grid.base),
        (f"{file}: scales.{files.name}.base", files.section.base),
    ]
    for where, values in [scale, *base]:
        _no_seed(where, values)
    runs = []
    for row in rows:
        for chosen in itertools.product(*axes.values()):
            at = dict(zip(axes, chosen, strict=True))
            layers = [*base, (files.row(row.label), row.set), (f"{file}: axes", at)]
            layers += [(yaml_types.COMMAND_LINE, changes)]
            kind = [Discriminator.kind, *(layer[KIND] for _, layer in layers if KIND in layer)][-1]
            first = [scale]
            if kind in files.rates and row.preset is None:
                first += [(paths.RATES.name, files.rates[kind].settings)]
            cell = _config([*first, *layers], files.row(row.label))
            for seed in seeds:
                config = _seeded(cell, seed)
                runs.append(RunSpec(files.grid.name, row.label, at, files.name, config, evaluation))
    _check_distinct(files.path, runs)
    with yaml_types.at(f"{file}: eval.levels"):
        for backbone in {run.levels_backbone for run in runs}:
            find(backbone)
    return runs


def _note_on_rates(files: _Files, rows: Sequence[Row], runs: Sequence[RunSpec]) -> list[str]:
    """A note under the table: the rates that experiments/rates.yaml gave to these runs."""
    presets = {row.label: row.preset for row in rows}
    used = {
        (presets[r.row] or r.config.discriminator.kind, r.config.optim.lr_g, r.config.optim.lr_d)
        for r in runs
    }
    parts = [
        f"{name} {rates.lr_g:g} and {rates.lr_d:g} "
        + (f"(best of {rates.tried} tried alike)" if rates.tried else "(not searched for)")
        for name, rates in files.rates.items()
        if (name, rates.lr_g, rates.lr_d) in used
    ]
    return [f"Learning rates of generator and discriminator: {'; '.join(parts)}."] if parts else []


def _given(parts: Sequence[EvalSection | ReportSpec | Resources]) -> dict[str, Any]:
    """The values that are not the defaults; a later part overrides an earlier one."""
    values = [(f, getattr(part, f.name)) for part in parts for f in dataclasses.fields(part)]
    return {f.name: value for f, value in values if value != f.default}


def _own_name(column: str, names: Mapping[str, str]) -> str:
    """`fd`, `rel:fd`, … with a scale's own name of the metric."""
    prefix, colon, name = column.rpartition(":")
    return f"{prefix}{colon}{names.get(name, name)}"


def _config(layers: Sequence[tuple[str, Mapping[str, Any]]], where: str) -> Config:
    """Merges dotted settings, the later over the earlier, into a checked configuration."""
    nested: dict[str, dict[str, Any]] = {}
    for origin, settings in layers:
        for key, value in settings.items():
            yaml_types.check_key(key, origin)
            group, name = key.split(".")
            nested.setdefault(group, {})[name] = yaml_types.convert(key, value, origin)
    with yaml_types.at(where):
        config = from_dict(nested)
        check(config.backbone)
        return config


def _seeded(config: Config, seed: int) -> Config:
    """The same with another seed: the difference between the runs of a cell."""
    with yaml_types.at("seeds"):
        return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))


def _no_seed(where: str, keys: Iterable[str]) -> None:
    if SEED in keys:
        raise UserError(f"{where}: {SEED} is set by `seeds: [0, 1]`")


def _check_distinct(path: Path, runs: Sequence[RunSpec]) -> None:
    seen: dict[str, RunSpec] = {}
    for run in runs:
        if (other := seen.setdefault(run.run_id, run)) is not run:
            raise UserError(
                f"{path.name}: {other.name!r} and {run.name!r} are one and the same run; "
                "a table needs rows that differ"
            )
