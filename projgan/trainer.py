"""The training step: a step of the discriminators, a step of the generator, the moving average."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from projgan import config
from projgan.augment.ada import Adaptive
from projgan.augment.diffaug import augment, blur
from projgan.augment.features import augment_features, level_weights
from projgan.classes import labels_for
from projgan.config import AVERAGES, Config
from projgan.discriminators.baselines import FastGANHeads
from projgan.discriminators.projected import build_discriminator
from projgan.ema import ema_beta, ema_update
from projgan.errors import ConfigError
from projgan.generators import build_generator
from projgan.layers import seeded
from projgan.losses import discriminator_loss, generator_loss, gradient_penalty
from projgan.parallel import World, group_batch_norm
from projgan.penalties import PathLength, due
from projgan.rng import Coordinates, Stream
from projgan.speed import fast
from projgan.speed.compiled import NOT_COMPILED, Compiling
from projgan.speed.step_times import StepTimer


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
