"""What a user may have overlooked: rows that are one run in effect, runs with other settings."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from bench.config.paths import RunPaths
from bench.config.spec import Grid, RunSpec, changed, flatten
from bench.config.yaml_types import argument
from projgan.config import unused
from projgan.errors import DataError


def same_in_effect(grid: Grid) -> list[str]:
    """A line about each set of rows that differ only in settings that none of them uses."""
    groups: dict[str, list[RunSpec]] = defaultdict(list)
    for spec in grid.runs:
        idle = unused(spec.config)
        used = {key: value for key, value in changed(spec.config).items() if key not in idle}
        groups[json.dumps(used, sort_keys=True)].append(spec)
    lines: dict[str, None] = {}
    for group in groups.values():
        flat = [flatten(spec.config) for spec in group]
        differing = [key for key in flat[0] if any(one[key] != flat[0][key] for one in flat)]
        if differing:
            idle = unused(group[0].config)
            why = " and ".join(dict.fromkeys(idle[key] for key in differing if key in idle))
            labels = list(dict.fromkeys(spec.label for spec in group))
            names = ", ".join(labels if len(labels) < 4 else [*labels[:2], "…", labels[-1]])
            lines[
                f"note: {len(labels)} rows ({names}) differ only in {', '.join(differing)}, which "
                f"nothing uses with {why}: they are one and the same training"
            ] = None
    return list(lines)


def other_settings(grid: Grid, runs_dir: Path) -> str:
    """The words to add to a command so that it means the grid's runs that are in `runs_dir`.

    Empty = none are there, or they are those that the command means.
    """
    asked = {spec.row: spec for spec in grid.runs}
    seeds: dict[tuple[str, ...], list[int]] = defaultdict(list)  # by the words that are missing
    for path in sorted(runs_dir.glob("*/spec.json")):
        try:
            spec = RunSpec.read(path)
        except DataError:
            continue
        is_row = spec.grid == grid.name and spec.row in asked
        if is_row and RunPaths(path.parent).record.exists():
            seeds[_missing_words(spec, asked[spec.row], grid)].append(spec.config.train.seed)
    if not seeds:
        return ""
    words = max(seeds, key=lambda words: len(seeds[words]))
    count = len(seeds[words])
    if not set(seeds[words]) <= set(grid.seeds):
        words = (*words, argument("seeds", sorted(set(seeds[words]))))
    if not words:
        return ""
    return f"{count} of its runs are in {runs_dir} with {' '.join(words)}: give that too"


def _missing_words(spec: RunSpec, asked: RunSpec, grid: Grid) -> tuple[str, ...]:
    """The settings of a run that differ from those of its row in the grid as it was asked for."""
    if spec.scale != grid.scale:
        return (argument("scale", spec.scale),)
    ours, theirs = flatten(asked.config), flatten(spec.config)
    keys = ours.keys() - grid.axes.keys() - {"train.seed"}
    return tuple(argument(key, theirs[key]) for key in sorted(keys) if ours[key] != theirs[key])
