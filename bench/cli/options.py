"""What the command line asks for: `key=value` texts -> checked `Options`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from bench.config import paths, slurm_settings, yaml_types
from bench.config.schema import SlurmFile
from bench.config.spec import Grid
from bench.dispatch import BACKENDS
from projgan.config import MAX_SEED
from projgan.errors import UserError, unknown

EXPORTS = ("parquet", "tensorboard", "pdf")  # what do=report can write beside its usual files

USAGE = """\
python run_bench.py grid=NAME [key=value …]      train, measure and report a grid
python run_bench.py grid=NAME do=plan            what would run, and where it stands
python run_bench.py grid=NAME do=status          how far it is
python run_bench.py grid=NAME do=watch           the same, live, with what is left
python run_bench.py grid=NAME do=cancel          ends the grid's jobs on a cluster
python run_bench.py grid=NAME do=report          tables and curves again, from the records
python run_bench.py grid=NAME do=verify          every published number against the records
python run_bench.py do=compare grids=A,B         row by row; runs=ID,ID: two runs
python run_bench.py do=claims                    the paper's findings against the records
python run_bench.py do=list                      the grids
python run_bench.py do=score real=PATH fake=PATH two folders, archives or .npy arrays, measured
python run_bench.py do=fetch-weights grid=NAME   the files of weights that a grid needs
python run_bench.py do=prepare data=NAME source=PATH   images packed for data.name=NAME
python run_bench.py do=sample run=ID n=64         images of the generator that a run kept
python run_bench.py do=prove-resume              that a killed run goes on to the bit; kills=3

  scale=lab|paper     small and here, or the paper's setting (default lab)
  only=LABEL          one row; 'only=[A,B]' several
  'seeds=[0,1,2]'     instead of the grid's own
  force=true          do the runs again from nothing; force=failed: the failed ones go on;
                      force=measure: the kept generators are measured again;
                      do=prepare: replace what was prepared of another state of the source
  runs_dir=, results_dir=, data_dir=   folders (runs, results, data)
'metrics=[fid,kid]' what do=score measures (default: all that needs no download)
  out=FILE            where do=score writes its table too, .json or .csv; the folder of do=sample
  truncation=0.7 interpolate=6     do=sample: styles nearer to their mean; images in between
  class=3             do=sample of a class-conditional run: one class; class=all: a row for each
  target=20           report: images to a value of the ranking metric, to a row's best
                      (row:LABEL), or to 5% above each run's own best (5%)
  'export=[parquet,tensorboard,pdf]'  report: all records in one typed file, the curves as
                         TensorBoard's scalars, the figures as PDF too
  dispatch=local      a process per GPU or CPU core; inprocess: one run after the other, here;
                      slurm: jobs on a cluster, with dispatch.partition=… and the like
  gpus_per_run=2      with dispatch=local: GPUs that train each run together
  train.batch=64 …    any field of the configuration, for every run of the grid; a list
                      ('train.batch=[16,64]') crosses every row with its values
  eval.fake=500 …     what is measured of every run, and how (eval.metrics=, eval.every_kimg=, …)"""

# Which keys each verb uses: it refuses the others, so that nothing that is typed goes unheard.
# SETTINGS are those of `yaml_types.settings`; all of dispatch.… goes with "dispatch".
SETTINGS = "train.batch=… and all of the configuration, eval.…"
_OF_A_GRID = ("grid", "scale", "only", "seeds", SETTINGS, "dispatch",
              "runs_dir", "results_dir", "data_dir")  # fmt: skip
USES: dict[str, tuple[str, ...]] = {
    "run": (*_OF_A_GRID, "force", "dispatch.dry_run", "gpus_per_run"),
    "plan": _OF_A_GRID,
    "status": _OF_A_GRID,
    "cancel": _OF_A_GRID,
    "report": (*_OF_A_GRID, "target", "export"),
    "watch": _OF_A_GRID,
    "verify": (*_OF_A_GRID, "target"),
    "fetch-weights": _OF_A_GRID,
    "compare": ("grids", "scale", "only", "seeds", "target", SETTINGS, "runs_dir", "results_dir"),
    "compare runs=": ("runs", "target", "runs_dir", "results_dir"),
    "claims": ("grid", "scale", "seeds", SETTINGS, "runs_dir"),
    "list": (),
    "score": ("real", "fake", "metrics", "out", "data_dir"),
    "prepare": ("data", "source", "data.resolution", "data.filter", "force", "data_dir"),
    "sample": ("run", "metrics", "eval.norms", "n", "seeds", "class", "truncation", "interpolate",
               "out", "runs_dir", "results_dir"),
    "prove-resume": ("grid", "scale", "only", "seeds", SETTINGS, "kills", "steps",
                     "runs_dir", "data_dir"),
}  # fmt: skip


@dataclass
class Options:
    """What the command line asks for, apart from the configuration."""

    grid: str | None = None
    do: str = "run"
    scale: str = "lab"
    only: list[str] | None = None  # labels of rows
    seeds: list[int] | None = None
    force: str = "none"  # none | failed | measure | all
    dispatch: str = "local"
    dry_run: bool = False  # shows what would be submitted
    gpus_per_run: int = 1  # of dispatch=local
    runs_dir: Path = Path("runs")
    results_dir: Path = Path("results")
    data_dir: Path = Path("data")
    target: str | None = None  # of the report: 20, row:LABEL, 5%
    export: list[str] | None = None  # of do=report: names of EXPORTS
    runs: list[str] | None = None  # of do=compare: ids
    grids: list[str] | None = None  # of do=compare: names
    data: str | None = None  # of do=prepare: the name, and where the images are
    source: Path | None = None
    real: Path | None = None  # of do=score: two sets of images
    fake: Path | None = None
    metrics: list[str] | None = None
    out: Path | None = None
    run: str | None = None  # of do=sample: an id, a folder or a .safetensors file
    n: int | None = None  # images; None = 64, or 8 of each class
    of_class: int | Literal["all"] | None = None  # class=
    truncation: float = 1.0
    interpolate: int = 0
    kills: int = 3  # of do=prove-resume: how often the run is killed
    steps: int = 8  # of do=prove-resume: it trains twice as many
    overrides: list[str] = field(default_factory=list)  # key=value, of the configuration
    cluster: list[str] = field(default_factory=list)  # key=value, of dispatch.key=value

    @property
    def on_cluster(self) -> bool:
        """Whether runs become jobs: dispatch=slurm, or a file of settings."""
        return self.dispatch == "slurm" or self.dispatch.endswith((".yaml", ".yml"))

    def slurm_settings(self, row: str | None = None, grid: Grid | None = None) -> SlurmFile:
        """What a job asks of the cluster, that of a row's run as the grid wants it."""
        path = None if self.dispatch == "slurm" else Path(self.dispatch)
        rows = grid.rows if grid else ()
        asked = next((entry.resources for entry in rows if entry.label == row), {})
        return slurm_settings.settings(path, self.cluster, asked)


def parse(words: Sequence[str]) -> Options:
    """Splits `key=value` texts into options and overrides; every mistake is a UserError."""
    options = Options()
    given: list[str] = []
    for i, text in enumerate(words):
        key, equals, value = text.partition("=")
        if not equals or not key or key.startswith("-"):
            raise UserError(_not_a_pair(words[i:]))
        if key in given:
            raise UserError(f"{key} is given twice")
        given.append(key)
        if key in CONVERT:
            setattr(options, _FIELDS.get(key, key), CONVERT[key](key, value))
        elif key.startswith("dispatch."):
            options.cluster.append(text.removeprefix("dispatch."))
        elif key in yaml_types.settings():
            options.overrides.append(text)
        else:
            raise UserError(yaml_types.unknown_key(key, CONVERT))
    _check(options, given)
    if not given:
        options.do = "list"
    return options


def _check(options: Options, given: Sequence[str]) -> None:
    """Refuses keys that do not go together."""
    verbs = [verb for verb in USES if "=" not in verb]
    if options.do not in verbs:
        raise UserError(unknown("verb", options.do, verbs))
    _check_used("compare runs=" if options.do == "compare" and options.runs else options.do, given)
    if options.on_cluster:
        if "gpus_per_run" in given:
            raise UserError("gpus_per_run is for dispatch=local; a job has dispatch.gpus=")
        options.slurm_settings()
    elif options.dispatch not in BACKENDS:
        raise UserError(unknown("dispatch", options.dispatch, [*BACKENDS, "slurm"]))
    elif options.cluster or options.dry_run:
        raise UserError("dispatch.…= settings are those of jobs: give dispatch=slurm with them")
    if "do" not in given and options.grid is None and given:
        raise UserError("grid=NAME is missing; python run_bench.py do=list shows the grids")


def _check_used(verb: str, given: Sequence[str]) -> None:
    """Refuses what the verb does not use, with who does and what the verb uses."""
    uses = USES[verb]
    for key in given:
        kind = SETTINGS if key in yaml_types.settings() else key
        if key.startswith("dispatch.") and key not in CONVERT:
            kind = "dispatch"
        if key == "do" or kind in uses or key in uses:
            continue
        others = [f"do={other}" for other, keys in USES.items() if kind in keys]
        ends = {name.split(".")[-1]: name for name in yaml_types.settings() if SETTINGS in uses}
        near = difflib.get_close_matches(key, ends, n=1, cutoff=0.8)
        hint = f" Did you mean {ends[near[0]]}=?" if near else ""
        raise UserError(
            f"do={verb} does not use {key}=, which is for {', '.join(others)}.{hint} "
            + (f"It uses: {', '.join(uses)}" if uses else "It uses no other key")
        )


def _not_a_pair(rest: Sequence[str]) -> str:
    """What to type instead of the first of these words, which is not key=value."""
    word, value = re.match(r"-*([^=:]*)[=:]?(.*)", rest[0], re.DOTALL).groups()  # type: ignore[union-attr]
    following = [part.lstrip("=") for part in rest[1:3] if part != "="]
    if not value and following and "=" not in following[0]:
        value = following[0]
    kinds = dict.fromkeys(USES, "do") | {file.stem: "grid" for file in paths.GRIDS.glob("*.yaml")}
    keys = [*CONVERT, *yaml_types.settings()]
    near = difflib.get_close_matches(word, [*keys, *kinds], n=1, cutoff=0.75)
    meant = "python run_bench.py --help shows how"
    if near and near[0] in keys:
        meant = f"write {yaml_types.argument(near[0], value or 'VALUE')}"
    elif near:
        meant = f"write {kinds[near[0]]}={near[0]}"
    return f"{rest[0]!r} is not key=value; {meant}"


Convert = Callable[[str, str], Any]  # key and text -> value


def _text(key: str, value: str) -> str:
    if not value:
        raise UserError(f"{key}= needs a value")
    return value


def _path(key: str, value: str) -> Path:
    return Path(_text(key, value)).expanduser()


def _labels(key: str, value: str) -> list[str]:
    parsed = yaml_types.parse_value(value, key) if value.startswith("[") else [value]
    _text(key, "".join(map(str, parsed)))
    return [str(label) for label in parsed]


def _names(key: str, value: str) -> list[str]:
    parts = value.removeprefix("[").removesuffix("]").split(",")
    _text(key, "".join(parts).strip())
    return [part.strip() for part in parts if part.strip()]


def _exports(key: str, value: str) -> list[str]:
    found = _names(key, value)
    for name in found:
        if name not in EXPORTS:
            raise UserError(unknown("export", name, EXPORTS))
    return found


def _force(key: str, value: str) -> str:
    known = {"true": "all", "all": "all", "false": "none", "failed": "failed", "measure": "measure"}
    if value.lower() not in known:
        raise UserError(unknown("value of force", value, ["true", "false", "failed", "measure"]))
    return known[value.lower()]


def _that(fits: Callable[[Any], bool], wanted: str) -> Convert:
    """A conversion to values that `fits` accepts; `wanted` are the words for them."""

    def convert(key: str, value: str) -> Any:
        parsed = yaml_types.parse_value(value, key)
        if not fits(parsed):
            raise UserError(f"{key}={value}: give {wanted}")
        return parsed

    return convert


def _seeds(key: str, value: str) -> list[int]:
    parsed = yaml_types.parse_value(value, key)
    seeds = parsed if isinstance(parsed, list) else [parsed]
    whole = all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
    if not (seeds and whole) or len(set(seeds)) < len(seeds):
        raise UserError(
            f"{key}={value}: give whole numbers from 0 to {MAX_SEED}, each once, such as "
            "'seeds=[0,1,2]'"
        )
    return seeds


_FIELDS = {"class": "of_class", "dispatch.dry_run": "dry_run"}  # key -> field of another name
_OF_KEY: dict[str, Convert] = {
    "only": _labels,
    "seeds": _seeds,
    "force": _force,
    "export": _exports,
    "class": _that(lambda v: v == "all" or (type(v) is int and v >= 0),
                   "the number of a class, from 0, or all"),
    "truncation": _that(lambda v: type(v) in (int, float) and 0 <= v <= 2, "a number from 0 to 2"),
}  # fmt: skip
_OF_TYPE: dict[Any, Convert] = {
    str: _text,
    Path: _path,
    list[str]: _names,
    int: _that(lambda v: type(v) is int and v >= 1, "a whole number from 1"),
    bool: _that(lambda v: isinstance(v, bool), "true or false"),
}


def _converts() -> dict[str, Convert]:
    """Every key but those of the configuration -> its conversion, by its field's type."""
    keys = {name: key for key, name in _FIELDS.items()}
    hints = {keys.get(name, name): hint for name, hint in get_type_hints(Options).items()}
    return {
        key: _OF_KEY.get(key) or _OF_TYPE[yaml_types.kinds(hint)[0]]
        for key, hint in hints.items()
        if key not in ("overrides", "cluster")
    }


CONVERT = _converts()
