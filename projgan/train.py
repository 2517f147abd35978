"""Training of one run: `train(cfg, run_dir, …)` yields the averaged generator as it improves.

`Trainer` has the networks and the training step, `Session` the images, the position and the
checkpoint around it; `train` is the loop.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projgan import config
from projgan.augment.ada import Adaptive
from projgan.augment.diffaug import augment, blur
from projgan.augment.features import augment_features, level_weights
from projgan.checkpoint import load_checkpoint, save_checkpoint
from projgan.classes import class_frequencies, labels_for
from projgan.config import AVERAGES, Config, from_dict
from projgan.data.dataset import Dataset, open_dataset, sample_order, training_indices
from projgan.data.loading import Batch, Loader, ahead_for, as_floats
from projgan.discriminators.baselines import FastGANHeads, OnImages
from projgan.discriminators.projected import ProjectedDiscriminator, build_discriminator
from projgan.divergence import LossWatch, TrainingDiverged, check_weights, keep_evidence
from projgan.ema import ema_beta, ema_update
from projgan.errors import ConfigError, UserError
from projgan.generators import build_generator
from projgan.layers import seeded
from projgan.losses import discriminator_loss, generator_loss, gradient_penalty
from projgan.parallel import World, group_batch_norm, join
from projgan.penalties import PathLength, due
from projgan.rng import Coordinates, Stream
from projgan.speed import fast
from projgan.speed.compiled import NOT_COMPILED, Compiling
from projgan.speed.step_times import StepTimer

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


class Trainer:
    """Networks, optimisers and the training step: a step of D, a step of G, the moving average."""

    def __init__(
        self,
        cfg: Config,
        device: torch.device,
        world: World | None = None,
        switches: frozenset[str] | None = None,
    ):
        """
        Args:
            switches: names of `projgan.speed.fast.SWITCHES`. None = as `cfg.train.fast` says.
        """
        self.cfg = cfg
        self.device = device
        self.world = world or World()
        self.fast = switches if switches is not None else fast.chosen(cfg.train.fast)
        if cfg.train.compile:
            self.fast -= NOT_COMPILED
        self.bf16 = cfg.train.precision == "bf16"
        channels_last = "layout" in self.fast
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        with seeded(cfg.train.seed, "generator"):
            self.generator: Any = build_generator(cfg)
        self.discriminator = build_discriminator(cfg)
        self._place(self.generator)
        self._place(self.discriminator)
        backbone = self.discriminator.backbone
        for network in backbone.networks if backbone is not None else ():
            network.layout = self.layout
            if "norms" in self.fast:
                size = network.input_size
                fast.fold_norms(network.trunk, torch.zeros(1, 3, size, size, device=device))
        self.average = deepcopy(self.generator).eval().requires_grad_(False)
        others = AVERAGES if cfg.train.averages else {}
        self.averages = {name: deepcopy(self.average) for name in others}
        for trained in (self.generator, self.discriminator.heads):  # the average is the first's
            group_batch_norm(trained, cfg.train.norm_group, self.world)
        every_d, every_g = cfg.discriminator.r1_every, cfg.generator.path_length_every
        heads, o, fused = self.discriminator.heads, cfg.optim, "optimiser" in self.fast
        self.optim_g = adam(self.generator, o, o.lr_g, o.rescale_g, every_g, fused)
        self.optim_d = adam(heads, o, o.lr_d, o.rescale_d, every_d, fused)
        self.adaptive = Adaptive(cfg.augment.ada_target)
        self.path_length = PathLength(cfg.generator, device)
        self.compiling: Compiling | None = None
        if cfg.train.compile:
            d = self.discriminator
            parts = [self.generator, d.backbone, d.projection, d.heads]
            networks = [part for part in parts if part is not None]
            self.compiling = Compiling(networks, device, cfg.train.cuda_graphs)
        self.timer = StepTimer(device)
        share, unit = self.world.share(cfg.train.batch), cfg.train.least_part(self.world.size)
        self.parts = micro_batches(share.stop - share.start, cfg.train.micro_batch, unit)
        # Classes of the real images at some indices; training sets it to those of each batch.
        self.real_labels: Callable[[Tensor], Tensor] = lambda index: index % cfg.data.classes
        self.number = 0  # of the step; some regularisers have their turn now and then

    def _place(self, module: nn.Module) -> None:
        """Moves a network to the device, in the layout and with the faster forms of this run."""
        fast.enable(module, self.fast)
        module.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]

    def state(self) -> dict[str, Any]:
        """Return all that changes during training, and the frozen projection, to be checked."""
        projection = self.discriminator.projection
        return {
            "generator": self.generator.state_dict(),
            "heads": self.discriminator.heads.state_dict(),
            "average": self.average.state_dict(),
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "optim_g": self.optim_g.state_dict(),
            "optim_d": self.optim_d.state_dict(),
            "projection": projection.state_dict() if projection is not None else {},
            "adaptive": self.adaptive.state(),
            "path_length": self.path_length.mean,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.heads.load_state_dict(state["heads"])
        self.average.load_state_dict(state["average"])
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
        for name in ("optim_g", "optim_d"):
            optimiser: torch.optim.Optimizer = getattr(self, name)
            fused = optimiser.defaults["fused"]  # as this run has it, not as the state's had
            optimiser.load_state_dict(state[name])
            optimiser.param_groups[0]["fused"] = fused
        if self.discriminator.projection is not None:
            self.discriminator.projection.load_state_dict(state["projection"])
        if "adaptive" in state:  # not in the oldest checkpoints, which have no use for it
            self.adaptive.load_state(state["adaptive"])
            self.path_length.mean = state["path_length"].to(self.device)

    def step(self, real: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on one batch, or on this process's share of it.

        Args:
            real: [N, 3, R, R] float in [-1, 1].
            index: [N] int64, the samples' global indices.

        Returns:
            The losses of discriminator and generator, on the device.
        """
        if self.compiling is not None:
            once = partial(self._step, real, index)
            losses: tuple[Tensor, Tensor] = self.compiling.run(once, self.state, self.load_state)
            return losses
        return self._step(real, index)

    def _step(self, real: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.discriminator.heads
        heads.requires_grad_(True)
        loss_d = self._descend(self.optim_d, heads, self.discriminator_loss, real, index)
        self.adaptive.update(self.number, self.cfg.train.batch, self.world)
        heads.requires_grad_(False)
        loss_g = self._descend(self.optim_g, self.generator, self.generator_loss, real, index)
        return loss_d, loss_g

    def discriminator_loss(self, real: Tensor, index: Tensor) -> Tensor:
        """Return the loss of D: frozen features without gradient, then the trained heads."""
        cfg, discriminator = self.cfg, self.discriminator
        with torch.no_grad():
            shown = self._augment(real, Stream.AUGMENT_REAL, index)
            fake = self._fake(Stream.LATENT_D, Stream.AUGMENT_FAKE_D, index)
            maps_real, maps_fake = self._features(shown, fake)
            maps_real = self._augment_features(maps_real, Stream.NOISE_REAL, index)
            maps_fake = self._augment_features(maps_fake, Stream.NOISE_FAKE_D, index)
        d = cfg.discriminator
        on_real, on_fake = (due(weight, d.r1_every, self.number) for weight in (d.r1, d.r2))
        if on_real:
            maps_real = [m.detach().requires_grad_() for m in maps_real]
        if on_fake:
            maps_fake = [m.detach().requires_grad_() for m in maps_fake]
        labels_real = self.real_labels(index) if cfg.data.classes else None
        logits_real = as_float(discriminator.logits(maps_real, labels_real))
        labels_fake = labels_for(self.generator, self._coordinates(Stream.LATENT_D, index))
        logits_fake = as_float(discriminator.logits(maps_fake, labels_fake))
        self.adaptive.observe(logits_real)
        how = (d.reduce, cfg.train.loss, self._weights(logits_real), self.balanced)
        loss = discriminator_loss(logits_real, logits_fake, *how)
        if on_real:
            loss = loss + gradient_penalty(maps_real, logits_real) * (d.r1 / 2 * d.r1_every)
        if on_fake:
            loss = loss + gradient_penalty(maps_fake, logits_fake) * (d.r2 / 2 * d.r1_every)
        if isinstance(discriminator.heads, FastGANHeads):  # it also learns to rebuild real images
            quadrant = (self._coordinates(Stream.QUADRANT, index).uniform(1)[:, 0] * 4).long()
            loss = loss + discriminator.heads.reconstruction(shown, quadrant)
        return loss

    def _features(self, real: Tensor, fake: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the frozen, projected maps of real and of generated images."""
        features, n = self.discriminator.features, len(real)
        if "together" not in self.fast:
            return features(real, self._on_part), features(fake, self._on_part)
        both = torch.cat([real, fake]).contiguous(memory_format=self.layout)
        maps = features(both, self._on_part)
        return [m[:n] for m in maps], [m[n:] for m in maps]

    def _augment_features(self, maps: list[Tensor], stream: Stream, index: Tensor) -> list[Tensor]:
        """Return projected maps with dropout and noise as configured; images stay as they are."""
        if self.discriminator.projection is None:
            return maps
        cfg, count = self.cfg, len(maps) - self.cfg.discriminator.extra_rgb
        where = self._coordinates(stream, index)
        augmented = augment_features(
            maps[:count], cfg.projection, cfg.train.seed, self.number, where
        )
        return [*augmented, *maps[count:]]

    def _weights(self, logits: list[Tensor]) -> Tensor | None:
        """Return each discriminator's weight [levels] in this step; None = all alike."""
        seed = self.cfg.train.seed
        return level_weights(self.cfg.projection, seed, self.number, len(logits), self.device)

    @property
    def balanced(self) -> bool:
        """Whether the losses are balanced between sides and images (`train.feedback`)."""
        return self.cfg.train.feedback == "balanced"

    def _on_part(self, part: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Marks the forward pass of a frozen part, and its backward pass, in the timer."""
        self.timer.mark(part)
        self.timer.when_gradient_arrives(part, inputs)

    def update_average(self, nimg: int) -> None:
        """Moves the averaged generators after a step that ended at `nimg` images."""
        cfg = self.cfg.train
        beta = ema_beta(nimg, cfg.batch, cfg.ema_kimg, cfg.ema_rampup)
        together = "average" in self.fast
        ema_update(self.average, self.generator, beta, together)
        for name, average in self.averages.items():  # the half-life is in the exponent
            ema_update(average, self.generator, beta ** (1 / AVERAGES[name]), together)
        self.timer.mark("average")

    def generator_loss(self, real: Tensor, index: Tensor) -> Tensor:
        """Return the loss of G, whose gradient passes heads, projection and backbone to images."""
        fake = self._fake(Stream.LATENT_G, Stream.AUGMENT_FAKE_G, index)
        maps = self.discriminator.features(fake, self._on_part)
        self.timer.when_gradient_arrives("discriminator", [m for m in maps if m is not fake])
        maps = self._augment_features(maps, Stream.NOISE_FAKE_G, index)
        labels = labels_for(self.generator, self._coordinates(Stream.LATENT_G, index))
        logits = as_float(self.discriminator.logits(maps, labels))
        how = (self.cfg.discriminator.reduce, self.cfg.train.loss)
        relativistic = self.cfg.train.loss == "relativistic"
        logits_real = self._real_logits(real, index) if relativistic else None
        loss = generator_loss(logits, *how, self._weights(logits), self.balanced, logits_real)
        g = self.cfg.generator
        if due(g.path_length, g.path_length_every, self.number):
            where = self._coordinates(Stream.LATENT_G, index)
            loss = loss + self.path_length.penalty(self.generator, where, self.world)
        return loss

    @torch.no_grad()
    def _real_logits(self, real: Tensor, index: Tensor) -> list[Tensor]:
        """Return the discriminators' logits on the real images that they have just learned from."""
        shown = self._augment(real, Stream.AUGMENT_REAL, index)
        maps = self._augment_features(self.discriminator.features(shown), Stream.NOISE_REAL, index)
        labels = self.real_labels(index) if self.cfg.data.classes else None
        return as_float(self.discriminator.logits(maps, labels))

    def _descend(
        self,
        optimiser: torch.optim.Optimizer,
        module: nn.Module,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        real: Tensor,
        index: Tensor,
    ) -> Tensor:
        """One step of an optimiser on the mean loss of the batch, micro-batch by micro-batch."""
        part_name = "generator" if module is self.generator else "discriminator"
        optimiser.zero_grad(set_to_none=True)
        total: Tensor | None = None
        for part in self.parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = loss_of(real[part], index[part])
            if (share := len(index[part]) / len(index)) != 1:
                loss = loss * share
            self.timer.mark("discriminator")
            loss.backward()
            self.timer.mark(part_name)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        total = self.world.average(total, module.parameters())
        optimiser.step()
        self.timer.mark("optimiser")
        return total

    def use_class_frequencies(self, frequencies: Tensor) -> None:
        """Sets how often the generators draw each class.

        Args:
            frequencies: [classes] float, of the training images; their sum is 1.
        """
        for generator in (self.generator, self.average, *self.averages.values()):
            generator.get_buffer("class_share").copy_(frequencies)

    def use_labels(self, first: int, labels: Tensor) -> None:
        """Sets the classes [N] int64 of the next real images, whose first index is `first`."""
        self.real_labels = lambda index: labels[index - first]

    def _coordinates(self, stream: Stream, index: Tensor) -> Coordinates:
        """Return where the samples [N] of a step find their random numbers in a stream."""
        return Coordinates(self.cfg.train.seed, stream, index)

    def _fake(self, stream: Stream, augmentation: Stream, index: Tensor) -> Tensor:
        where = self._coordinates(stream, index)
        z, labels = where.normal(self.cfg.generator.z_dim), labels_for(self.generator, where)
        how = {} if labels is None else {"labels": labels}
        images = self.generator(z, where, **how).float()
        self.timer.mark("generator")
        self.timer.when_gradient_arrives("augmentation", [images])
        return self._augment(images, augmentation, index)

    def _augment(self, images: Tensor, stream: Stream, index: Tensor) -> Tensor:
        where = self._coordinates(stream, index)
        a, seen = self.cfg.augment, self.number * self.cfg.train.batch
        images = blur(images, a.blur_sigma * max(0.0, 1 - seen / (a.blur_fade_kimg * 1000)))
        shown = self.adaptive(augment(images, a.policy, where), where)
        self.timer.mark("augmentation")
        return shown


def as_float(logits: list[Tensor]) -> list[Tensor]:
    """Return logits in float32, in which losses are computed whatever the networks' precision."""
    return [x.float() for x in logits]


def adam(
    module: nn.Module, cfg: config.Optim, rate: float, rescale: bool, every: int, fused: bool
) -> torch.optim.Adam:
    """Return Adam over a module's parameters.

    Args:
        rate: learning rate.
        rescale: corrects rate and betas for a regulariser that is computed on one step in `every`
            (lazy regularisation, Karras et al., CVPR 2020, Appendix B).
        fused: one operator over all weights.
    """
    shrink = every / (every + 1) if rescale else 1.0
    betas = (cfg.beta1**shrink, cfg.beta2**shrink)
    one_by_one = {"fused": False, "foreach": False}
    how = {"fused": True} if fused else one_by_one
    return torch.optim.Adam(module.parameters(), rate * shrink, betas, **how)


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


def micro_batches(n: int, size: int | None, unit: int = 1) -> list[slice]:
    """Return the fewest parts of at most `size` that a batch of n can be cut into, equally large.

    Args:
        unit: each part has a multiple of this many samples: the groups of batch norm.
    """
    if size is not None and size < min(unit, n):
        raise ConfigError(
            f"train.micro_batch={size}: batch norm takes {unit} of the {n} images of a process "
            "together; give so many or more, or a smaller train.norm_group"
        )
    units = n // unit
    count = -(-units // (size // unit)) if size else 1
    bounds = [units * i // count * unit for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


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
