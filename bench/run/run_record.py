"""The record of a run while it is being done: what it holds, what it lacks, what is added."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from bench.config.metrics import EVAL_NORMS, METRICS
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.metrics.evaluate import Scores
from bench.run.throughput import throughput
from bench.store import record as records
from bench.store.environment import environment
from bench.store.lease import Lease
from bench.store.record import Record
from projgan.backbones import describe
from projgan.checkpoint import load_checkpoint
from projgan.data.dataset import subset_fingerprint, training_indices
from projgan.parallel import world
from projgan.train import Snapshot

log = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """Record of one run, kept in memory until `save` writes it.

    Attributes:
        content: of record.json, see `bench.store.record`.
        due: numbers of images after which a snapshot is kept, ascending.
    """

    paths: RunPaths
    spec: RunSpec
    lease: Lease
    content: Record = field(default_factory=dict)
    due: list[int] = field(default_factory=list)

    def load(self) -> None:
        """Reads the record, or makes a new one; a damaged one is set aside, and it alone.

        Raises:
            DataError: the record cannot be read or is of a newer version; nothing was touched.
        """
        try:
            found = records.load(self.paths.record)
        except records.DamagedRecord as error:
            self.lease.fence()
            aside = records.set_aside(self.paths.record)
            log.warning("%s (kept as %s)", error, aside.name)
            found = None
        if found is None:
            found = self._of_what_was_kept()
        # Another grid may have asked for other snapshots of the same run: all are kept.
        self.due = sorted({*self.spec.snapshot_at, *found.get("snapshot_at", ())})
        self.content = found | {"snapshot_at": list(self.due)}

    def _of_what_was_kept(self) -> Record:
        """A record of what the run's folder holds: nothing, or generators that were kept."""
        kept = self.paths.kept()
        state = load_checkpoint(self.paths.checkpoint) if kept else None
        # When they were reached is lost; steps take the same time each, so this is close.
        pace = state["train_seconds"] / max(state["nimg"], 1) if state else 0.0
        snapshots: list[dict[str, Any]] = [
            {"nimg": n, "train_seconds": n * pace, "metrics": {}, "samples": self._pictures(n)}
            for n in kept
        ]
        new = records.new(self.spec, records.now())
        return new | {"snapshot_at": kept, "snapshots": snapshots}

    def _pictures(self, nimg: int) -> dict[str, str]:
        """The pictures of a snapshot that are there, by norms."""
        files = {norms: self.paths.samples(nimg, norms) for norms in EVAL_NORMS}
        return {k: str(v.relative_to(self.paths.dir)) for k, v in files.items() if v.exists()}

    def save(self) -> None:
        records.save(self.paths.record, self.content)

    # What it holds, and what it lacks.

    @property
    def status(self) -> str:
        """One of `records.STATUSES`."""
        return str(self.content["status"])

    def snapshot(self, nimg: int) -> dict[str, Any] | None:
        """The entry of a snapshot; None = there is none."""
        found = [s for s in self.content["snapshots"] if s["nimg"] == nimg]
        return found[0] if found else None

    def lacking(self) -> dict[int, list[str]]:
        """Return what is to be measured: images -> keys of the record."""
        return records.unmeasured(self.content, self.spec, self.due)

    def measurable(self) -> dict[int, list[str]]:
        """Return what is lacking and can be measured without training."""
        return records.measurable(self.content, self.spec, self.paths, self.due)

    def best_due(self) -> dict[int, list[str]]:
        """Best snapshots that are to be measured on fresh samples: images -> keys."""
        return records.best_due(self.content, self.spec, self.paths)

    def kept_to_measure(self) -> list[int]:
        """Snapshots that lack something and are measured without training.

        What needs the raw generator waits for training, which gives the checkpoint's snapshot once
        more.
        """
        lacking = self.lacking() if self.content["snapshots"] else {}
        again = None
        if any(records.only_in_training(key) for keys in lacking.values() for key in keys):
            state = load_checkpoint(self.paths.checkpoint, ("nimg",))
            again = int(state["nimg"]) if state else None  # None = training begins anew
        return [nimg for nimg in lacking if nimg != again]

    def trained_to_the_end(self) -> bool:
        return self.snapshot(self.spec.total_images) is not None

    def nothing_to_train(self) -> bool:
        """Return whether training is over.

        What is lost stays lost: a run that is trained to its end is never trained again unasked.
        But the last snapshot may be in the checkpoint alone, and a record that is new although the
        run is trained (it was lost) takes from the checkpoint what it cannot know.
        """
        recovered = not self.content["data"] and self.paths.checkpoint.exists()
        in_checkpoint = self.spec.total_images in self.measurable()
        return self.trained_to_the_end() and not (in_checkpoint or recovered)

    # What is added.

    def describe(self, snapshot: Snapshot) -> None:
        """Adds what training tells with a snapshot of networks, data and speed."""
        self.content |= _networks_and_data(snapshot, self.spec)
        if snapshot.images_per_s is not None:
            self.content["throughput"] = throughput(snapshot, self.spec.config)
        if snapshot.step_times is not None:
            self.content["ledger"] = snapshot.step_times

    def add_snapshot(
        self, nimg: int, train_seconds: float, samples: dict[str, str]
    ) -> dict[str, Any]:
        """Adds a snapshot, not measured yet; returns its entry.

        Args:
            samples: pictures below the run's folder, by norms.
        """
        entry: dict[str, Any] = {"nimg": nimg, "train_seconds": train_seconds, "metrics": {}}
        entry["samples"] = samples
        entries = [*self.content["snapshots"], entry]
        self.content["snapshots"] = sorted(entries, key=lambda s: s["nimg"])
        return entry

    def begin_measuring(self, entry: dict[str, Any]) -> None:
        """Empties an entry that was measured otherwise: there is nothing to add to."""
        if not records.same_protocol(entry, self.spec):
            entry |= {"metrics": {}, "missing": {}, "intervals": {}, "certificates": {}}

    def add_scores(
        self, entry: dict[str, Any], keys: Sequence[str], scores: Scores, seconds: float
    ) -> None:
        """Adds what was measured of a snapshot; what was there of these keys gives way.

        Args:
            entry: of the snapshot.
            keys: what was asked for.
            seconds: that it took.
        """
        found: dict[str, dict[str, Any]] = {
            "metrics": dict(scores),
            "missing": scores.missing,
            "intervals": {key: list(interval) for key, interval in scores.intervals.items()},
            "certificates": scores.certificates,
        }
        for part, values in found.items():
            others = {k: v for k, v in entry.get(part, {}).items() if k not in keys}
            entry[part] = others | values
        done = entry.get("eval", {})
        entry["eval"] = {
            "seconds": done.get("seconds", 0.0) + seconds,
            "real": scores.real,
            "extractors": done.get("extractors", {}) | scores.extractors,
            **records.protocol(self.spec),
        }

    def add_missing(self, entry: dict[str, Any], keys: Sequence[str], reason: str) -> None:
        """Notes why metrics of a snapshot cannot be measured."""
        entry["missing"] = entry.get("missing", {}) | dict.fromkeys(keys, reason)

    def add_versions(self, entry: dict[str, Any], keys: Sequence[str]) -> None:
        """Notes by which versions of their computations metrics were measured."""
        versions = {key: METRICS[key].version for key in keys}
        entry["versions"] = entry.get("versions", {}) | versions

    def add_best(self, nimg: int, chosen: Mapping[str, float], scores: Scores, seed: int) -> None:
        """Adds what a best snapshot was measured at on fresh images.

        Args:
            chosen: keys -> the value that it was chosen by.
            seed: of the fresh images.
        """
        done = {"seed": seed, "real": scores.real, **records.protocol(self.spec)}
        for key, value in chosen.items():
            found: dict[str, Any] = {"nimg": nimg, "chosen": value}
            found |= {"version": METRICS[key].version, "fresh": scores.get(key)}
            if key in scores.missing:
                found["missing"] = scores.missing[key]
            if key in scores.certificates:
                found["certificate"] = scores.certificates[key]
            self.content.setdefault("best", {})[key] = {**found, "eval": done}

    def add_time(self, measuring: float, training: float | None = None) -> None:
        """Adds seconds that were spent on a snapshot; the clock of training keeps its own count."""
        clock = self.content["time"]
        clock["eval_s"] += measuring
        clock["train_s"] = clock["train_s"] if training is None else training
        clock["total_s"] = clock["train_s"] + clock["eval_s"]

    def add_memory(self, found: dict[str, Any]) -> None:
        if found["peak_mb"] > self.content["memory"].get("peak_mb", 0.0):
            self.content["memory"] = found

    def add_environment(self, device: torch.device) -> None:
        """Notes what machine trains the run."""
        self.content["environment"] = environment(device)
        if (processes := world().size) > 1:
            self.content["environment"]["processes"] = processes


def _networks_and_data(snapshot: Snapshot, spec: RunSpec) -> dict[str, Any]:
    """The parts of a record that say what the networks and the data turned out to be."""
    dataset, discriminator, data = snapshot.dataset, snapshot.discriminator, spec.config.data
    of_data = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "images": len(dataset.images),
        "trained_on": data.subset or len(dataset.images),
    }
    if data.subset is not None:
        chosen = training_indices(data, len(dataset.images), dataset.order)
        of_data["subset_sha256"] = subset_fingerprint(dataset, chosen)
    params = {
        "generator_m": _millions(snapshot.generator),
        "discriminator_m": _millions(discriminator.heads),
    }
    found: dict[str, Any] = {"params": params, "data": of_data}
    if (network := discriminator.backbone) is not None:
        found["backbone"] = asdict(describe(spec.config.backbone)) | {
            "params_m": network.params_m,
            "accuracy": network.accuracy,
            "accuracy_kind": network.accuracy_kind,
            "weights_sha256": network.weights_sha256,
            "weights_from": network.weights_from,
            "input_size": network.input_size,
            "strides": list(network.strides),
        }
    return found


def _millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6
