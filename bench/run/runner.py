"""execute(run_dir): the one way a run is done, in this process or any other.

Reads spec.json, trains from the last checkpoint on, measures every snapshot that the record does
not hold yet, and leaves record.json. What was done is never done twice; what a kill interrupts is
done again from the last whole file.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.config.metrics import METRICS
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.metrics.floor import floor
from bench.run import retry
from bench.run.log import logging_to
from bench.run.measuring import (
    FRESH_SEED,
    Generators,
    Measuring,
    run_device,
    write_grid,
    write_samples,
)
from bench.run.memory import PeakMemory
from bench.run.progress import Progress
from bench.run.retry import StorageFull, one_line
from bench.run.run_record import RunRecord
from bench.run.stop import Stop
from bench.store import record as records
from bench.store.lease import Lease, RunIsTaken, leased
from bench.store.record import Record
from projgan.checkpoint import previous
from projgan.config import AVERAGES, Config
from projgan.data.dataset import open_dataset
from projgan.errors import DataError, UserError
from projgan.files import remove_leftovers
from projgan.parallel import world
from projgan.sample import load_generator, save_generator
from projgan.train import Snapshot, train
from projgan.weights import use_data_dir

GONE = {
    "raw": "the raw generator is at hand while it trains only",
    **dict.fromkeys(AVERAGES, "train.averages=true keeps this average, while it trains only"),
}

log = logging.getLogger(__name__)


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
    with leased(run.lease) as lease, logging_to(run.log, progress), use_data_dir(data_dir):
        if left := remove_leftovers(run.dir):
            log.info("Removed what a killed writer left half-written: %s", ", ".join(left))
        record = RunRecord(run, spec, lease)
        session = _Session(record, data_dir, progress, stop or Stop())
        try:
            return session.run(force)
        except OSError as error:
            if retry.kind_of(error) == "node":
                raise UserError(f"{run_dir}: {one_line(error)}") from error
            raise _storage_full(error, run_dir) from error
        finally:
            if not session.together:
                with contextlib.suppress(RuntimeError):  # they may have left already
                    world().broadcast(None)


def train_along(run_dir: Path, data_dir: Path, on_images: Callable[[int], None]) -> None:
    """Does the part of every process but the first in a run of several: trains, as the first says.

    Args:
        on_images: is told the number of images after each step.
    """
    spec = RunSpec.read(RunPaths(run_dir).spec)
    cfg = spec.config
    with use_data_dir(data_dir):
        while (asked := world().broadcast(None)) is not None:
            cfg = replace(cfg, train=replace(cfg.train, micro_batch=asked["micro_batch"]))
            for _ in train(cfg, run_dir, data_dir, asked["due"], on_images):
                pass


@dataclass
class _Session:
    """One process's work on one run.

    Attributes:
        training: whether a want of memory is one of the training step.
        together: whether other processes are in the middle of training.
    """

    record: RunRecord
    data_dir: Path
    progress: Progress
    stop: Stop
    training: bool = False
    together: bool = False

    def __post_init__(self) -> None:
        self.paths, self.spec, self.lease = self.record.paths, self.record.spec, self.record.lease

    def run(self, force: bool) -> Record:
        """Does what is missing, as often as `bench.run.retry` says; returns the record."""
        if force:
            forget(self.paths, self.lease)
        self.record.load()
        content = self.record.content
        if self.record.status == "finished" and not (
            self.record.measurable() or self.record.best_due()
        ):
            return content
        if self.record.status == "failed":  # whoever asks for it again has mended something
            content["failures"] = []
        content |= {"status": "running", "error": None, "ended": None}
        self.record.save()
        while self.record.status == "running":
            try:
                self.train_and_measure()
            except (KeyboardInterrupt, RunIsTaken):
                raise
            except Exception as error:
                self.fail(error)
            else:
                content["status"] = "finished"
                self.lease.fence()
                previous(self.paths.checkpoint).unlink(missing_ok=True)
            _free_memory()  # what a failed try held, before the next
        content["ended"] = records.now()
        self.record.save()
        return content

    def train_and_measure(self) -> None:
        """Prepares, measures kept snapshots, trains and measures the rest."""
        self.training = False
        measuring = self.prepare()
        for nimg in self.record.kept_to_measure():
            self.measure_kept(measuring, nimg)
        if not self.record.nothing_to_train():
            for snapshot in self.snapshots():
                self.measure_snapshot(measuring, snapshot)
        if lost := records.not_kept(self.record.lacking()):
            log.info("Snapshots: %s", lost)
        self.measure_best(measuring)

    def prepare(self) -> Measuring:
        """Opens the data and makes the real side of the metrics.

        What is the same for all runs on this data comes first: a missing file of weights shows
        before training, and the run's clock does not count it.
        """
        dataset = open_dataset(self.spec.config.data, self.data_dir, self.on_data)
        known = self.record.content["data"].get("fingerprint", dataset.fingerprint)
        if known != dataset.fingerprint:
            raise DataError(
                f"data.name={dataset.name}: the images are not those that this run began with; "
                "bring them back, or do the run again with force=true"
            )
        measuring = Measuring(self.spec, dataset, self.data_dir, self.on_data, self.on_batch)
        wanted = self.spec.eval
        measuring.reference.prepare(wanted.metrics)
        if wanted.floor:
            found = floor(measuring.reference, wanted.metrics, wanted.fake)
            self.record.content["floor"] = found
        return measuring

    def snapshots(self) -> Iterator[Snapshot]:
        """Trains on, and stops at every snapshot that is due; memory is that of training alone.

        Raises:
            KeyboardInterrupt: asked to end; the checkpoint is written.
        """
        device = run_device()
        self.record.add_environment(device)
        due = self.record.due
        world().broadcast({"due": due, "micro_batch": self.config.train.micro_batch})
        memory = PeakMemory(device)
        asked = self.stop.asked
        self.together = self.training = True
        for snapshot in train(
            self.config, self.paths.dir, self.data_dir, due, self.on_images, should_stop=asked
        ):
            self.training = False
            self.stop.interrupt_at_once()
            self.record.add_memory(memory.read())
            yield snapshot
            self.record.save()
            memory = PeakMemory(device)
            self.training = True
        self.together = self.training = False
        if asked() and not self.record.trained_to_the_end():
            log.info("Asked to stop; the checkpoint is written")
            raise KeyboardInterrupt

    def measure_snapshot(self, measuring: Measuring, snapshot: Snapshot) -> None:
        """Keeps, shows and measures what the record does not hold yet."""
        nimg, started = snapshot.nimg, time.monotonic()
        self.progress.evaluate(nimg)
        self.record.describe(snapshot)
        generators = Generators(snapshot.generator, snapshot.other_generators)
        if (entry := self.record.snapshot(nimg)) is not None:
            # The clock in the checkpoint knows better than a recovered entry.
            entry["train_seconds"] = snapshot.train_seconds
        else:
            save_generator(self.paths.snapshot(nimg), snapshot.generator, self.spec.config, nimg)
            if not self.paths.real.exists():
                write_grid(snapshot.dataset.images, self.paths.real)
            samples = self.show_samples(generators, nimg)
            entry = self.record.add_snapshot(nimg, snapshot.train_seconds, samples)
            # From here on a kill costs no training and no timing: the kept generator is measured.
            self.record.add_time(0.0, snapshot.train_seconds)
            self.record.save()
        self.measure(measuring, generators, entry, snapshot.discriminator)
        self.record.add_time(time.monotonic() - started, snapshot.train_seconds)

    def measure_kept(self, measuring: Measuring, nimg: int) -> None:
        """Adds what is missing to a snapshot whose generator was kept."""
        entry = self.record.snapshot(nimg)
        kept = self.kept(nimg) if entry is not None else None
        if entry is None or kept is None:
            return
        started = time.monotonic()
        self.progress.evaluate(nimg)
        generators = Generators(kept)
        if not self.paths.samples(nimg, self.spec.eval.norms).exists():
            entry["samples"] = entry.get("samples", {}) | self.show_samples(generators, nimg)
        self.measure(measuring, generators, entry)
        self.record.add_time(time.monotonic() - started)
        self.record.save()

    def measure_best(self, measuring: Measuring) -> None:
        """Measures the best snapshots on images that had no part in choosing them."""
        chosen = records.best_chosen(self.record.content, self.spec)
        for nimg, keys in self.record.best_due().items():
            if (kept := self.kept(nimg)) is None:
                continue
            started = time.monotonic()
            self.progress.evaluate(nimg)
            generator = Generators(kept).get(self.spec.eval.norms)
            assert generator is not None  # of these norms every kept generator is
            scores = measuring.measure_fresh(generator, keys)
            values = {key: chosen[key][1] for key in keys}
            self.record.add_best(nimg, values, scores, FRESH_SEED)
            self.record.add_time(time.monotonic() - started)
            self.record.save()

    def measure(
        self,
        measuring: Measuring,
        generators: Generators,
        entry: dict[str, Any],
        discriminator: nn.Module | None = None,
    ) -> None:
        """Measures what the entry of a snapshot lacks, by the norms that each metric holds to."""
        nimg = entry["nimg"]
        if not (keys := self.record.lacking().get(nimg)):
            return
        self.record.begin_measuring(entry)
        final = nimg == self.spec.total_images  # what tables show
        for norms, group in _by_norms(keys, self.spec.eval.norms).items():
            generator, started = generators.get(norms), time.monotonic()
            if generator is None:
                self.record.add_missing(entry, group, GONE[norms])
            else:
                scores = measuring.measure(generator, group, final, discriminator)
                self.record.add_scores(entry, group, scores, time.monotonic() - started)
        self.record.add_versions(entry, keys)

    def show_samples(self, generators: Generators, nimg: int) -> dict[str, str]:
        """Writes the picture of a snapshot; returns where it is, by norms, as records have it."""
        norms = self.spec.eval.norms
        path, generator = self.paths.samples(nimg, norms), generators.get(norms)
        assert generator is not None  # of these norms every generator is
        write_samples(generator, path)
        return {norms: str(path.relative_to(self.paths.dir))}

    def kept(self, nimg: int) -> nn.Module | None:
        """The generator of a snapshot, with the norms it was kept with, which are copied ones.

        None = it was not kept, or its file is of no use.
        """
        path = self.paths.snapshot(nimg)
        if not path.exists():
            return None
        try:
            return load_generator(path, "copied", run_device())[0]
        except DataError as error:
            self.lease.fence()
            log.warning("%s (kept as %s)", error, records.set_aside(path).name)
            return None

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
        start = self.lease.start or 0
        if several and retry.is_of_a_neighbour(error):
            raise retry.NeighbourLeft(line, start, self.lease.nimg) from error
        failure = retry.Failure(kind, line, start if kind == "node" else self.lease.nimg)
        content, train = self.record.content, self.spec.config.train
        before = retry.micro_batch(content, train, world().size)
        if not retry.settle(content, failure, train if self.training else None, world().size):
            return
        if kind == "memory":
            log.warning(
                "Out of memory with %d images at a time: going on with %d, gradients accumulated",
                before,
                retry.micro_batch(content, train, world().size),
            )
        if kind == "node" or several:
            content["error"] = line
            self.record.save()
            raise (retry.NodeFault if kind == "node" else retry.TryAgain)(line) from error

    @property
    def config(self) -> Config:
        """The configuration that is trained: the run's, in micro-batches that fit the memory."""
        cfg = self.spec.config
        if "micro_batch" not in self.record.content:
            return cfg
        size = retry.micro_batch(self.record.content, cfg.train, world().size)
        return replace(cfg, train=replace(cfg.train, micro_batch=size))

    def on_images(self, nimg: int) -> None:
        self.lease.check()
        self.lease.moved(nimg)
        self.stop.defer()
        self.progress.train(nimg)

    def on_data(self, done: int, total: int) -> None:
        self.on_batch()
        self.progress.data(done, total)

    def on_batch(self) -> None:
        """A sign of life; raises where another process took the run over."""
        self.lease.check()
        self.lease.moved()


def _by_norms(keys: Sequence[str], usual: str) -> dict[str, list[str]]:
    """Keys of metrics by the norms that they hold to."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(METRICS[key].norms or usual, []).append(key)
    return found


def forget(run: RunPaths, lease: Lease) -> None:
    """Forgets what was done of a run; the log stays."""
    lease.fence()
    for path in (run.record, run.checkpoint, previous(run.checkpoint)):
        path.unlink(missing_ok=True)
    for folder in (run.samples_dir, run.snapshots_dir, run.diverged_dir):
        shutil.rmtree(folder, ignore_errors=True)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _storage_full(error: BaseException, folder: Path) -> UserError:
    reason = getattr(error, "strerror", None) or one_line(error)
    return StorageFull(
        f"{folder}: cannot be written ({reason}); make room and run the same command again"
    )
