"""The smallest configuration that trains every part, for the tests of training."""

from __future__ import annotations

from projgan.config import Backbone, Config, Data, Discriminator, Generator, Projection, Train

SMALL = Config(
    data=Data(name="clevr", resolution=32, images=64),
    backbone=Backbone(zoo="lab", name="efficientnet_lite0", weights="random"),
    projection=Projection(channels=16),
    discriminator=Discriminator(base=4, width=32),
    generator=Generator(width=4, z_dim=16, preset="released"),
    train=Train(batch=8),
)
