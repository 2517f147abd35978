"""Grid file + scale + command line -> a checked `Grid` of frozen dataclasses.

The only module that knows OmegaConf: what it returns is plain. Settings override each other in the
order defaults < scale < grid base < the grid's section for the scale < row < axes < seed < command
line. Everything is checked here, before anything runs.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import json
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from bench import columns, compare, paths, speedup
from bench.claims import Claim
from bench.metrics.table import check_metrics, metric_keys
from bench.schema import (
    ClaimsFile,
    EvalSection,
    GridFile,
    ReportSection,
    Resources,
    ScaleFile,
    Section,
    SlurmFile,
)
from bench.spec import EvalSpec, Grid, ReportSpec, Row, RunSpec
from projgan.backbones.registry import find
from projgan.config import Config, from_dict
from projgan.errors import UserError, unknown

SEED = "train.seed"
MOST_NODES = 100_000  # values in a YAML file


def list_grids() -> list[tuple[str, str]]:
    """Name and one line about each grid that ships."""
    files = sorted(paths.GRIDS.glob("*.yaml"))
    return [(file.stem, _read(GridFile, file).about) for file in files]


def list_scales() -> list[str]:
    return sorted(file.stem for file in paths.SCALES.glob("*.yaml"))


def load(
    grid: str,
    scale: str = "lab",
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    only: str | Sequence[str] | None = None,
) -> Grid:
    """Loads and checks a grid.

    Args:
        grid: Name of a file in experiments/grids/, or the path of a YAML file.
        scale: Name of a file in experiments/scales/.
        overrides: `key=value` texts that hold for every run. A key that is an axis replaces it.
        seeds: Instead of the grid's own.
        only: Label or labels of the rows to keep.

    Raises:
        UserError: One line that names what is wrong and what would be right.
    """
    path = _grid_path(grid)
    if scale not in (known := list_scales()):
        raise UserError(unknown("scale", scale, known))
    file, at_scale = _read(GridFile, path), _read(ScaleFile, paths.SCALES / f"{scale}.yaml")
    section = file.scales.get(scale, Section())
    _check_names(path, file, known)

    # Rows, axes and seeds, as the command line leaves them.
    given = parse_overrides(overrides)
    changes = dict(given)
    chosen = _seeds(seeds, changes, section.seeds or file.seeds or [0])
    axes = {key: _axis(path, key, values) for key, values in file.axes.items()}
    for key in axes.keys() & changes.keys():
        axes[key] = (_typed(key, changes.pop(key), "command line"),)
    rows = _rows(path, file, scale, axes, only)
    for row in rows:
        with _at(f"{path.name}: row {row.label!r}: resources"):
            _check_slurm(_asking(SlurmFile(), row.resources))
    _check_contradictions(rows, changes)

    # What holds for all of them.
    mapping = at_scale.metrics
    report = _report(path, [file.report, section.report], mapping, rows, only is not None)
    parts = [at_scale.eval, file.eval, section.eval]
    evaluation = _evaluation(path, parts, mapping, report.columns)
    if report.compare_to is not None and only is None:
        with _at(f"{path.name}: report"):
            compare.check(report.compare_to, [row.label for row in rows], file.axes)
    if report.target is not None:
        with _at(f"{path.name}: report"):
            labels = [row.label for row in rows]
            speedup.check(report.target, report.rank_by, labels, only is not None)
    base = [
        (f"scale {scale}", at_scale.set),
        (f"{path.name}: base", file.base),
        (f"{path.name}: scales.{scale}.base", section.base),
    ]
    for where, values in base:
        _no_seed(where, values)

    # Every row at every choice of axis values and every seed.
    runs: list[RunSpec] = []
    for row in rows:
        where = f"{path.name}: row {row.label!r}"
        for values in itertools.product(*axes.values()):
            at = dict(zip(axes, values, strict=True))
            for seed in chosen:
                layers = [*base, (where, row.set), (f"{path.name}: axes", at)]
                layers += [("seeds", {SEED: seed}), ("command line", changes)]
                config = _config(layers, where)
                runs.append(RunSpec(file.name, row.label, at, scale, config, evaluation))
    _check_distinct(path, runs)

    with _at(f"{path.name}: eval.levels"):
        for run in runs:
            find(run.judge)
    made = Grid(
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
    with _at(f"{path.name}: report"):
        columns.check(made)
    return made


def slurm_settings(
    path: Path | None,
    texts: Sequence[str] = (),
    resources: Mapping[str, Any] = types.MappingProxyType({}),
) -> SlurmFile:
    """What jobs ask of a cluster.

    Args:
        path: the user's settings. None = those that ship.
        texts: `key=value` of the command line, which win over all others.
        resources: what the grid asks for, which wins over the file.

    Raises:
        UserError: one line about an unknown key or a value that cannot be.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key in _USERS_OWN:
            file = path or paths.DISPATCH / "slurm.yaml"
            raise UserError(f"dispatch.{key} is for your own file alone: write it into {file}")
        if key not in (known := [f.name for f in dataclasses.fields(SlurmFile)]):
            raise UserError(unknown("key", f"dispatch.{key}", [f"dispatch.{k}" for k in known]))
        changes[key] = parse_value(value, f"dispatch.{key}")
    made: SlurmFile = _read(SlurmFile, path or paths.DISPATCH / "slurm.yaml")
    made = _asking(_asking(made, resources), changes)
    _check_slurm(made)
    return made


def _asking(made: SlurmFile, values: Mapping[str, Any]) -> SlurmFile:
    """The same settings with other values."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(made), dict(values))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"dispatch.{key}={values.get(str(key))}: {_first_line(error)}") from error
    changed: Any = OmegaConf.to_object(merged)
    return changed


_USERS_OWN = ("setup", "options")  # words for a shell, and whatever sbatch understands
_WORD = re.compile(r"[\w.,:&|()\[\]*@+=!/-]+")  # of sbatch; no space, quote or line break


def _check_slurm(made: SlurmFile) -> None:
    for f in dataclasses.fields(made):
        value = getattr(made, f.name)
        if isinstance(value, str) and not _WORD.fullmatch(value):
            raise UserError(f"dispatch.{f.name}={value!r}: give a name as sbatch takes it")
        least = 0 if f.name in ("gpus", "warning") else 1
        if isinstance(value, int | float) and not least <= value < math.inf:
            raise UserError(f"dispatch.{f.name}={value}: give {least} or more")
    for name, text in made.options.items():
        if not re.fullmatch(r"[a-z][a-z-]*", name) or not _WORD.fullmatch(text):
            raise UserError(f"dispatch.options: {name}={text!r}: give names as sbatch takes them")
    if made.warning >= made.time * 60:
        raise UserError(
            f"dispatch.warning={made.warning} seconds is not less than dispatch.time={made.time} "
            "minutes: a job would be requeued before it begins"
        )


def load_claims(scale: str = "lab", path: Path = paths.CLAIMS) -> list[Claim]:
    """The paper's findings as checks, with the metric's name at a scale; `claims.check` is next.

    Raises:
        UserError: One line that names what is wrong in the file.
    """
    if scale not in (known := list_scales()):
        raise UserError(unknown("scale", scale, known))
    file: ClaimsFile = _read(ClaimsFile, path)
    mapping = _read(ScaleFile, paths.SCALES / f"{scale}.yaml").metrics
    found: dict[str, Claim] = {}
    for entry in file.claims:
        if entry.id in found:
            raise UserError(f"{path}: claim {entry.id!r} is there twice")
        given = dataclasses.asdict(entry)
        given |= {name: tuple(given[name]) for name in ("these", "than")}
        found[entry.id] = Claim(**given | {"metric": mapping.get(entry.metric, entry.metric)})
    return list(found.values())


def parse_value(text: str, key: str) -> Any:
    """A value as the command line gives it: YAML, so 1e-3 is a number and [1, 2] a list."""
    try:
        return _plain(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except Exception as error:  # the YAML library's own errors, or an interpolation's
        raise UserError(f"{key}={text}: not a value ({_first_line(error)})") from error


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a dict; the keys are checked, the values typed later."""
    out: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        _check_key(key, "command line")
        if key in out:
            raise UserError(f"{key} is given twice on the command line")
        out[key] = parse_value(value, key)
    return out


@functools.cache
def fields() -> dict[str, Any]:
    """Dotted key -> type of every configuration field."""
    return {
        f"{group}.{name}": hint
        for group, cls in get_type_hints(Config).items()
        for name, hint in get_type_hints(cls).items()
    }


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """The message for a key that is no field; lists its own group where it names one.

    Args:
        others: keys beside the configuration's that would have been right.
    """
    group = [name for name in fields() if name.split(".")[0] == key.split(".")[0]]
    if group:
        return unknown("key", key, group)
    near = difflib.get_close_matches(key, [*others, *fields()], n=1, cutoff=0.5)
    groups = [f"{name}.…" for name in dict.fromkeys(name.split(".")[0] for name in fields())]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown key {key!r}.{hint} Known: {', '.join([*others, *groups])}"


def _grid_path(grid: str) -> Path:
    if grid.endswith((".yaml", ".yml")):
        if not Path(grid).is_file():
            raise UserError(f"grid={grid}: there is no such file")
        return Path(grid)
    known = sorted(file.stem for file in paths.GRIDS.glob("*.yaml"))
    if grid not in known:
        raise UserError(unknown("grid", grid, known) + " (or the path of a .yaml file)")
    return paths.GRIDS / f"{grid}.yaml"


def _read(cls: type[Any], path: Path) -> Any:
    """A YAML file as an instance of `cls`."""
    try:
        if _size(path) > MOST_NODES:
            raise UserError(f"{path}: its aliases unfold to more than {MOST_NODES} values")
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise UserError(f"{path}: must hold keys and values at its top level")
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), loaded))
        _check_flat(path, made)
        return made
    except ConfigKeyError as error:
        owner: Any = error.object_type
        known = isinstance(owner, type) and dataclasses.is_dataclass(owner)
        names = [f.name for f in dataclasses.fields(owner)] if known else []
        raise UserError(f"{path}: {unknown('key', str(error.full_key), names)}") from error
    except MissingMandatoryValue as error:
        raise UserError(f"{path}: {error.full_key} is missing") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{path}: {key}: {_first_line(error)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file") from error
    except UserError:
        raise
    except Exception as error:  # the YAML library's own
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error


def _check_flat(path: Path, made: Any) -> None:
    """Refuses a list or mapping inside a list of plain values, which OmegaConf lets pass."""
    hints = get_type_hints(type(made))
    for f in dataclasses.fields(made):
        value = getattr(made, f.name)
        items = value.values() if isinstance(value, dict) else value
        if not isinstance(value, list | dict):
            items = [value]
        for item in items:
            if dataclasses.is_dataclass(item):
                _check_flat(path, item)
            elif (
                item is not value
                and isinstance(item, list | dict)
                and "Any" not in str(hints[f.name])
            ):
                raise UserError(f"{path}: {f.name}: give plain values, not {item!r}")


def _size(path: Path) -> int:
    """How many values a YAML file unfolds to; nested aliases make a short file endless."""
    counted: dict[int, int] = {}

    def count(node: Any) -> int:
        if not isinstance(node.value, list):
            return 1
        if id(node) not in counted:
            counted[id(node)] = MOST_NODES + 1  # an alias of what holds it never ends
            parts = itertools.chain.from_iterable(
                part if isinstance(part, tuple) else (part,) for part in node.value
            )
            counted[id(node)] = 1 + sum(map(count, parts))
        return counted[id(node)]

    with path.open("rb") as file:
        root = yaml.compose(file, Loader=yaml.SafeLoader)
    return 0 if root is None else count(root)


def _check_names(path: Path, file: GridFile, scales: list[str]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", file.name) or file.name == "reference":
        raise UserError(
            f"{path.name}: name={file.name!r} becomes a folder of results; use letters, digits, "
            "- and _, and not 'reference'"
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
        seed = _typed(SEED, changes.pop(SEED), "command line")
        if asked is not None:
            raise UserError(f"{SEED}={seed} and seeds={list(asked)} exclude each other")
        asked = [seed]
    chosen = usual if asked is None else asked
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"seeds={list(chosen)}: give distinct whole numbers such as seeds=[0,1,2]")
    return chosen


def _check_contradictions(rows: Sequence[Row], changes: Mapping[str, Any]) -> None:
    """An override may not turn a row's label into a lie."""
    for row in rows:
        for key in row.set.keys() & changes.keys():
            if _typed(key, row.set[key], row.label) != _typed(key, changes[key], "command line"):
                raise UserError(
                    f"{key}={changes[key]} contradicts row {row.label!r}, which sets it to "
                    f"{row.set[key]}; leave it out, or choose other rows with only=LABEL"
                )


def _axis(path: Path, key: str, values: Sequence[Any]) -> tuple[Any, ...]:
    where = f"{path.name}: axes"
    _no_seed(where, [key])
    typed = tuple(_typed(key, value, where) for value in values)
    if not typed or len(set(map(repr, typed))) < len(typed):
        raise UserError(f"{where}: {key}={list(values)}: give one or more distinct values")
    return typed


def _rows(
    path: Path,
    file: GridFile,
    scale: str,
    axes: Mapping[str, Any],
    only: str | Sequence[str] | None,
) -> list[Row]:
    """The rows of this scale, or those of them that `only` names."""
    found: dict[str, Row] = {}
    for row in file.rows:
        where = f"{path.name}: row {row.label!r}"
        if not row.label.strip():
            raise UserError(f"{where}: a label is what names the line of a table; give it one")
        if row.label.lower() in found:
            raise UserError(f"{where} is there twice; labels name the lines of a table")
        for key in row.set.keys() & axes.keys():
            raise UserError(f"{where} sets {key}, which is an axis; take it out of one of the two")
        _no_seed(where, row.set)
        asked = _given([file.resources, file.scales.get(scale, Section()).resources, row.resources])
        found[row.label.lower()] = Row(row.label, row.set, row.paper, asked)
    here = [found[r.label.lower()] for r in file.rows if r.scales is None or scale in r.scales]
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
    path: Path, parts: Sequence[EvalSection], mapping: Mapping[str, str], shown: Sequence[str]
) -> EvalSpec:
    given = _given(parts)
    given["metrics"] = tuple(mapping.get(name, name) for name in given.get("metrics", ()))
    if "also_at_kimg" in given:
        given["also_at_kimg"] = tuple(given["also_at_kimg"])
    again = given.pop("best", None)
    with _at(path.name):
        check_metrics(given["metrics"])
        keys = metric_keys(given["metrics"])
        best = keys if again else [key for key in keys if f"best:{key}" in shown]
        return EvalSpec(**given, best=() if again is False else tuple(best))


def _report(
    path: Path,
    parts: Sequence[ReportSection],
    mapping: Mapping[str, str],
    rows: Sequence[Row],
    narrowed: bool,
) -> ReportSpec:
    given = _given(parts)
    given["columns"] = tuple(_own_name(name, mapping) for name in given.get("columns", ()))
    given["notes"] = tuple(given.get("notes", ()))
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
            _check_key(key, origin)
            group, name = key.split(".")
            nested.setdefault(group, {})[name] = _typed(key, value, origin)
    with _at(where):
        config = from_dict(nested)
        find(config.backbone)
        return config


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Says where the mistake is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_key(key: str, where: str) -> None:
    if key not in fields():
        raise UserError(f"{where}: {unknown_key(key)}")


def _no_seed(where: str, keys: Iterable[str]) -> None:
    if SEED in keys:
        raise UserError(f"{where}: {SEED} is set by `seeds: [0, 1]`")


def _typed(key: str, value: Any, where: str) -> Any:
    """`value` converted to the type of the field `key`."""
    _check_key(key, where)
    with _at(where):
        return _convert(key, json.dumps(value, default=str))


@functools.cache
def _convert(key: str, value_json: str) -> Any:
    # Cached, since a grid repeats the same few settings in all its runs.
    value, hint = json.loads(value_json), fields()[key]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices and value not in choices:
        raise UserError(unknown(key, str(value), choices))
    group, name = key.split(".")
    try:
        typed = _plain(OmegaConf.merge(_template(group), {name: value}))[name]
    except OmegaConfBaseException as error:
        raise UserError(f"{key}={value}: give {_wanted(hint)}") from error
    strange = isinstance(value, dict) or (hint is bool and not isinstance(value, bool))
    if strange or (isinstance(typed, float) and not math.isfinite(typed)):
        raise UserError(f"{key}={value}: give {_wanted(hint)}")
    return tuple(typed) if isinstance(typed, list) else typed


@functools.cache
def _template(group: str) -> DictConfig:
    return OmegaConf.structured(get_type_hints(Config)[group])


def _wanted(hint: Any) -> str:
    """A type in words, for an error message."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list of whole numbers such as [1,2]"
    if get_origin(hint) in (Union, types.UnionType):
        return _wanted(get_args(hint)[0]) + " or null"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]


def _check_distinct(path: Path, runs: Sequence[RunSpec]) -> None:
    seen: dict[str, RunSpec] = {}
    for run in runs:
        if (other := seen.setdefault(run.run_id, run)) is not run:
            raise UserError(
                f"{path.name}: {other.name!r} and {run.name!r} are one and the same run; "
                "a table needs rows that differ"
            )


def _plain(value: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(value, resolve=True)
    return dict(plain)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
