"""No host synchronisation in a step: nothing is read from the device, nothing carried to it.

A step runs on torch's meta device, whose tensors have no values: whatever asks for one (`.item()`,
`if tensor:`, a boolean index) fails, and a dispatch mode sees every operator that two devices
have a part in.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_config import OTHERS
from small_config import SMALL as CFG
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from projgan.augment.ada import ada
from projgan.config import Augment, Config, Projection
from projgan.rng import Coordinates, Stream
from projgan.speed import fast
from projgan.trainer import Trainer

META = torch.device("meta")
# Two are torch's own or done once: fused Adam does not take meta tensors, and kernels are merged in
# the first step that needs them.
SWITCHES = fast.ALL - {"optimiser", "linear"}
DISTURBED = Projection(channels=16, drop_levels=0.2, drop_channels=0.2, noise=0.1)
CONFIGS = {
    "released, disturbed": replace(CFG, projection=DISTURBED),
    "classes": replace(CFG, data=replace(CFG.data, classes=3)),
    "stylegan2": OTHERS["stylegan2"],
}


class Crossings(TorchDispatchMode):
    """Operators with tensors of two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if len({x.device for x in tensors}) > 1:
            self.found.append(str(func))
        return out


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device knows none, and these configurations ask for none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def crossings(cfg: Config, switches: frozenset[str]) -> list[str]:
    """Of the first step of a run, in which lazy regularisers have their turn."""
    trainer = Trainer(cfg, META, switches=switches)
    real, index = torch.empty(8, 3, 32, 32, device=META), torch.arange(8, device=META)
    with Crossings() as seen:
        trainer.step(real, index)
        trainer.update_average(8)
    return seen.found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_neither_reads_nor_fetches(name: str) -> None:
    assert crossings(CONFIGS[name], SWITCHES) == []


def test_nor_does_a_plain_one() -> None:
    assert crossings(CFG, fast.NONE) == []


def test_adaptive_augmentation_looks_every_fourth_step_and_fetches_nothing() -> None:
    """Its probability is the host's: the one look that is part of a method."""
    trainer = Trainer(replace(CFG, augment=Augment(ada_target=0.6)), META, switches=fast.NONE)
    images, index = torch.empty(8, 3, 32, 32, device=META), torch.arange(8, device=META)
    with Crossings() as seen:
        ada(images, 0.5, Coordinates(0, Stream.AUGMENT_REAL, index))
        for number in range(4):
            trainer.adaptive.observe([images])
            with pytest.raises(RuntimeError) if number == 3 else contextlib.nullcontext():
                trainer.adaptive.update(number, 8, trainer.world)
    assert seen.found == []
