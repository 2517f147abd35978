"""Batches: the same whether they are read ahead or not, and no trace left of who read them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from projgan.data.dataset import sample_order
from projgan.data.loading import Loader, ahead_for, as_floats

CPU = torch.device("cpu")
IMAGES = np.arange(12 * 3 * 4 * 4, dtype=np.uint8).reshape(12, 3, 4, 4)
CHOSEN = np.array([7, 1, 11, 4, 2, 9, 0])
LABELS = np.arange(7) % 3
LOADER = Loader(IMAGES, CHOSEN, LABELS, 5, 4, slice(0, 4), CPU, 0)


def threads() -> int:
    return sum(thread.name.startswith("loader") for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_images_and_classes_follow_from_seed_and_number_alone(ahead: int) -> None:
    """Through several epochs, from anywhere, for each process its share."""
    for start, mine in ((0, slice(0, 4)), (8, slice(2, 4))):
        loader = replace(LOADER, mine=mine, ahead=ahead)
        found = list(loader.batches(start, 40))
        assert len(found) == (40 - start) // 4
        for at, (pixels, labels) in zip(range(start, 40, 4), found, strict=True):
            order = sample_order(5, at, 4, 7)[mine]
            assert pixels.dtype == torch.uint8 and labels is not None
            assert np.array_equal(pixels.numpy(), IMAGES[CHOSEN[order]])
            assert np.array_equal(labels.numpy(), LABELS[order])
    assert all(labels is None for _, labels in replace(LOADER, labels=None).batches(0, 8))


def test_a_memory_map_is_read_and_not_kept_open_for_writing(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    ((pixels, _),) = replace(LOADER, images=mapped, ahead=2).batches(0, 4)
    pixels[:] = 0  # a batch is the step's own
    assert np.array_equal(np.load(tmp_path / "images.npy"), IMAGES)


@dataclass(frozen=True)
class Watched(Loader):
    """Notes which batches were read; reading some of them fails."""

    seen: list[int] = field(default_factory=list)
    bad: int | None = None

    def read(self, at: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        if at == self.bad:
            raise OSError(f"images at {at} cannot be read")
        self.seen.append(at)
        return super().read(at)


def watched(ahead: int, bad: int | None = None) -> Watched:
    return Watched(IMAGES, CHOSEN, LABELS, 5, 4, slice(0, 4), CPU, ahead, bad=bad)


def test_so_many_are_read_before_they_are_asked_for_and_no_more() -> None:
    loader = watched(ahead=3)
    with closing(loader.batches(0, 1000)) as batches:
        assert loader.seen == []  # nor does a thread begin before the first is asked for
        next(batches)
        until = time.monotonic() + 20
        while len(loader.seen) < 4 and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        assert sorted(loader.seen) == [0, 4, 8, 12]
        next(batches)
    assert max(loader.seen) <= 16


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_fails_behind_is_raised_in_front_in_its_turn(ahead: int) -> None:
    batches = watched(ahead, bad=12).batches(0, 1000)
    for _ in range(3):
        next(batches)
    with pytest.raises(OSError, match="images at 12 cannot be read"):
        next(batches)
    assert threads() == 0


def test_threads_end_with_the_run() -> None:
    batches = replace(LOADER, ahead=2).batches(0, 1000)
    assert threads() == 0
    next(batches)
    assert threads() > 0
    batches.close()  # type: ignore[attr-defined]
    assert threads() == 0
    with pytest.raises(KeyboardInterrupt), closing(replace(LOADER, ahead=2).batches(0, 1000)) as b:
        next(b)
        raise KeyboardInterrupt
    assert threads() == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_midst_reads_for_itself() -> None:
    with closing(replace(LOADER, ahead=3).batches(0, 1000)) as batches:
        next(batches)
        if (child := os.fork()) == 0:
            code = 1
            try:
                own = list(replace(LOADER, ahead=3).batches(0, 40))
                code = 0 if len(own) == 10 and threads() == 0 else 2
            finally:
                os._exit(code)
        until = time.monotonic() + 30
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
            time.sleep(0.01)
        assert done == (child, 0)
        pixels, _ = next(batches)
    assert np.array_equal(pixels.numpy(), IMAGES[CHOSEN[sample_order(5, 4, 4, 7)]])


def test_only_a_gpu_is_read_ahead_for() -> None:
    assert ahead_for(CPU) == 0 and ahead_for(torch.device("cuda")) > 1
    assert as_floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


@pytest.mark.gpu
def test_pinned_batches_arrive_as_they_are() -> None:
    """Many small copies behind a busy device: none sees the memory of another batch."""
    device = torch.device("cuda")
    busy = torch.randn(4096, 4096, device=device)
    found = []
    for pixels, _ in replace(LOADER, device=device, ahead=3).batches(0, 400):
        busy = busy @ busy * 1e-3
        found.append(pixels)
    for (wanted, _), pixels in zip(LOADER.batches(0, 400), found, strict=True):
        assert torch.equal(wanted, pixels.cpu())
