"""What a user may have overlooked: rows that are one run in effect, runs with other settings."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from bench.config.paths import RunPaths
from bench.config.spec import Grid, RunSpec, changed, flatten
from bench.config.yaml_types import argument
from projgan.config import unused
from projgan.errors import DataError


def in_effect(grid: Grid) -> list[str]:
    """A line about each set of runs that differ only in what none of them uses."""
    groups: dict[str, list[RunSpec]] = defaultdict(list)
    for spec in grid.runs:
        idle = unused(spec.config)
        used = {key: value for key, value in changed(spec.config).items() if key not in idle}
        groups[json.dumps(used, sort_keys=True)].append(spec)
    lines = []
    for group in groups.values():
        flat = [flatten(spec.config) for spec in group]
        apart = [key for key in flat[0] if any(other[key] != flat[0][key] for other in flat)]
        if apart:
            idle = unused(group[0].config)
            why = " and ".join(dict.fromkeys(idle[key] for key in apart if key in idle))
            labels = list(dict.fromkeys(spec.label for spec in group))
            names = ", ".join(labels if len(labels) < 4 else [*labels[:2], "…", labels[-1]])
            lines.append(
                f"note: {len(labels)} rows ({names}) differ only in {', '.join(apart)}, which "
                f"nothing uses with {why}: they are one and the same training"
            )
    return list(dict.fromkeys(lines))


def other_settings(grid: Grid, runs_dir: Path) -> str:
    """What to add to the command that runs of this grid which are there were made with.

    Empty = none are there, or they are those that the command means.
    """
    asked = {spec.row: spec for spec in grid.runs}
    found: Counter[tuple[str, ...]] = Counter()
    seeds: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for path in sorted(runs_dir.glob("*/spec.json")):
        try:
            there = RunSpec.read(path)
        except DataError:
            continue
        known = there.grid == grid.name and there.row in asked
        if not known or not RunPaths(path.parent).record.exists():
            continue
        words: tuple[str, ...] = (argument("scale", there.scale),)
        if there.scale == grid.scale:
            ours, theirs = flatten(asked[there.row].config), flatten(there.config)
            keys = ours.keys() - grid.axes.keys() - {"train.seed"}
            words = tuple(
                argument(key, theirs[key]) for key in sorted(keys) if ours[key] != theirs[key]
            )
        found[words] += 1
        seeds[words].add(there.config.train.seed)
    for words, count in found.most_common(1):
        if not seeds[words] <= set(grid.seeds):
            words = (*words, argument("seeds", sorted(seeds[words])))
        if words:
            return f"{count} of its runs are in {runs_dir} with {' '.join(words)}: give that too"
    return ""
