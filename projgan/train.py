"""Training of one run: `train(cfg, run_dir, …)` yields the averaged generator as it improves.

`projgan.trainer.Trainer` has the networks and the training step, `Session` the images, the position
and the checkpoint around it; `train` is the loop.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from projgan.checkpoint import load_checkpoint, save_checkpoint
from projgan.classes import class_frequencies
from projgan.config import Config, from_dict
from projgan.data.dataset import Dataset, open_dataset, sample_order, training_indices
from projgan.data.loading import Batch, Loader, ahead_for, as_floats
from projgan.discriminators.baselines import OnImages
from projgan.discriminators.projected import ProjectedDiscriminator
from projgan.divergence import LossWatch, TrainingDiverged, check_weights, keep_evidence
from projgan.errors import UserError
from projgan.parallel import join
from projgan.rng import Coordinates, Stream
from projgan.trainer import Trainer

CHECKPOINT_SECONDS = 300  # at most this much training is lost to a crash
WARMUP_STEPS = 5  # steps of a session whose time is not counted as throughput
FINITE_CHECK_STEPS = 50  # how often the host looks at the losses

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The state that is evaluated.

    Attributes:
        nimg: real images shown to the discriminator so far.
        generator: the averaged generator, in eval mode, on `device`. Its batch-norm statistics are
            copies of the raw generator's; `projgan.standing_statistics` computes its own.
        discriminator: for distances in the run's own features.
        train_seconds: time spent in training steps, over all sessions of the run.
        images_per_s: steady state of this session, without warm-up and without the steps that
            the timer sampled. None = too few steps.
        warmup_seconds: time of the first steps, compilation included.
        final: whether the run's budget is used up.
        step_times: where the time of this session's steps went
            (`projgan.speed.step_times`). None = no step was sampled.
        other_generators: by name, what the average can be compared with while it is trained:
            `raw`, the generator that is trained, and the averages of `train.averages`.
    """

    nimg: int
    generator: nn.Module
    discriminator: ProjectedDiscriminator | OnImages
    dataset: Dataset
    device: torch.device
    train_seconds: float
    images_per_s: float | None
    warmup_seconds: float
    final: bool
    step_times: dict[str, Any] | None = None
    other_generators: Mapping[str, nn.Module] = field(default_factory=dict)


def train(
    cfg: Config,
    run_dir: Path,
    data_dir: Path,
    snapshot_at: Sequence[int],
    on_progress: Callable[[int], None] | None = None,
    on_data: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[Snapshot]:
    """Trains a Projected GAN, or goes on with it where `run_dir` holds a checkpoint.

    Args:
        cfg: the run's configuration.
        run_dir: keeps `checkpoint.pt`.
        data_dir: where packed data sets are kept.
        snapshot_at: yield at the first batch that reaches each of these numbers of images; the
            end of the budget always yields.
        on_progress: called with the number of images after each step.
        on_data: called with (done, total) while images are rendered or packed.
        should_stop: asked after each step; when it returns true, training ends early, after its
            checkpoint was written.

    Yields:
        A Snapshot, always after its checkpoint was written. After a crash the snapshot that was
        resumed from comes again, so that no evaluation is lost.

    Raises:
        UserError: the checkpoint belongs to another configuration.
        TrainingDiverged: a loss or a weight is not finite; `run_dir/diverged` has the evidence.
    """
    session = Session(cfg, run_dir, data_dir, on_data)
    timer, total = session.trainer.timer, session.total
    due = {min(round_up(n, cfg.train.batch), total) for n in snapshot_at} | {total}

    session.resume()
    if session.nimg in due:
        with timer.outside_steps("evaluation"):
            yield session.snapshot()

    with closing(session.batches()) as batches:
        while session.nimg < total:
            started = time.perf_counter()
            session.step(batches)
            session.wait_if_timed(check_losses=session.nimg in due)
            session.count_seconds(time.perf_counter() - started)
            if on_progress:
                on_progress(session.nimg)

            stop = session.world.broadcast(should_stop is not None and should_stop())
            if session.nimg in due or stop or session.seconds_since_save() > CHECKPOINT_SECONDS:
                with timer.outside_steps("checkpoint"):
                    session.save()
            if session.nimg in due:
                with timer.outside_steps("evaluation"):
                    yield session.snapshot()
            if stop:
                return


class Session:
    """One session of a run: its networks and images, how far it is, and how fast.

    Attributes:
        nimg: real images shown to the discriminator, over all sessions of the run.
        total: images of the whole budget, a multiple of the batch.
        steps: steps of this session.
        train_seconds: time spent in training steps, over all sessions of the run.
        warmup_seconds: time of this session's first `WARMUP_STEPS` steps.
        steady_images, steady_seconds: of the steps after them that the timer did not sample.
    """

    def __init__(
        self,
        cfg: Config,
        run_dir: Path,
        data_dir: Path,
        on_data: Callable[[int, int], None] | None = None,
    ) -> None:
        self.cfg, self.run_dir = cfg, run_dir
        self.checkpoint = run_dir / "checkpoint.pt"
        self.world = join()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dataset = open_dataset(cfg.data, data_dir, on_data)
        self.chosen = training_indices(cfg.data, len(self.dataset.images), self.dataset.order)
        self.trainer = Trainer(cfg, self.device, self.world)
        labels = None
        if cfg.data.classes:
            frequencies, labels = class_frequencies(self.dataset, self.chosen, cfg.data.classes)
            self.trainer.use_class_frequencies(frequencies)
        self.share = self.world.share(cfg.train.batch)
        self.loader = Loader(self.dataset.images, self.chosen, labels, cfg.train.seed,
                             cfg.train.batch, self.share, self.device,
                             ahead_for(self.device))  # fmt: skip
        self.total = round_up(round(cfg.train.total_kimg * 1000), cfg.train.batch)
        self.nimg = self.steps = 0
        self.train_seconds = self.warmup_seconds = 0.0
        self.steady_images, self.steady_seconds = 0, 0.0
        self.losses = LossWatch()
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Goes on from the newest whole checkpoint, if there is one.

        Raises:
            UserError: it belongs to another configuration or to other networks, or the processes
                of this run read different ones.
        """
        path = self.checkpoint
        state = load_checkpoint(path, ("config", "nimg", "train_seconds", "trainer"))
        if state is not None:
            if not same_run(state["config"], self.cfg):
                raise UserError(f"{path} belongs to another configuration; move it away")
            try:
                self.trainer.load_state(state["trainer"])
                self.nimg, self.train_seconds = int(state["nimg"]), float(state["train_seconds"])
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise UserError(f"{path} fits other networks ({reason}); move it away") from None
            log.info("Going on from %d images", self.nimg)
        if self.world.broadcast(self.nimg) != self.nimg:
            raise UserError(f"{path} is not the same for all processes; put it on a shared disk")
        self.saved_at = time.monotonic()

    def batches(self) -> Generator[Batch, None, None]:
        """Yield the batches that are left of the budget, this process's share of each."""
        return self.loader.batches(self.nimg, self.total)

    def step(self, batches: Iterator[Batch]) -> None:
        """Trains on the next batch: a step of D, a step of G, a step of the moving averages."""
        cfg, trainer, batch = self.cfg, self.trainer, self.cfg.train.batch
        self.steps += 1
        with trainer.timer.step(self.steps):
            pixels, classes = next(batches)
            index = torch.arange(self.nimg, self.nimg + batch, device=self.device)[self.share]
            real = as_floats(pixels)
            if classes is not None:
                trainer.use_labels(self.nimg + self.share.start, classes)
            if cfg.data.mirror:
                flip = Coordinates(cfg.train.seed, Stream.FLIP, index).uniform(1) < 0.5
                real = torch.where(flip[:, :, None, None], real.flip(3), real)
            trainer.timer.mark("data")
            trainer.number = self.nimg // batch
            losses = trainer.step(real, index)
            self.nimg += batch
            trainer.update_average(self.nimg)
        self.losses.add(self.nimg, losses)

    def wait_if_timed(self, check_losses: bool) -> None:
        """Waits for the device where the clock of training is read, and looks at the losses there.

        Args:
            check_losses: in this step; otherwise every `FINITE_CHECK_STEPS` steps.
        """
        timer = self.trainer.timer
        if check_losses or self.steps % FINITE_CHECK_STEPS == 0:
            self.check_finite()  # fetches the losses, so that the device has done its work
        elif self.steps == WARMUP_STEPS or timer.samples(self.steps + 1):
            timer.synchronise()

    def count_seconds(self, seconds: float) -> None:
        """Adds the wall clock of a step: warm-up and sampled steps do not count as throughput."""
        self.train_seconds += seconds
        self.trainer.timer.outside["training"] += seconds
        if self.steps <= WARMUP_STEPS:
            self.warmup_seconds += seconds
        elif not self.trainer.timer.samples(self.steps):
            self.steady_images += self.cfg.train.batch
            self.steady_seconds += seconds

    def check_finite(self, weights: bool = False) -> None:
        """Stops a run that diverged, and keeps the evidence.

        Args:
            weights: checks the weights of G and of the discriminators too, not the losses alone.

        Raises:
            TrainingDiverged: a loss or a weight is infinite or not a number.
        """
        try:
            self.losses.check()
            if weights:
                trained = (self.trainer.generator, self.trainer.discriminator.heads)
                check_weights(trained, self.nimg)
        except TrainingDiverged as error:
            if self.world.is_first:
                seed, batch = self.cfg.train.seed, self.cfg.train.batch
                order = sample_order(seed, error.nimg - batch, batch, len(self.chosen))
                images = self.chosen[order].tolist()
                keep_evidence(self.run_dir / "diverged", error, images, self.trainer.state())
            raise

    def save(self) -> None:
        """Writes the checkpoint, in the first process alone.

        Raises:
            TrainingDiverged: the state is not finite and must not become a checkpoint.
        """
        self.check_finite(weights=True)
        if not self.world.is_first:
            return
        identity = json.dumps(asdict(self.cfg), sort_keys=True)
        position = {"nimg": self.nimg, "train_seconds": self.train_seconds}
        state = {"config": identity, **position, "trainer": self.trainer.state()}
        save_checkpoint(self.checkpoint, state)
        self.saved_at = time.monotonic()

    def seconds_since_save(self) -> float:
        """Return the seconds since the last checkpoint, or since the session began."""
        return time.monotonic() - self.saved_at

    def snapshot(self) -> Snapshot:
        """Return the state that is evaluated."""
        trainer = self.trainer
        speed = self.steady_images / self.steady_seconds if self.steady_images else None
        return Snapshot(
            nimg=self.nimg,
            generator=trainer.average,
            discriminator=trainer.discriminator,
            dataset=self.dataset,
            device=self.device,
            train_seconds=self.train_seconds,
            images_per_s=speed,
            warmup_seconds=self.warmup_seconds,
            final=self.nimg >= self.total,
            step_times=trainer.timer.summary(self.cfg.train.batch / speed if speed else None),
            other_generators={"raw": trainer.generator, **trainer.averages},
        )


def round_up(n: int, batch: int) -> int:
    """Return the number of images after the first whole batch that reaches n."""
    return -(-max(n, 1) // batch) * batch


def same_run(text: str, cfg: Config) -> bool:
    """Return whether the configuration in a checkpoint is `cfg`, without `train.micro_batch`.

    Fields that came later than the checkpoint are at their defaults.
    """

    def plain(c: Config) -> Config:
        return replace(c, train=replace(c.train, micro_batch=None))

    try:
        return plain(from_dict(json.loads(text))) == plain(cfg)
    except (UserError, ValueError, TypeError, AttributeError):
        return False
