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
from pathlib import Path
from typing import Any, get_args, get_type_hints

from bench.config import columns as vocabulary
from bench.config import paths, slurm_settings, yaml_types
from bench.config.metrics import EVAL_NORMS, check_metrics, grid_key, metric_keys
from bench.config.schema import (
    ClaimsFile,
    EvalSection,
    GridFile,
    PresetsFile,
    Rates,
    RatesFile,
    ReportSection,
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
    path = _grid_path(grid)
    if scale not in (known := list_scales()):
        raise UserError(unknown("scale", scale, known))
    file, at_scale = (
        yaml_types.read(GridFile, path),
        yaml_types.read(ScaleFile, paths.SCALES / f"{scale}.yaml"),
    )
    section = file.scales.get(scale, Section())
    _check_names(path, file, known)

    # Rows, axes and seeds, as the command line leaves them.
    given = yaml_types.parse_overrides(overrides)
    measuring = {key: value for key, value in given.items() if key.startswith("eval.")}
    changes = {key: value for key, value in given.items() if key not in measuring}
    with yaml_types.at(path.name):
        usual = _seeds(None, {}, next(s for s in (section.seeds, file.seeds, [0]) if s is not None))
    chosen = _seeds(seeds, changes, usual)
    crossed = file.axes | section.axes
    axes = {key: _axis(f"{path.name}: axes", key, values) for key, values in crossed.items()}
    for key, value in list(changes.items()):
        if yaml_types.is_several(key, value):
            axes[key] = _axis(yaml_types.COMMAND_LINE, key, changes.pop(key))
        elif key in axes:
            axes[key] = (yaml_types.convert(key, changes.pop(key), yaml_types.COMMAND_LINE),)
    tuned = yaml_types.read(RatesFile, paths.RATES).scales.get(scale, {})
    rows = _rows(path, file, scale, axes, only, tuned)
    for row in (row for row in rows if row.resources):
        with yaml_types.at(f"{path.name}: row {row.label!r}: resources"):
            slurm_settings.check(slurm_settings.asking(SlurmFile(), row.resources))
    _check_contradictions(rows, changes)

    # What holds for all of them.
    parts = [at_scale.report, file.report, section.report]
    report = _report(path, parts, at_scale.metrics, rows, only is not None)
    parts = [at_scale.eval, file.eval, section.eval, EvalSection(norms=norms)]
    evaluation = _evaluation(path, parts, measuring, at_scale.metrics, report.columns)
    beside = [name for part in parts for name in part.beside or () if ":" not in name]
    shown = [*report.columns, *(_own_name(name, at_scale.metrics) for name in beside)]
    report = dataclasses.replace(report, columns=_columns(shown, evaluation))
    base = [
        (f"{path.name}: base", file.base),
        (f"{path.name}: scales.{scale}.base", section.base),
    ]
    for where, values in [(f"scale {scale}", at_scale.set), *base]:
        _no_seed(where, values)

    # Every row at every choice of axis values and every seed.
    runs: list[RunSpec] = []
    for row in rows:
        where = f"{path.name}: row {row.label!r}"
        for chosen_values in itertools.product(*axes.values()):
            at = dict(zip(axes, chosen_values, strict=True))
            layers = [*base, (where, row.set), (f"{path.name}: axes", at)]
            layers += [(yaml_types.COMMAND_LINE, changes)]
            kinds = [values[KIND] for _, values in layers if KIND in values]
            searched = tuned.get(kinds[-1] if kinds else Discriminator.kind)
            first = [(f"scale {scale}", at_scale.set)]
            if searched and row.preset is None:
                first += [(paths.RATES.name, _pair(searched))]
            cell = _config([*first, *layers], where)
            for seed in chosen:
                config = _seeded(cell, seed)
                runs.append(RunSpec(file.name, row.label, at, scale, config, evaluation))
    _check_distinct(path, runs)
    report = dataclasses.replace(report, notes=(*report.notes, *_told_rates(tuned, rows, runs)))

    with yaml_types.at(f"{path.name}: eval.levels"):
        for judge in {run.levels_backbone for run in runs}:
            find(judge)
    return Grid(
        name=file.name,
        about=file.about,
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
    mapping = yaml_types.read(ScaleFile, paths.SCALES / f"{scale}.yaml").metrics
    found: dict[str, Claim] = {}
    for entry in file.claims:
        if entry.id in found:
            raise UserError(f"{path}: claim {entry.id!r} is there twice")
        given = dataclasses.asdict(entry)
        if scale not in (given.pop("scales") or known):
            continue
        given |= {name: tuple(given[name]) for name in ("these", "than")}
        given |= {"metric": _own_name(entry.metric, mapping)}
        given |= {"x": entry.x and _own_name(entry.x, mapping)}
        found[entry.id] = Claim(**given)
    return list(found.values())


def _pair(rates: Rates) -> dict[str, Any]:
    return {"optim.lr_g": rates.lr_g, "optim.lr_d": rates.lr_d}


def _told_rates(
    tuned: Mapping[str, Rates], rows: Sequence[Row], runs: Sequence[RunSpec]
) -> list[str]:
    """One line of the rates that experiments/rates.yaml gave to these runs."""
    presets = {row.label: row.preset for row in rows}
    has = {
        (presets[r.row] or r.config.discriminator.kind, r.config.optim.lr_g, r.config.optim.lr_d)
        for r in runs
    }
    said = [
        f"{name} {rates.lr_g:g} and {rates.lr_d:g} "
        + (f"(best of {rates.tried} tried alike)" if rates.tried else "(not searched for)")
        for name, rates in tuned.items()
        if (name, rates.lr_g, rates.lr_d) in has
    ]
    return [f"Learning rates of generator and discriminator: {'; '.join(said)}."] if said else []


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


def _seeds(
    asked: Sequence[int] | None, changes: dict[str, Any], usual: Sequence[int]
) -> Sequence[int]:
    """The seeds of the command line, in either form, or the usual ones."""
    if SEED in changes:
        seed = yaml_types.convert(SEED, changes.pop(SEED), "command line")
        if asked is not None:
            raise UserError(f"{SEED}={seed} and seeds={list(asked)} exclude each other")
        asked = [seed]
    chosen = usual if asked is None else asked
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(
            f"seeds={list(chosen)}: give distinct whole numbers such as 'seeds=[0,1,2]'"
        )
    return chosen


def _check_contradictions(rows: Sequence[Row], changes: Mapping[str, Any]) -> None:
    """An override may not turn a row's label into a lie."""
    for row in rows:
        for key in row.set.keys() & changes.keys():
            if yaml_types.convert(key, row.set[key], row.label) != yaml_types.convert(
                key, changes[key], "command line"
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


def _rows(
    path: Path,
    file: GridFile,
    scale: str,
    axes: Mapping[str, Any],
    only: str | Sequence[str] | None,
    tuned: Mapping[str, Rates],
) -> list[Row]:
    """The rows of this scale, or those of them that `only` names."""
    found: dict[str, Row] = {}
    presets: dict[str, dict[str, Any]] = {}
    if any(row.preset is not None for row in file.rows):  # methods that are rows of several grids
        presets = yaml_types.read(PresetsFile, paths.PRESETS).presets
    for row in file.rows:
        where = f"{path.name}: row {row.label!r}"
        if not row.label.strip():
            raise UserError(f"{where}: a label is what names the line of a table; give it one")
        if not row.label.isprintable() or row.label != row.label.strip():
            raise UserError(
                f"{where}: a label is one line of printable signs with no blank at its ends"
            )
        if row.scales is not None and scale not in row.scales:
            continue  # of one label there may be a row for each scale
        if row.label.lower() in found:
            raise UserError(f"{where} is there twice; labels name the lines of a table")
        if row.preset is not None and row.preset not in presets:
            raise UserError(f"{where}: {unknown('preset', row.preset, presets)}")
        settings = dict(presets.get(row.preset or "", {}))
        if row.preset and row.preset in tuned:
            settings |= _pair(tuned[row.preset])
        settings |= row.set
        for key in settings.keys() & axes.keys():
            raise UserError(f"{where} sets {key}, which is an axis; take it out of one of the two")
        _no_seed(where, settings)
        asked = _given([file.resources, file.scales.get(scale, Section()).resources, row.resources])
        found[row.label.lower()] = Row(row.label, settings, row.paper, asked, row.preset)
    here = list(found.values())
    if not here:
        raise UserError(f"{path.name}: has no row at scale {scale}")
    if only is None:
        return here
    wanted = [only] if isinstance(only, str) else only
    for label in wanted:
        if label.lower() not in {row.label.lower() for row in here}:
            raise UserError(unknown("row", label, [row.label for row in here]))
    keep = {label.lower() for label in wanted}
    return [row for row in here if row.label.lower() in keep]


def _evaluation(
    path: Path,
    parts: Sequence[EvalSection],
    asked: Mapping[str, Any],
    mapping: Mapping[str, str],
    shown: Sequence[str],
) -> EvalSpec:
    """What the files say, with what the command line asks for; its null is a value too."""
    given, hints = _given(parts), get_type_hints(EvalSpec)
    for key, value in asked.items():
        name = key.removeprefix("eval.")
        unset = value is None and type(None) in get_args(hints.get(name))
        given[name] = None if unset else yaml_types.evaluation(key, value)
    norms = given.get("norms", EvalSpec.norms)

    def own(names: Iterable[str]) -> list[str]:
        return [grid_key(_own_name(name, mapping), norms) for name in names]

    given["metrics"], beside = own(given.get("metrics", ())), own(given.pop("beside", ()))
    named = [name for name in own(shown) if name in vocabulary.WITH_NORMS]
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    again = given.pop("best", None)
    with yaml_types.at(path.name):
        check_metrics(given["metrics"])
        keys = metric_keys(given["metrics"])
        best = keys if again else [key for key in keys if f"best:{key}" in shown]
        named += [k for k in metric_keys(beside) if ":" not in k or k.partition(":")[2] in keys]
        given["metrics"] = tuple(dict.fromkeys([*given["metrics"], *named]))
        return EvalSpec(**given, best=() if again is False else tuple(best))


def _columns(names: Iterable[str], evaluation: EvalSpec) -> tuple[str, ...]:
    """Column names as `evaluation` has them; a metric of other norms stands beside its own."""
    found: dict[str, None] = {}
    for name in (grid_key(name, evaluation.norms) for name in names):
        beside = [f"{norms}:{name}" for norms in EVAL_NORMS]
        found |= dict.fromkeys([name, *(key for key in beside if key in evaluation.metrics)])
    return tuple(found)


def _report(
    path: Path,
    parts: Sequence[ReportSection],
    mapping: Mapping[str, str],
    rows: Sequence[Row],
    narrowed: bool,
) -> ReportSpec:
    """What the files say; notes of all of them are told."""
    given = _given(parts)
    given["columns"] = tuple(_own_name(name, mapping) for name in given.get("columns", ()))
    given["notes"] = tuple(note for part in parts for note in part.notes or ())
    if "rank_by" in given:
        given["rank_by"] = _own_name(given["rank_by"], mapping)
    report = ReportSpec(**given)
    labels = [row.label for row in rows]
    if report.baseline is not None and report.baseline not in labels and not narrowed:
        raise UserError(f"{path.name}: report: {unknown('baseline row', report.baseline, labels)}")
    return report


def _given(parts: Sequence[EvalSection | ReportSection | Resources]) -> dict[str, Any]:
    """The values that are given; a later part overrides an earlier one."""
    out: dict[str, Any] = {}
    for part in parts:
        out |= {k: v for k, v in dataclasses.asdict(part).items() if v is not None}
    return out


def _own_name(column: str, mapping: Mapping[str, str]) -> str:
    """`fd`, `rel:fd`, … with the metric's name at this scale."""
    prefix, _, name = column.rpartition(":")
    return f"{prefix}:{mapping.get(name, name)}" if prefix else mapping.get(name, name)


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
    """The same with another seed: what differs between the runs of a cell."""
    value = seed if type(seed) is int else yaml_types.convert(SEED, seed, "seeds")
    with yaml_types.at("seeds"):
        return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=value))


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
