"""Speed of a run's training, beside what its machine does at most: a matrix product, a copy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from projgan.config import Config
from projgan.parallel import world
from projgan.speed import fast
from projgan.train import Snapshot
from projgan.trainer import Trainer

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices
_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}  # that are copied: more than any cache
_REPEATS = 3

log = logging.getLogger(__name__)


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


def throughput(snapshot: Snapshot, config: Config) -> dict[str, Any]:
    """The `throughput` part of a record.

    Returns:
        images_per_s: of steady training steps; warmup_seconds: of the first ones;
        gflop_per_image: of a training step, by torch's counter; and beside them what this machine
        does at most, measured in the same process: peak_gflops (a float32 matrix product),
        copy_gb_per_s, and the `peak_share` (%) that training reaches. Work that cannot be counted
        is left out, and its share.
    """
    speed = snapshot.images_per_s
    assert speed is not None
    limit = roofline(snapshot.device)
    found = {
        "images_per_s": speed,
        "warmup_seconds": snapshot.warmup_seconds,
        "peak_gflops": limit.flops / 1e9,
        "copy_gb_per_s": limit.copy_bytes / 1e9,
    }
    try:
        work = flops_per_image(config)
    except Exception as error:  # torch's counter reaches into every operator: no run may fail by it
        log.warning("Operations are not counted: %s: %s", type(error).__name__, error)
        return found
    share = 100 * work * speed / world().size / limit.flops
    return found | {"gflop_per_image": work / 1e9, "peak_share": share}


@lru_cache(maxsize=4)
def flops_per_image(config: Config) -> float:
    """Floating-point operations of a plain training step, for each image of its batch.

    Counted on a step of two images with networks of their own, on the CPU: the counter takes
    operators apart, which changes their rounding, so a run's own steps are left alone. It is the
    plain path's count whatever the run does, so that doing less for the same shows as speed.
    """
    backbone = replace(config.backbone, weights="random")
    plainly = {"compile": False, "cuda_graphs": False, "precision": "fp32"}
    whole = {"batch": 2, "micro_batch": None, "norm_group": None}
    train = replace(config.train, **whole, **plainly)  # type: ignore[arg-type]
    small = replace(config, backbone=backbone, train=train)
    trainer = Trainer(small, torch.device("cpu"), switches=fast.NONE)
    trainer.number = 1  # a step on which no lazy regulariser has its turn
    side = config.data.resolution
    with FlopCounterMode(display=False) as counter:
        trainer.step(torch.zeros(2, 3, side, side), torch.arange(2))
    return counter.get_total_flops() / 2


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
