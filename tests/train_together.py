"""Trains six steps, alone or as one of the processes that torchrun started: argv is a folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from projgan import config as c
from projgan.parallel import world
from projgan.standing_statistics import standing_statistics
from projgan.train import train

CFG = c.Config(
    data=c.Data(name="clevr", resolution=32, images=64),
    backbone=c.Backbone(zoo="lab", name="efficientnet_lite0", weights="random"),
    projection=c.Projection(channels=16),
    discriminator=c.Discriminator(base=4, width=32),
    generator=c.Generator(width=4, z_dim=16),
    train=c.Train(batch=8, total_kimg=0.048),
)

if __name__ == "__main__":
    folder, data_dir = Path(sys.argv[1]), Path(sys.argv[2])
    for snapshot in train(CFG, folder, data_dir, (8,)):
        if snapshot.final and world().is_first:  # the other goes on and does not help
            torch.save(standing_statistics(snapshot.generator).state_dict(), folder / "standing.pt")
        if snapshot.nimg == 8 and (folder / "checkpoint.pt").exists():
            shutil.copy(folder / "checkpoint.pt", folder / "first.pt")
