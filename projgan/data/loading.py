"""Batches of training images: from the memory map by index, on a GPU ahead of the step.

Which images a batch holds follows from the run's seed and the number of images shown, so neither
reading ahead nor resuming changes it. For a GPU, threads gather the next batches into pinned memory
while a step runs, and the copy to the device waits for nothing. On a CPU a batch is read when it is
asked for: the step has the cores, and reading is less than a hundredth of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from projgan.data.dataset import sample_order

AHEAD = 4  # batches that are read or being read while a step runs on a GPU
THREADS = 4  # that read them

Batch = tuple[Tensor, Tensor | None]  # pixels [n, 3, R, R] uint8, classes [n] int64


@dataclass(frozen=True)
class Loader:
    """Reads a run's batches.

    Attributes:
        images: [N, 3, R, R] uint8, all there are.
        chosen: which of them are trained on.
        labels: [len(chosen)] their classes. None = they have none.
        seed: of the run.
        batch: images in a batch.
        mine: this process's share of a batch.
        device: what they are read for.
        ahead: batches to read before they are asked for; 0 = none, without threads.
    """

    images: np.ndarray
    chosen: np.ndarray
    labels: np.ndarray | None
    seed: int
    batch: int
    mine: slice
    device: torch.device
    ahead: int

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches that begin at `start`, `start` + batch, ... images, below `stop`.

        Threads begin with the first batch and end when this is closed; what fails in one is raised
        here, as it is.

        Yields:
            Each on the device.
        """
        starts = iter(range(start, stop, self.batch))
        if not self.ahead:
            yield from (self.send(*self.read(at)) for at in starts)
            return
        threads = ThreadPoolExecutor(THREADS, "loader")
        try:
            waiting = deque(threads.submit(self.read, at) for at in islice(starts, self.ahead))
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(threads.submit(self.read, at) for at in islice(starts, 1))
                yield self.send(*found)
        finally:
            threads.shutdown(cancel_futures=True)

    def read(self, at: int) -> Batch:
        """The batch that begins at `at` images, in memory that a GPU can fetch from."""
        order = sample_order(self.seed, at, self.batch, len(self.chosen))[self.mine]
        shape = (len(order), *self.images.shape[1:])
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        # "clip" because NumPy would go through a buffer of its own to raise; no index is too large.
        np.take(self.images, self.chosen[order], axis=0, out=pixels.numpy(), mode="clip")
        return pixels, None if self.labels is None else torch.from_numpy(self.labels[order])

    def send(self, pixels: Tensor, labels: Tensor | None) -> Batch:
        """To the device. Pinned memory is kept by torch until the copy is done."""
        if labels is not None:
            labels = labels.pin_memory() if pixels.is_pinned() else labels
            labels = labels.to(self.device, non_blocking=True)
        return pixels.to(self.device, non_blocking=True), labels


def ahead_for(device: torch.device) -> int:
    """Return the number of batches that are read ahead for a device."""
    return AHEAD if device.type == "cuda" else 0


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1
