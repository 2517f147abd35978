"""Estimates of the time that runs still need, from what runs like them took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.config.spec import RunSpec
from bench.store import record as records
from bench.store.record import RunState
from projgan.config import Config, from_dict
from projgan.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """Hours of GPUs (or of slots, where there is none) until all runs are done."""

    hours: float
    known: int  # runs that it counts
    unknown: int  # runs like which none was measured

    def text(self, unit: str) -> str:
        """One line; empty where nothing is known."""
        if not self.known:
            return ""
        rest = f", and {self.unknown} runs like which none was measured" if self.unknown else ""
        return f"about {self.hours:.2g} {unit} left, from measured throughput{rest}"


def estimate(
    states: Sequence[tuple[RunSpec, RunState]], runs_dir: Path, gpus: Callable[[RunSpec], int]
) -> Estimate:
    """Estimates what is left of runs.

    A run is taken to need as long per image, measuring included, as finished runs of its
    configuration did; where there is none, as those with the same networks, resolution and batch.

    Args:
        states: of each run.
        runs_dir: whose records are read.
        gpus: of a run. 0 = it is done on a CPU.
    """
    left = [(run, state) for run, state in states if not state.settled]
    measured = _paces(runs_dir) if left else {}
    hours, known = 0.0, 0
    for run, state in left:
        found = (measured.get((gpus(run) > 0, *key)) for key in _keys(run.config))
        pace = next((median(values) for values in found if values), None)
        if pace is not None:
            known += 1
            hours += (run.total_images - state.nimg) * pace * max(gpus(run), 1) / 3600
    return Estimate(hours, known, len(left) - known)


def seconds_per_image(record: Mapping[str, Any]) -> float | None:
    """Seconds per image of a run so far, measuring included; None = not known."""
    snapshots, seconds = record["snapshots"], record["time"].get("total_s", 0.0)
    images = snapshots[-1]["nimg"] if snapshots else 0
    return seconds / images if seconds and images else None


def _paces(runs_dir: Path) -> dict[tuple[object, ...], list[float]]:
    """Seconds per image of finished runs, by whether on a GPU and each key of the configuration."""
    configs: dict[str, Config] = {}  # thousands of runs differ in their seeds alone
    found: dict[tuple[object, ...], list[float]] = {}
    for path in sorted(runs_dir.glob("*/record.json")):
        try:
            record = records.load(path) or {}
            given: dict[str, Any] = record["config"]
            given.get("train", {}).pop("seed", None)
            if (text := repr(given)) not in configs:
                configs[text] = from_dict(given)
            pace, device = seconds_per_image(record), record["environment"].get("device")
        except (UserError, TypeError, KeyError, AttributeError):  # another version's, or damaged
            continue
        if record["status"] == "finished" and pace and device:
            for key in _keys(configs[text]):
                found.setdefault((device != "cpu", *key), []).append(pace)
    return found


def _keys(config: Config) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Two keys of runs of the same pace: exact, then rough."""
    parts = (config.backbone, config.projection, config.discriminator, config.generator)
    size = (config.data.resolution, config.train.batch)
    rough = (config.backbone.name, config.backbone.zoo, config.generator.name)
    return (*parts, *size), (*rough, *size)
