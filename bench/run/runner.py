"""execute(run_dir): the one way a run is done, in this process or any other.

Reads spec.json, trains from the last checkpoint on, measures every snapshot that the record does
not hold yet, and leaves record.json. What was done is never done twice; what a kill interrupts is
done again from the last whole file.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.metrics import EVAL_NORMS, METRICS, TRAINING, looks_through
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.metrics.evaluate import Scores, evaluate
from bench.metrics.floor import floor
from bench.metrics.reference import Reference
from bench.metrics.training_set import TrainingSet
from bench.run import retry
from bench.run.log import logging_to
from bench.run.progress import Progress
from bench.run.roofline import throughput
from bench.run.stop import Stop
from bench.run.throughput import PeakMemory
from bench.store import record as records
from bench.store.environment import environment
from bench.store.lease import Lease, RunIsTaken, leased
from bench.store.record import Record
from projgan.backbones import build_backbone, describe
from projgan.checkpoint import load_checkpoint, previous
from projgan.config import AVERAGES, Config
from projgan.data.dataset import Dataset, open_dataset, subset_fingerprint, training_indices
from projgan.discriminators.projected import build_projection
from projgan.errors import DataError, UserError
from projgan.files import remove_leftovers, write_bytes_atomic
from projgan.parallel import world
from projgan.sample import generate, image_grid, load_generator, save_generator
from projgan.standing_statistics import standing_statistics
from projgan.train import Snapshot, train
from projgan.weights import beside

SAMPLE_SEED = 0  # of all images that are measured or shown; the same for every run
FRESH_SEED = 1  # of the images that a best snapshot is measured on once it is chosen
SHOWN = 64  # samples in the picture of a snapshot, eight by eight
GONE = {
    "raw": "the raw generator is at hand while it trains only",
    **dict.fromkeys(AVERAGES, "train.averages=true keeps this average, while it trains only"),
}

log = logging.getLogger(__name__)


class StorageFull(UserError):
    """Nothing can be written: no run can go on."""


def execute(
    run_dir: Path,
    data_dir: Path,
    progress: Progress | None = None,
    force: bool = False,
    stop: Stop | None = None,
) -> Record:
    """Does the run of `run_dir`, or what is missing of it.

    Args:
        run_dir: holds spec.json; gets checkpoint, samples, snapshots, log and record.json.
        data_dir: packed data sets and the real side of the metrics.
        progress: is told what happens. None = silent.
        force: forget what was done before.
        stop: where this process may be asked to end: between two steps it then loses nothing.

    Returns:
        The record: finished, or failed with one line in `error` and the traceback in log.txt.

    Raises:
        RunIsTaken: another process is at work on it.
        StorageFull: the disk is full or read-only.
        KeyboardInterrupt: asked to end; the same call goes on where it was.
        NodeFault: the machine failed; the run may go on elsewhere, or here later.
        TryAgain: processes that train together are to begin anew together.
        NeighbourLeft: one of them is gone.
    """
    run = RunPaths(run_dir)
    spec = RunSpec.read(run.spec)
    progress = progress or Progress([spec])
    with leased(run.lease) as claim, logging_to(run.log, progress), beside(data_dir):
        if left := remove_leftovers(run.dir):
            log.info("Removed what a killed writer left half-written: %s", ", ".join(left))
        try:
            session = _Session(run, spec, data_dir, progress, claim, stop or Stop())
            try:
                return session.run(force)
            finally:
                if not session.together:
                    with contextlib.suppress(RuntimeError):  # they may have left already
                        world().said(None)
        except OSError as error:
            if retry.kind_of(error) == "node":
                raise UserError(f"{run_dir}: {one_line(error)}") from error
            raise _storage_full(error, run_dir) from error


def follow(run_dir: Path, data_dir: Path, on_images: Callable[[int], None]) -> None:
    """What every process but the first does in a run of several: trains along, as it is told.

    Args:
        on_images: is told the number of images after each step.
    """
    spec = RunSpec.read(RunPaths(run_dir).spec)
    cfg = spec.config
    with beside(data_dir):
        while (told := world().said(None)) is not None:
            cfg = replace(cfg, train=replace(cfg.train, micro_batch=told["micro_batch"]))
            for _ in train(cfg, run_dir, data_dir, told["due"], on_images):
                pass


class _Session:
    """One process's work on one run."""

    def __init__(
        self,
        run: RunPaths,
        spec: RunSpec,
        data_dir: Path,
        progress: Progress,
        claim: Lease,
        stop: Stop,
    ):
        self.paths, self.spec, self.data_dir = run, spec, data_dir
        self.progress, self.claim, self.stop = progress, claim, stop
        self.record: Record = {}
        self.due: Sequence[int] = spec.snapshot_at
        self.reference: Reference | None = None
        self.training_set: TrainingSet | None = None
        self.training = False  # whether a want of memory is one of the training step
        self.together = False  # whether other processes are in the middle of training

    def run(self, force: bool) -> Record:
        if force:
            self.clear()
        self.record = self.load()
        if self.record["status"] == "finished" and not self.measurable() and not self.best_due():
            return self.record
        if self.record["status"] == "failed":  # whoever asks for it again has mended something
            self.record["failures"] = []
        self.record |= {"status": "running", "error": None, "ended": None}
        records.save(self.paths.record, self.record)
        while self.record["status"] == "running":
            try:
                self.work()
                self.measure_best()
            except (KeyboardInterrupt, RunIsTaken):
                raise
            except Exception as error:
                self.fail(error)
            else:
                self.record["status"] = "finished"
                self.claim.fence()
                previous(self.paths.checkpoint).unlink(missing_ok=True)
            _free_memory()  # what a failed try held, before the next
        self.record["ended"] = _now()
        records.save(self.paths.record, self.record)
        return self.record

    def told(self) -> dict[str, Any]:
        """What the processes that train along must know."""
        return {"due": list(self.due), "micro_batch": self.config.train.micro_batch}

    def fail(self, error: Exception) -> None:
        """Does what `bench.run.retry` says: the run is tried again, given back, or has failed.

        Raises:
            StorageFull: the disk is full or may not be written.
            NodeFault: the run belongs back in the queue; its record says why.
            TryAgain: processes that train together begin anew together.
            NeighbourLeft: one of them is gone, and who started them knows why.
        """
        kind, line = retry.kind_of(error), one_line(error)
        if kind == "storage":
            raise _storage_full(error, self.paths.dir) from error
        log.error("Failed (%s):\n%s", kind, traceback.format_exc())
        several = self.training and world().size > 1
        if several and retry.is_of_a_neighbour(error):
            raise retry.NeighbourLeft(line, self.claim.start or 0, self.claim.nimg) from error
        at = (self.claim.start or 0) if kind == "node" else self.claim.nimg
        before = self.micro_batch
        train = self.spec.config.train
        smaller = retry.halved(self.record, train, world().size) if self.training else None
        again = retry.settle(self.record, kind, line, at, smaller)
        if kind == "memory" and again:
            log.warning(
                "Out of memory with %d images at a time: going on with %d, gradients accumulated",
                before,
                self.micro_batch,
            )
        if again and (kind == "node" or several):
            self.record["error"] = line
            records.save(self.paths.record, self.record)
            raise (retry.NodeFault if kind == "node" else retry.TryAgain)(line) from error

    @property
    def micro_batch(self) -> int:
        """How many images a process trains on at once."""
        return retry.micro_batch(self.record, self.spec.config.train, world().size)

    @property
    def config(self) -> Config:
        """What is trained: the run's configuration, in micro-batches that fit the memory."""
        cfg = self.spec.config
        if "micro_batch" not in self.record:
            return cfg
        return replace(cfg, train=replace(cfg.train, micro_batch=self.micro_batch))

    def work(self) -> None:
        """Prepares, measures kept snapshots, trains and measures the rest."""
        # What is the same for all runs on this data is prepared first: a missing file of weights
        # shows before training, and the run's clock does not count it.
        self.training = False
        spec, cfg = self.spec, self.spec.config
        dataset = open_dataset(cfg.data, self.data_dir, self.on_data)
        if self.record["data"].get("fingerprint", dataset.fingerprint) != dataset.fingerprint:
            raise DataError(
                f"data.name={dataset.name}: the images are not those that this run began with; "
                "bring them back, or do the run again with force=true"
            )
        self.reference = reference = self.make_reference(dataset)
        usual = "lab" if cfg.backbone.zoo == "lab" else "inception"
        network = looks_through(spec.eval.metrics) or usual
        self.training_set = TrainingSet(
            cfg.data, dataset, lambda: reference.extractor(network), _device()
        )
        self.reference.prepare(spec.eval.metrics)
        if spec.eval.floor:
            self.record["floor"] = floor(reference, spec.eval.metrics, spec.eval.fake)

        # Snapshots that were kept are measured without training again; what needs the raw
        # generator waits for training, which gives the checkpoint's snapshot once more.
        kept = self.lacking() if self.record["snapshots"] else {}
        with_training = any(records.only_in_training(key) for keys in kept.values() for key in keys)
        again = self.checkpoint_at() if with_training else None
        for nimg in kept:
            if nimg != again:
                self.measure_kept(nimg)
        # What is lost stays lost: a run that is trained to its end is never trained again unasked.
        if self.trained_to_the_end() and not (
            self.spec.total_images in self.measurable() or self.is_recovered()
        ):
            self.tell_what_is_lost()
            return

        # Training, and every snapshot on the way. Memory is that of training alone.
        self.record["environment"] = environment(_device())
        if (processes := world().size) > 1:
            self.record["environment"]["processes"] = processes
        memory = PeakMemory(_device())
        world().said(self.told())
        self.together = self.training = True
        asked = self.stop.asked
        steps = train(
            self.config, self.paths.dir, self.data_dir, self.due, self.on_images, should_stop=asked
        )
        for snapshot in steps:
            self.training = False
            self.stop.anywhere()
            self.add_memory(memory.read())
            self.on_snapshot(snapshot)
            records.save(self.paths.record, self.record)
            memory = PeakMemory(_device())
            self.training = True
        self.together = self.training = False
        if asked() and not self.trained_to_the_end():
            log.info("Asked to stop; the checkpoint is written")
            raise KeyboardInterrupt
        self.tell_what_is_lost()

    def tell_what_is_lost(self) -> None:
        if lost := records.not_kept(self.lacking()):
            log.info("Snapshots: %s", lost)

    def on_images(self, nimg: int) -> None:
        self.claim.check()
        self.claim.moved(nimg)
        self.stop.between_steps()
        self.progress.train(nimg)

    def on_data(self, done: int, total: int) -> None:
        self.claim.check()
        self.claim.moved()
        self.progress.data(done, total)

    def watched(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same batches; each shows that the run gets on."""
        for batch in batches:
            self.claim.check()
            self.claim.moved()
            yield batch

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps, shows and measures what the record does not hold yet."""
        record, nimg = self.record, snapshot.nimg
        started = time.monotonic()
        self.progress.evaluate(nimg)
        self.describe(snapshot)
        generator = with_norms(snapshot.generator, snapshot.other_generators)
        norms = self.spec.eval.norms
        if snapshot.images_per_s is not None:
            record["throughput"] = throughput(snapshot, self.spec.config)
        if snapshot.step_times is not None:
            record["ledger"] = snapshot.step_times
        entry = self.entry(nimg)
        if entry is not None:  # the clock in the checkpoint knows better than a recovered entry
            entry["train_seconds"] = snapshot.train_seconds
        else:
            save_generator(self.paths.snapshot(nimg), snapshot.generator, self.spec.config, nimg)
            if not self.paths.real.exists():
                _draw(self.paths.real, snapshot.dataset.images[:SHOWN])
            entry = {"nimg": nimg, "train_seconds": snapshot.train_seconds, "metrics": {}}
            entry["samples"] = {norms: self.show(generator(norms), nimg)}
            record["snapshots"] = sorted([*record["snapshots"], entry], key=lambda s: s["nimg"])
            # From here on a kill costs no training and no timing: the kept generator is measured.
            self.add_time(0.0, snapshot.train_seconds)
            records.save(self.paths.record, record)
        if keys := self.lacking().get(nimg):
            self.measure(generator, entry, keys, snapshot.discriminator)
        self.add_time(time.monotonic() - started, snapshot.train_seconds)

    def measure_kept(self, nimg: int) -> None:
        """Adds what is missing to a snapshot whose generator was kept."""
        entry = self.entry(nimg)
        kept = self.kept(nimg) if entry is not None else None
        if entry is None or kept is None:
            return
        started, norms = time.monotonic(), self.spec.eval.norms
        self.progress.evaluate(nimg)
        generator = with_norms(kept)
        if not self.paths.samples(nimg, norms).exists():
            entry.setdefault("samples", {})[norms] = self.show(generator(norms), nimg)
        self.measure(generator, entry, self.lacking()[nimg])
        self.add_time(time.monotonic() - started)
        records.save(self.paths.record, self.record)

    def measure_best(self) -> None:
        """Measures the best snapshots on images that had no part in choosing them."""
        assert self.reference is not None
        chosen = records.best_chosen(self.record, self.spec)
        for nimg, keys in self.best_due().items():
            kept = self.kept(nimg)
            if kept is None:
                continue
            started = time.monotonic()
            self.progress.evaluate(nimg)
            generator, fake = with_norms(kept)(self.spec.eval.norms), range(self.spec.eval.fake)
            images = self.watched(generate(generator, FRESH_SEED, fake))
            scores = evaluate(images, self.reference, keys, certified=True)
            done = {"seed": FRESH_SEED, "real": scores.real, **records.protocol(self.spec)}
            for key in keys:
                value: dict[str, Any] = {"nimg": nimg, "chosen": chosen[key][1]}
                value["version"] = METRICS[key].version
                value["fresh"] = scores.get(key)
                more: dict[str, dict[str, Any]]
                more = {"missing": scores.missing, "certificate": scores.certificates}
                value |= {name: found[key] for name, found in more.items() if key in found}
                self.record.setdefault("best", {})[key] = {**value, "eval": done}
            self.add_time(time.monotonic() - started)
            records.save(self.paths.record, self.record)

    def kept(self, nimg: int) -> nn.Module | None:
        """The generator of a snapshot, with the norms it was kept with, which are copied ones.

        None = it was not kept, or its file is of no use.
        """
        if not self.paths.snapshot(nimg).exists():
            return None
        try:
            generator, _, _ = load_generator(self.paths.snapshot(nimg), "copied", _device())
        except DataError as error:
            self.claim.fence()
            aside = records.set_aside(self.paths.snapshot(nimg))
            log.warning("%s (kept as %s)", error, aside.name)
            return None
        return generator

    def measure(
        self,
        generator: Callable[[str], nn.Module | None],
        entry: dict[str, Any],
        keys: Sequence[str],
        discriminator: nn.Module | None = None,
    ) -> None:
        """Computes metrics of one snapshot and puts them into its entry.

        Args:
            generator: what `with_norms` gave.
            keys: of the record.
        """
        if not records.same_protocol(entry, self.spec):  # measured otherwise: nothing to add to
            entry |= {"metrics": {}, "missing": {}, "intervals": {}, "certificates": {}}
        by_norms: dict[str, list[str]] = {}
        for key in keys:
            by_norms.setdefault(METRICS[key].norms or self.spec.eval.norms, []).append(key)
        for norms, group in by_norms.items():
            if (found := generator(norms)) is None:
                entry["missing"] = entry.get("missing", {}) | dict.fromkeys(group, GONE[norms])
            else:
                self.measure_with(found, entry, group, discriminator)
        versions = {key: METRICS[key].version for key in keys}
        entry["versions"] = entry.get("versions", {}) | versions

    def measure_with(
        self,
        generator: nn.Module,
        entry: dict[str, Any],
        keys: Sequence[str],
        discriminator: nn.Module | None,
    ) -> None:
        assert self.reference is not None
        started = time.monotonic()
        images = self.watched(generate(generator, SAMPLE_SEED, range(self.spec.eval.fake)))
        final = entry["nimg"] == self.spec.total_images  # what tables show
        scores = evaluate(images, self.reference, keys, certified=final)
        self.measure_training(scores, generator, keys, discriminator)
        seconds = time.monotonic() - started
        found: dict[str, dict[str, Any]] = {
            "metrics": dict(scores),
            "missing": scores.missing,
            "intervals": {key: list(interval) for key, interval in scores.intervals.items()},
            "certificates": scores.certificates if final else {},
        }
        for part, values in found.items():  # what was there of these keys gives way
            others = {k: v for k, v in entry.get(part, {}).items() if k not in keys}
            entry[part] = others | values
        done = entry.get("eval", {})
        entry["eval"] = {
            "seconds": done.get("seconds", 0.0) + seconds,
            "real": scores.real,
            "extractors": done.get("extractors", {}) | scores.extractors,
            **records.protocol(self.spec),
        }

    def measure_training(
        self,
        scores: Scores,
        generator: nn.Module,
        keys: Sequence[str],
        discriminator: nn.Module | None,
    ) -> None:
        """Adds what only training has at hand: its images, those held out, its discriminator."""
        wanted = [key for key in keys if METRICS[key].extractor == TRAINING]
        if not wanted or self.training_set is None:
            return

        def fake(count: int) -> np.ndarray:
            batches = generate(generator, SAMPLE_SEED, range(min(count, self.spec.eval.fake)))
            return np.concatenate([x.cpu().numpy() for x in self.watched(batches)])

        keys_of = {key.rpartition(":")[2]: key for key in wanted}
        values, missing = self.training_set.measure(list(keys_of), fake, discriminator)
        scores.update({keys_of[name]: value for name, value in values.items()})
        for key in wanted:
            scores.missing.pop(key, None)
        scores.missing |= {keys_of[name]: why for name, why in missing.items()}

    def show(self, generator: nn.Module, nimg: int) -> str:
        """Writes the picture of the first samples, and says where it is in the run's folder."""
        tiles = [batch.cpu().numpy() for batch in generate(generator, SAMPLE_SEED, range(SHOWN))]
        path = self.paths.samples(nimg, self.spec.eval.norms)
        _draw(path, np.concatenate(tiles))
        return str(path.relative_to(self.paths.dir))

    def add_time(self, measuring: float, training: float | None = None) -> None:
        """Adds time that was spent on a snapshot; the clock of training keeps its own count."""
        clock = self.record["time"]
        clock["eval_s"] += measuring
        clock["train_s"] = clock["train_s"] if training is None else training
        clock["total_s"] = clock["train_s"] + clock["eval_s"]

    def add_memory(self, found: dict[str, Any]) -> None:
        if found["peak_mb"] > self.record["memory"].get("peak_mb", 0.0):
            self.record["memory"] = found

    def describe(self, snapshot: Snapshot) -> None:
        """What the networks and the data turned out to be."""
        dataset, discriminator = snapshot.dataset, snapshot.discriminator
        data = self.spec.config.data
        self.record["params"] = {
            "generator_m": _millions(snapshot.generator),
            "discriminator_m": _millions(discriminator.heads),
        }
        self.record["data"] = {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "images": len(dataset.images),
            "trained_on": data.subset or len(dataset.images),
        }
        if data.subset is not None:
            chosen = training_indices(data, len(dataset.images), dataset.order)
            self.record["data"]["subset_sha256"] = subset_fingerprint(dataset, chosen)
        if (network := discriminator.backbone) is not None:
            self.record["backbone"] = asdict(describe(self.spec.config.backbone)) | {
                "params_m": network.params_m,
                "accuracy": network.accuracy,
                "accuracy_kind": network.accuracy_kind,
                "weights_sha256": network.weights_sha256,
                "weights_from": network.weights_from,
                "input_size": network.input_size,
                "strides": list(network.strides),
            }

    def make_reference(self, dataset: Dataset) -> Reference:
        """The real side of the metrics."""
        spec, cfg, device = self.spec, self.spec.config, _device()
        wants_own = any(name.startswith("own") for name in spec.eval.metrics)
        own = projection = None
        if wants_own and not cfg.discriminator.on_images:
            own = build_backbone(cfg.backbone, cfg.data.resolution).to(device)
            projection = build_projection(cfg, own.channels).to(device)
        return Reference(
            dataset.images,
            dataset.fingerprint,
            self.data_dir,
            device,
            levels=spec.levels_backbone,
            own=own,
            projection=projection,
            count=spec.eval.real,
            progress=self.on_data,
        )

    def load(self) -> Record:
        """The record, or a new one; a damaged one is set aside, and it alone.

        Raises:
            DataError: the record cannot be read or is of a newer version; nothing was touched.
        """
        try:
            found = records.load(self.paths.record)
        except records.DamagedRecord as error:
            self.claim.fence()
            aside = records.set_aside(self.paths.record)
            log.warning("%s (kept as %s)", error, aside.name)
            found = None
        if found is None:
            return self.new_record()
        # Another grid may have asked for other snapshots of the same run: all are kept.
        self.due = sorted({*self.spec.snapshot_at, *found.get("snapshot_at", ())})
        return found | {"snapshot_at": list(self.due)}

    def new_record(self) -> Record:
        """A record of what the run's folder holds: nothing, or generators that were kept."""
        kept = self.paths.kept()
        state = load_checkpoint(self.paths.checkpoint) if kept else None
        # When they were reached is lost; steps take the same time each, so this is close.
        pace = state["train_seconds"] / max(state["nimg"], 1) if state else 0.0
        snapshots: list[dict[str, Any]] = [
            {"nimg": n, "train_seconds": n * pace, "metrics": {}, "samples": self.pictures(n)}
            for n in kept
        ]
        self.due = sorted({*self.due, *kept})
        new = records.new(self.spec, _now())
        return new | {"snapshot_at": list(self.due), "snapshots": snapshots}

    def pictures(self, nimg: int) -> dict[str, str]:
        """Those of a snapshot that are there, by norms."""
        files = {norms: self.paths.samples(nimg, norms) for norms in EVAL_NORMS}
        return {k: str(v.relative_to(self.paths.dir)) for k, v in files.items() if v.exists()}

    def measurable(self) -> dict[int, list[str]]:
        return records.measurable(self.record, self.spec, self.paths, self.due)

    def best_due(self) -> dict[int, list[str]]:
        return records.best_due(self.record, self.spec, self.paths)

    def checkpoint_at(self) -> int | None:
        """The number of images of the state that training goes on from; None = it begins anew."""
        state = load_checkpoint(self.paths.checkpoint, ("nimg",))
        return int(state["nimg"]) if state else None

    def is_recovered(self) -> bool:
        """Whether the record is new although the run is trained: the checkpoint tells the rest."""
        return not self.record["data"] and self.paths.checkpoint.exists()

    def lacking(self) -> dict[int, list[str]]:
        return records.unmeasured(self.record, self.spec, self.due)

    def entry(self, nimg: int) -> dict[str, Any] | None:
        found = [s for s in self.record["snapshots"] if s["nimg"] == nimg]
        return found[0] if found else None

    def trained_to_the_end(self) -> bool:
        return self.entry(self.spec.total_images) is not None

    def clear(self) -> None:
        forget(self.paths, self.claim)


def with_norms(
    averaged: nn.Module, beside: Mapping[str, nn.Module] | None = None
) -> Callable[[str], Any]:
    """Gives a generator by its norms (`bench.config.metrics.NORMS`), each computed once.

    Args:
        averaged: as training has it, with copied statistics.
        beside: others by their norms, such as raw. None = none was kept; nor is one given then.
    """

    @cache
    def given(norms: str) -> nn.Module | None:
        if norms == "copied":
            return averaged
        generator = averaged if norms == "standing" else (beside or {}).get(norms)
        return None if generator is None else standing_statistics(generator)

    return given


def forget(run: RunPaths, claim: Lease) -> None:
    """Forgets what was done of a run; the log stays."""
    claim.fence()
    for path in (run.record, run.checkpoint, previous(run.checkpoint)):
        path.unlink(missing_ok=True)
    for folder in (run.samples_dir, run.snapshots_dir, run.diverged_dir):
        shutil.rmtree(folder, ignore_errors=True)


def _draw(path: Path, tiles: np.ndarray) -> None:
    """Writes tiles [N, 3, R, R] uint8 as one picture, eight in a row."""
    buffer = io.BytesIO()
    image_grid(tiles, columns=8).save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def one_line(error: BaseException) -> str:
    """What a record says of an error."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    return first if isinstance(error, UserError) and first else f"{type(error).__name__}: {first}"


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _storage_full(error: BaseException, folder: Path) -> UserError:
    reason = getattr(error, "strerror", None) or one_line(error)
    return StorageFull(
        f"{folder}: cannot be written ({reason}); make room and run the same command again"
    )
