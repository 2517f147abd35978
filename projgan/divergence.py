"""Losses that are no numbers: found at their step, and the evidence kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projgan.checkpoint import save_checkpoint
from projgan.errors import UserError
from projgan.files import write_json_atomic

log = logging.getLogger(__name__)


class TrainingDiverged(UserError):
    """A loss or a weight became infinite or not a number.

    Attributes:
        nimg: images shown when it did, the batch at fault included.
        losses: (images, loss of D, loss of G) of the steps that led there.
    """

    def __init__(self, what: str, nimg: int, losses: Sequence[tuple[int, float, float]] = ()):
        super().__init__(
            f"{what} after {nimg} images: the run diverged; try lower optim.lr_g and optim.lr_d"
        )
        self.nimg = nimg
        self.losses = list(losses)


class LossWatch:
    """Collects losses on the device and looks at them now and then, so that no step waits."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Tensor]] = []

    def add(self, nimg: int, losses: tuple[Tensor, Tensor]) -> None:
        """The losses of D and G of the step that ended after `nimg` images."""
        self.waiting.append((nimg, torch.stack(losses).float()))

    def check(self) -> None:
        """Looks at all that came since the last time.

        Raises:
            TrainingDiverged: names the first loss that is no number, and its step.
        """
        if not self.waiting:
            return
        values = torch.stack([pair for _, pair in self.waiting]).tolist()
        history = [(n, d, g) for (n, _), (d, g) in zip(self.waiting, values, strict=True)]
        self.waiting.clear()
        for i, (nimg, *pair) in enumerate(history):
            for name, loss in zip(("discriminator", "generator"), pair, strict=True):
                if not math.isfinite(loss):
                    raise TrainingDiverged(f"The {name}'s loss is {loss}", nimg, history[: i + 1])


def check_weights(modules: Iterable[nn.Module], nimg: int) -> None:
    """Refuses a state that must not become a checkpoint: one whose weights are no numbers."""
    finite = [torch.isfinite(p).all() for module in modules for p in module.parameters()]
    if finite and not bool(torch.stack(finite).all()):
        raise TrainingDiverged("A weight is not finite", nimg)


def keep_evidence(
    folder: Path, error: TrainingDiverged, batch: Sequence[int], state: dict[str, Any]
) -> None:
    """Writes what is known of a divergence.

    Args:
        folder: gets diverged.json and state.pt.
        batch: which images of the data set the discriminator was shown in the step at fault.
        state: of networks and optimisers, as found. The last good one is the run's checkpoint;
            going on from it leads to the same step again.
    """
    losses = [
        {"nimg": nimg, "discriminator": repr(d), "generator": repr(g)}
        for nimg, d, g in error.losses
    ]
    evidence = {"error": str(error), "nimg": error.nimg, "images": list(batch), "losses": losses}
    write_json_atomic(folder / "diverged.json", evidence)
    save_checkpoint(folder / "state.pt", state)
    log.error("%s (evidence in %s)", error, folder)
