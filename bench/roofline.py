"""What a machine can do at most, measured: a large matrix product and a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices
_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}  # that are copied: more than any cache
_REPEATS = 3


@dataclass(frozen=True)
class Roofline:
    """Attributes:
    flops: floating-point operations a second in a float32 matrix product, as training does it.
    copy_bytes: bytes read and written a second in a copy.
    """

    flops: float
    copy_bytes: float


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@lru_cache(maxsize=4)
def roofline(device: torch.device) -> Roofline:
    """Measures once for each device of a process; the threads are those of the process."""
    kind = device.type if device.type in _SIDE else "cpu"
    a, b = (torch.randn(_SIDE[kind], _SIDE[kind], device=device) for _ in range(2))
    product = _seconds(lambda: a @ b, device)
    source = torch.zeros(_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), device)
    return Roofline(2 * _SIDE[kind] ** 3 / product, 2 * _BYTES[kind] / copy)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of some repeats after one to warm up: what the machine can do."""
    work()
    # On one thread of a CPU others cannot slow its processor time.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times = []
    for _ in range(_REPEATS):
        synchronise(device)
        started = clock()
        work()
        synchronise(device)
        times.append(clock() - started)
    return min(times)
