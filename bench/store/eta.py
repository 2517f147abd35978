"""What the runs that are left will cost, from what runs like them took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    runs: Sequence[RunSpec],
    at: Sequence[RunState],
    runs_dir: Path,
    gpus: Callable[[RunSpec], int],
) -> Estimate:
    """Estimates what is left.

    A run is taken to need as long per image, measuring included, as finished runs of its
    configuration did; where there is none, as those with the same networks, resolution and batch.

    Args:
        at: where each run stands.
        runs_dir: whose records are read.
        gpus: of a run. 0 = it is done on a CPU.
    """
    if all(now.settled for now in at):
        return Estimate(0.0, 0, 0)
    measured: dict[tuple[object, ...], list[float]] = {}
    for config, on_gpu, seconds in _paces(runs_dir):
        for key in _keys(config):
            measured.setdefault((on_gpu, *key), []).append(seconds)
    hours, known, unknown = 0.0, 0, 0
    for run, now in zip(runs, at, strict=True):
        if now.settled:
            continue
        found = (measured.get((gpus(run) > 0, *key)) for key in _keys(run.config))
        pace = next((median(values) for values in found if values), None)
        if pace is None:
            unknown += 1
        else:
            known += 1
            hours += (run.total_images - now.nimg) * pace * max(gpus(run), 1) / 3600
    return Estimate(hours, known, unknown)


def _paces(runs_dir: Path) -> Iterator[tuple[Config, bool, float]]:
    """Configuration, whether on a GPU, and seconds per image of every finished run."""
    known: dict[str, Config] = {}  # thousands of runs differ in their seeds alone
    for path in sorted(runs_dir.glob("*/record.json")):
        try:
            record = records.load(path)
            given: dict[str, Any] = record["config"] if record else {}
            given.get("train", {}).pop("seed", None)
            if (text := repr(given)) not in known:
                known[text] = from_dict(given)
            config = known[text]
        except (UserError, TypeError, KeyError, AttributeError):  # another version's, or damaged
            continue
        if record and record["status"] == "finished" and record["snapshots"]:
            device: Any = record.get("environment", {}).get("device")
            last, seconds = record["snapshots"][-1]["nimg"], record["time"].get("total_s", 0.0)
            if seconds and last and device:
                yield config, device != "cpu", seconds / last


def _keys(config: Config) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """What runs of the same pace have in common: exactly, then roughly."""
    parts = (config.backbone, config.projection, config.discriminator, config.generator)
    size = (config.data.resolution, config.train.batch)
    return (*parts, *size), (
        config.backbone.name,
        config.backbone.zoo,
        config.generator.name,
        *size,
    )
