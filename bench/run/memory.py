"""The memory that a run needs. Free of torch unless the run is on a GPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store.environment import current_device

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the high-water mark back to what is resident now
_MB = 1e6


class PeakMemory:
    """The most memory held since this object was made.

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
