"""Measuring what a run costs. Free of torch unless the run is on a GPU."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.environment import current_device
from projgan.config import Config

if TYPE_CHECKING:
    import torch

    from projgan.train import Snapshot

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the high-water mark back to what is resident now
_MB = 1e6


class PeakMemory:
    """The most memory held since this object was made, or since its `with` block was entered.

    On a GPU that is what torch allocated there; on a CPU the resident set of the whole process,
    interpreter and libraries included. Where the system cannot set its high-water mark back
    (outside Linux, say), the CPU's number is the peak since the process began, and `scope` says so.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """
        Args:
            device: what the run computes on. None = a GPU if torch is loaded and sees one.
        """
        device = device or current_device()
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._scope = "run"
        self._reset()

    def __enter__(self) -> Self:
        self._reset()
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held open: reading stays possible."""

    def _reset(self) -> None:
        if self._cuda is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            self._scope = "run" if _reset_peak() else "process"

    def read(self) -> dict[str, Any]:
        """The `memory` part of a record.

        Returns:
            peak_mb: in 10^6 bytes; kind: "cuda" or "rss"; scope: "run" or "process".
        """
        if self._cuda is not None:
            import torch

            peak = torch.cuda.max_memory_allocated(self._cuda)
            return {"peak_mb": peak / _MB, "kind": "cuda", "scope": "run"}
        peak = _peak_since_reset() if self._scope == "run" else _peak_of_process()
        return {"peak_mb": peak / _MB, "kind": "rss", "scope": self._scope}


def throughput(snapshot: Snapshot, config: Config) -> dict[str, Any]:
    """The `throughput` part of a record.

    Returns:
        images_per_s: of steady training steps; warmup_seconds: of the first ones;
        gflop_per_image: of a training step, by torch's counter; and beside them what this machine
        does at most, measured in the same process: peak_gflops (a float32 matrix product),
        copy_gb_per_s, and the `peak_share` (%) that training reaches.
    """
    from bench.roofline import roofline
    from projgan.parallel import world

    speed = snapshot.images_per_s
    assert speed is not None
    limit, work = roofline(snapshot.device), flops_per_image(config)
    return {
        "images_per_s": speed,
        "warmup_seconds": snapshot.warmup_seconds,
        "gflop_per_image": work / 1e9,
        "peak_gflops": limit.flops / 1e9,
        "copy_gb_per_s": limit.copy_bytes / 1e9,
        "peak_share": 100 * work * speed / world().size / limit.flops,
    }


@lru_cache(maxsize=4)
def flops_per_image(config: Config) -> float:
    """Floating-point operations of a plain training step, for each image of its batch.

    Counted on a step of two images with networks of their own, on the CPU: the counter takes
    operators apart, which changes their rounding, so a run's own steps are left alone. It is the
    plain path's count whatever the run does, so that doing less for the same shows as speed.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from projgan import fast
    from projgan.train import Trainer

    backbone = replace(config.backbone, weights="random")
    train = replace(config.train, batch=2, micro_batch=None, compile=False, precision="fp32")
    small = replace(config, backbone=backbone, train=train)
    trainer = Trainer(small, torch.device("cpu"), switches=fast.NONE)
    trainer.number = 1  # a step on which no lazy regulariser has its turn
    side = config.data.resolution
    with FlopCounterMode(display=False) as counter:
        trainer.step(torch.zeros(2, 3, side, side), torch.arange(2))
    return counter.get_total_flops() / 2


def _reset_peak() -> bool:
    """Sets the process's high-water mark back; False where that cannot be done."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
        _peak_since_reset()
    except (OSError, ValueError):
        return False
    return True


def _peak_since_reset() -> int:
    """The high-water mark of resident memory, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{_STATUS} has no VmHWM")


def _peak_of_process() -> int:
    """The same since the process began, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
