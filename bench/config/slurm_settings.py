"""What the jobs of a grid ask of a cluster: user's file, grid's wishes, command line."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config import paths, yaml_types
from bench.config.schema import SlurmFile
from projgan.errors import UserError, unknown

_USERS_OWN = ("setup", "options")  # words for a shell, and whatever sbatch understands
_NEEDED = ("array", "job-name", "open-mode", "output", "signal")  # as jobs are submitted
_WORD = re.compile(r"[\w.,:&|()\[\]*@+=!/-]+")  # of sbatch; no space, quote or line break


def settings(
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
        changes[key] = yaml_types.parse_value(value, f"dispatch.{key}")
    made: SlurmFile = yaml_types.read(SlurmFile, path or paths.DISPATCH / "slurm.yaml")
    made = asking(asking(made, resources), changes)
    check(made)
    return made


def check(made: SlurmFile) -> None:
    """Raises UserError, one line, where sbatch could not take a value."""
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
        if name in _NEEDED:
            raise UserError(f"dispatch.options: {name}: jobs are found and warned by it; leave it")
    if made.warning >= made.time * 60:
        raise UserError(
            f"dispatch.warning={made.warning} seconds is not less than dispatch.time={made.time} "
            "minutes: a job would be requeued before it begins"
        )


def asking(made: SlurmFile, resources: Mapping[str, Any]) -> SlurmFile:
    """The same settings with other values."""
    found: SlurmFile = yaml_types.changed(made, resources, "dispatch.")
    return found
