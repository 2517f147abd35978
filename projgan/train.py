"""The story of one run: train(cfg, run_dir) yields the averaged generator as it improves."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from projgan.augment.features import disturb, level_weights
from projgan.checkpoint import load_checkpoint, save_checkpoint
from projgan.classes import labels_for, shares
from projgan.config import AVERAGES, Config, from_dict
from projgan.data.dataset import Dataset, open_dataset, sample_order, training_indices
from projgan.data.loading import Loader, ahead_for, as_floats
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
from projgan.speed.step_times import Ledger

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
            copies of the raw generator's; `projgan.standing_statistics` gives it its own.
        discriminator: for distances in the run's own features.
        train_seconds: time spent in training steps, over all sessions of the run.
        images_per_s: steady state of this session, warm-up and the steps that were sampled for
            the ledger left out. None = too few steps.
        warmup_seconds: time of the first steps, compilation included.
        final: whether the run's budget is used up.
        ledger: where the time of this session's steps went (`projgan.speed.step_times`).
            None = no sample.
        beside: by name, what the average can be compared with while it is trained: `raw`, the
            generator that is trained, and the averages of `train.averages`.
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
    ledger: dict[str, Any] | None = None
    beside: Mapping[str, nn.Module] = field(default_factory=dict)


class Trainer:
    """Networks, optimisers and one training step (Algorithm: one D step, one G step, EMA)."""

    def __init__(
        self,
        cfg: Config,
        device: torch.device,
        world: World | None = None,
        switches: frozenset[str] | None = None,
    ):
        """
        Args:
            switches: of `projgan.speed.fast`. None = as `cfg.train.fast` says.
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
        self.ledger = Ledger(device)
        share, unit = self.world.share(cfg.train.batch), cfg.train.least_part(self.world.size)
        self.parts = micro_batches(share.stop - share.start, cfg.train.micro_batch, unit)
        # Classes of the real images at some indices; training sets it to those of each batch.
        self.labels_of: Callable[[Tensor], Tensor] = lambda index: index % cfg.data.classes
        self.number = 0  # of the step; some regularisers have their turn now and then

    def _place(self, module: nn.Module) -> None:
        """On the device, in the layout, with the faster forms that were chosen."""
        fast.enable(module, self.fast)
        module.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]

    def state(self) -> dict[str, Any]:
        """All that changes during training, and the frozen projection as a witness."""
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
        self.adaptive.follow(self.number, self.cfg.train.batch, self.world)
        heads.requires_grad_(False)
        loss_g = self._descend(self.optim_g, self.generator, self.generator_loss, real, index)
        return loss_d, loss_g

    def discriminator_loss(self, real: Tensor, index: Tensor) -> Tensor:
        """Frozen features of real and fake in one pass, without gradient; then the heads."""
        cfg, discriminator = self.cfg, self.discriminator
        with torch.no_grad():
            shown = self._augment(real, Stream.AUGMENT_REAL, index)
            fake = self._fake(Stream.LATENT_D, Stream.AUGMENT_FAKE_D, index)
            maps_real, maps_fake = self._features(shown, fake)
            maps_real = self._disturbed(maps_real, Stream.NOISE_REAL, index)
            maps_fake = self._disturbed(maps_fake, Stream.NOISE_FAKE_D, index)
        d = cfg.discriminator
        on_real, on_fake = (due(weight, d.r1_every, self.number) for weight in (d.r1, d.r2))
        if on_real:
            maps_real = [m.detach().requires_grad_() for m in maps_real]
        if on_fake:
            maps_fake = [m.detach().requires_grad_() for m in maps_fake]
        labels = self.labels_of(index) if cfg.data.classes else None
        logits_real = as_float(discriminator.judge(maps_real, labels))
        drawn = labels_for(self.generator, self._draw(Stream.LATENT_D, index))
        logits_fake = as_float(discriminator.judge(maps_fake, drawn))
        self.adaptive.see(logits_real)
        how = (d.reduce, cfg.train.loss, self._weights(logits_real), self.balanced)
        loss = discriminator_loss(logits_real, logits_fake, *how)
        if on_real:
            loss = loss + gradient_penalty(maps_real, logits_real) * (d.r1 / 2 * d.r1_every)
        if on_fake:
            loss = loss + gradient_penalty(maps_fake, logits_fake) * (d.r2 / 2 * d.r1_every)
        if isinstance(discriminator.heads, FastGANHeads):  # it also learns to rebuild real images
            quadrant = (self._draw(Stream.QUADRANT, index).uniform(1)[:, 0] * 4).long()
            loss = loss + discriminator.heads.reconstruction(shown, quadrant)
        return loss

    def _features(self, real: Tensor, fake: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The frozen maps of both."""
        features, n = self.discriminator.features, len(real)
        if "together" not in self.fast:
            return features(real, self._seen), features(fake, self._seen)
        both = torch.cat([real, fake]).contiguous(memory_format=self.layout)
        maps = features(both, self._seen)
        return [m[:n] for m in maps], [m[n:] for m in maps]

    def _disturbed(self, maps: list[Tensor], stream: Stream, index: Tensor) -> list[Tensor]:
        """Projected maps as a step shows them to the discriminators; images stay as they are."""
        if self.discriminator.projection is None:
            return maps
        cfg, count = self.cfg, len(maps) - self.cfg.discriminator.extra_rgb
        where = self._draw(stream, index)
        told = (cfg.projection, cfg.train.seed, self.number, where)
        return [*disturb(maps[:count], *told), *maps[count:]]

    def _weights(self, logits: list[Tensor]) -> Tensor | None:
        """What each discriminator counts for in this step."""
        seed = self.cfg.train.seed
        return level_weights(self.cfg.projection, seed, self.number, len(logits), self.device)

    @property
    def balanced(self) -> bool:
        return self.cfg.train.feedback == "balanced"

    def _seen(self, part: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """The ledger's marks on both ways through a frozen part."""
        self.ledger.mark(part)
        self.ledger.when_gradient_arrives(part, inputs)

    def update_average(self, nimg: int) -> None:
        """Moves the averaged generators after a step that ended at `nimg` images."""
        cfg = self.cfg.train
        beta = ema_beta(nimg, cfg.batch, cfg.ema_kimg, cfg.ema_rampup)
        together = "average" in self.fast
        ema_update(self.average, self.generator, beta, together)
        for name, average in self.averages.items():  # the half-life is in the exponent
            ema_update(average, self.generator, beta ** (1 / AVERAGES[name]), together)
        self.ledger.mark("average")

    def generator_loss(self, real: Tensor, index: Tensor) -> Tensor:
        """The gradient passes through heads, projection and backbone into the images."""
        fake = self._fake(Stream.LATENT_G, Stream.AUGMENT_FAKE_G, index)
        maps = self.discriminator.features(fake, self._seen)
        self.ledger.when_gradient_arrives("discriminator", [m for m in maps if m is not fake])
        maps = self._disturbed(maps, Stream.NOISE_FAKE_G, index)
        drawn = labels_for(self.generator, self._draw(Stream.LATENT_G, index))
        logits = as_float(self.discriminator.judge(maps, drawn))
        how = (self.cfg.discriminator.reduce, self.cfg.train.loss)
        beside = self._real_logits(real, index) if self.cfg.train.loss == "relativistic" else None
        loss = generator_loss(logits, *how, self._weights(logits), self.balanced, beside)
        g = self.cfg.generator
        if due(g.path_length, g.path_length_every, self.number):
            where = self._draw(Stream.LATENT_G, index)
            loss = loss + self.path_length.penalty(self.generator, where, self.world)
        return loss

    @torch.no_grad()
    def _real_logits(self, real: Tensor, index: Tensor) -> list[Tensor]:
        """What the discriminators now say of the real images that they learned from."""
        shown = self._augment(real, Stream.AUGMENT_REAL, index)
        maps = self._disturbed(self.discriminator.features(shown), Stream.NOISE_REAL, index)
        labels = self.labels_of(index) if self.cfg.data.classes else None
        return as_float(self.discriminator.judge(maps, labels))

    def _descend(
        self,
        optimiser: torch.optim.Optimizer,
        module: nn.Module,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        real: Tensor,
        index: Tensor,
    ) -> Tensor:
        """One step of an optimiser on the mean loss of the batch, micro-batch by micro-batch."""
        account = "generator" if module is self.generator else "discriminator"
        optimiser.zero_grad(set_to_none=True)
        total: Tensor | None = None
        for part in self.parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = loss_of(real[part], index[part])
            if (share := len(index[part]) / len(index)) != 1:
                loss = loss * share
            self.ledger.mark("discriminator")
            loss.backward()
            self.ledger.mark(account)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        total = self.world.average(total, module.parameters())
        optimiser.step()
        self.ledger.mark("optimiser")
        return total

    def use_shares(self, share: Tensor) -> None:
        """Takes how often each class occurs among the training images."""
        for generator in (self.generator, self.average, *self.averages.values()):
            generator.get_buffer("class_share").copy_(share)

    def use_labels(self, first: int, labels: Tensor) -> None:
        """Takes the classes [N] of the real images that are shown next, from index `first` on."""
        self.labels_of = lambda index: labels[index - first]

    def _draw(self, stream: Stream, index: Tensor) -> Coordinates:
        return Coordinates(self.cfg.train.seed, stream, index)

    def _fake(self, stream: Stream, augmentation: Stream, index: Tensor) -> Tensor:
        where = self._draw(stream, index)
        z, labels = where.normal(self.cfg.generator.z_dim), labels_for(self.generator, where)
        how = {} if labels is None else {"labels": labels}
        images = self.generator(z, where, **how).float()
        self.ledger.mark("generator")
        self.ledger.when_gradient_arrives("augmentation", [images])
        return self._augment(images, augmentation, index)

    def _augment(self, images: Tensor, stream: Stream, index: Tensor) -> Tensor:
        where = self._draw(stream, index)
        a, seen = self.cfg.augment, self.number * self.cfg.train.batch
        images = blur(images, a.blur_sigma * max(0.0, 1 - seen / (a.blur_fade_kimg * 1000)))
        shown = self.adaptive(augment(images, a.policy, where), where)
        self.ledger.mark("augmentation")
        return shown


def as_float(logits: list[Tensor]) -> list[Tensor]:
    """Losses are taken in float32 whatever the networks compute in."""
    return [x.float() for x in logits]


def adam(
    module: nn.Module, cfg: config.Optim, rate: float, rescale: bool, every: int, fused: bool
) -> torch.optim.Adam:
    """Adam, shrunk where asked for as lazy regularisation every so many steps wants it."""
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
        cfg: what to train.
        run_dir: keeps `checkpoint.pt`.
        data_dir: where packed data sets are kept.
        snapshot_at: yield at the first batch that reaches each of these numbers of images; the
            end of the budget always yields.
        on_progress: called with the number of images after each step.
        on_data: called with (done, total) while images are rendered or packed.
        should_stop: asked after each step; where it says so, training ends early, its checkpoint
            written.

    Yields:
        A Snapshot, always after its checkpoint was written. After a crash the snapshot that was
        resumed from comes again, so that no evaluation is lost.
    """
    # Data and networks.
    world = join()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_dataset(cfg.data, data_dir, on_data)
    chosen = training_indices(cfg.data, len(dataset.images), dataset.order)
    trainer = Trainer(cfg, device, world)
    labels = None
    if cfg.data.classes:
        share, labels = shares(dataset, chosen, cfg.data.classes)
        trainer.use_shares(share)
    batch = cfg.train.batch
    mine = world.share(batch)
    loader = Loader(dataset.images, chosen, labels, cfg.train.seed, batch, mine, device,
                    ahead_for(device))  # fmt: skip
    total = round_up(round(cfg.train.total_kimg * 1000), batch)
    due = sorted({min(round_up(n, batch), total) for n in snapshot_at} | {total})

    # Resume.
    checkpoint = run_dir / "checkpoint.pt"
    identity = json.dumps(asdict(cfg), sort_keys=True)
    nimg, train_seconds = 0, 0.0
    state = load_checkpoint(checkpoint, ("config", "nimg", "train_seconds", "trainer"))
    if state is not None:
        if not same_run(state["config"], cfg):
            raise UserError(f"{checkpoint} belongs to another configuration; move it away")
        try:
            trainer.load_state(state["trainer"])
            nimg, train_seconds = int(state["nimg"]), float(state["train_seconds"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{checkpoint} fits other networks ({reason}); move it away") from None
        log.info("Going on from %d images", nimg)
    if world.said(nimg) != nimg:
        raise UserError(f"{checkpoint} is not the same for all processes; put it on a shared disk")

    steps, steady_images, steady_seconds, warmup_seconds = 0, 0, 0.0, 0.0
    saved_at = time.monotonic()

    watch = LossWatch()
    ledger = trainer.ledger

    def examine(weights: bool = False) -> None:
        """Stops a run that diverged, and keeps the evidence."""
        try:
            watch.check()
            if weights:
                check_weights((trainer.generator, trainer.discriminator.heads), nimg)
        except TrainingDiverged as error:
            if world.is_first:
                at = sample_order(cfg.train.seed, error.nimg - batch, batch, len(chosen))
                keep_evidence(run_dir / "diverged", error, chosen[at].tolist(), trainer.state())
            raise

    def save() -> None:
        nonlocal saved_at
        examine(weights=True)
        if not world.is_first:
            return
        position = {"config": identity, "nimg": nimg, "train_seconds": train_seconds}
        save_checkpoint(checkpoint, {**position, "trainer": trainer.state()})
        saved_at = time.monotonic()

    def snapshot() -> Snapshot:
        speed = steady_images / steady_seconds if steady_images else None
        spent = ledger.summary(batch / speed if speed else None)
        return Snapshot(nimg, trainer.average, trainer.discriminator, dataset, device,
                        train_seconds, speed, warmup_seconds, nimg >= total, spent,
                        {"raw": trainer.generator, **trainer.averages})  # fmt: skip

    if nimg in due:
        with ledger.outside_steps("evaluation"):
            yield snapshot()
    with closing(loader.batches(nimg, total)) as batches:
        while nimg < total:
            started = time.perf_counter()
            steps += 1

            # One batch, from its coordinates, and one step on it.
            with ledger.step(steps):
                pixels, classes = next(batches)
                index = torch.arange(nimg, nimg + batch, device=device)[mine]
                real = as_floats(pixels)
                if classes is not None:
                    trainer.use_labels(nimg + mine.start, classes)
                if cfg.data.mirror:
                    flip = Coordinates(cfg.train.seed, Stream.FLIP, index).uniform(1) < 0.5
                    real = torch.where(flip[:, :, None, None], real.flip(3), real)
                ledger.mark("data")
                trainer.number = nimg // batch
                losses = trainer.step(real, index)
                nimg += batch
                trainer.update_average(nimg)
            watch.add(nimg, losses)

            # The clock of training: the first steps of a session warm up, sampled ones are slow.
            if steps % FINITE_CHECK_STEPS == 0 or nimg in due:
                examine()  # waits for the device, so that the clock is synchronised
            elif steps == WARMUP_STEPS or ledger.samples(steps + 1):
                ledger.synchronise()
            seconds = time.perf_counter() - started
            train_seconds += seconds
            ledger.outside["training"] += seconds
            if steps <= WARMUP_STEPS:
                warmup_seconds += seconds
            elif not ledger.samples(steps):
                steady_images += batch
                steady_seconds += seconds
            if on_progress:
                on_progress(nimg)

            # Keep, then show.
            stop = world.said(should_stop is not None and should_stop())
            if nimg in due or stop or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                with ledger.outside_steps("checkpoint"):
                    save()
            if nimg in due:
                with ledger.outside_steps("evaluation"):
                    yield snapshot()
            if stop:
                return


def round_up(n: int, batch: int) -> int:
    """The number of images after the first whole batch that reaches n."""
    return -(-max(n, 1) // batch) * batch


def micro_batches(n: int, size: int | None, unit: int = 1) -> list[slice]:
    """A batch of n in as few parts of at most `size` as there can be, all but equally large.

    Args:
        unit: of this many samples each part is made: the groups of batch norm.
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
    """Whether a configuration as a checkpoint holds it is `cfg`, micro-batches aside.

    Fields that came later than the checkpoint are at their defaults.
    """

    def plain(c: Config) -> Config:
        return replace(c, train=replace(c.train, micro_batch=None))

    try:
        return plain(from_dict(json.loads(text))) == plain(cfg)
    except (UserError, ValueError, TypeError, AttributeError):
        return False
