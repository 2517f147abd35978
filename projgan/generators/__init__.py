"""Generators: one call shape, `(z, noise) -> images`, and a table to add to."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from projgan.config import Config
from projgan.errors import ConfigError, unknown
from projgan.generators.fastgan import fastgan, fastgan_lite
from projgan.generators.stylegan2 import stylegan2
from projgan.parallel import group_batch_norm

GENERATORS: dict[str, Callable[[Config], nn.Module]] = {
    "fastgan": fastgan,
    "fastgan_lite": fastgan_lite,
    "stylegan2": stylegan2,
}


def build_generator(cfg: Config) -> nn.Module:
    """The configured generator: `forward(z [N, z_dim], noise: Coordinates) -> [N, 3, R, R]`."""
    if cfg.generator.name not in GENERATORS:
        raise ConfigError(unknown("generator", cfg.generator.name, GENERATORS))
    generator = GENERATORS[cfg.generator.name](cfg)
    group_batch_norm(generator, cfg.train.norm_group)
    return generator
