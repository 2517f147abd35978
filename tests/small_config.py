"""The smallest configurations that train every part, for the tests of training."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from torch import nn

from projgan.config import Backbone, Config, Data, Discriminator, Generator, Projection, Train

SMALL = Config(
    data=Data(name="clevr", resolution=32, images=64),
    backbone=Backbone(zoo="lab", name="efficientnet_lite0", weights="random"),
    projection=Projection(channels=16),
    discriminator=Discriminator(base=4, width=32),
    generator=Generator(width=4, z_dim=16, preset="released"),
    train=Train(batch=8),
)
OTHERS = {
    "alternating blocks": replace(SMALL, generator=Generator(width=4, z_dim=16)),
    "csm of the author": replace(SMALL, projection=Projection(channels=16, csm="author")),
    "released csm": replace(
        SMALL, projection=Projection(channels=16, csm="released", init="torch")
    ),
    "ccm": replace(SMALL, projection=Projection(channels=16, kind="ccm")),
    "perceptual": replace(SMALL, discriminator=Discriminator(kind="perceptual", base=4, width=32)),
    "separable": replace(SMALL, discriminator=Discriminator(separable=True, base=4, width=32)),
    "rgb": replace(SMALL, discriminator=Discriminator(kind="rgb", base=4, width=32, r1=1)),
    "fastgan": replace(SMALL, discriminator=Discriminator(kind="fastgan", width=32, r1=1)),
    "stylegan2": replace(
        SMALL,
        discriminator=Discriminator(kind="stylegan2", width=64, r1=1),
        generator=Generator(name="stylegan2", width=4, z_dim=16, w_dim=16, path_length=1.0),
    ),
}


def fingerprint(module: nn.Module) -> str:
    """A hash of a network's whole state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
