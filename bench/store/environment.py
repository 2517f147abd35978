"""What a run ran on: versions, machine and commit; never a path or a host name. Free of torch."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.paths import SOURCE_NOTE

if TYPE_CHECKING:
    import torch

_ROOT = Path(__file__).resolve().parents[2]


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """The `environment` part of a record; what cannot be found out is None.

    Args:
        device: what the run computes on. None = a GPU if torch is loaded and sees one, else the
            CPU; not known before torch is loaded.
    """
    commit, dirty = checkout(_ROOT)
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "timm": _version("timm"),
        "numpy": _version("numpy"),
        "pillow": _version("pillow"),  # decodes images, and resizes them for most extractors
        # No more than this: a kernel's own build would name one machine.
        "platform": f"{platform.system()}-{platform.machine()}",
        "cpu": cpu_model(),
        "threads": _threads(),
        "device": _device_name(device or current_device()),
        "commit": commit,
        "dirty": dirty,
    }


def current_device() -> torch.device | None:
    """Where torch computes by default: a GPU if it sees one. None = torch is not loaded."""
    loaded: Any = sys.modules.get("torch")
    if loaded is None:
        return None
    device: torch.device = loaded.device("cuda" if loaded.cuda.is_available() else "cpu")
    return device


def _version(package: str) -> str | None:
    """From the installed package's metadata, which needs no import of it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> int:
    """Threads that a computation uses: torch's own count where torch is loaded."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_name(device: torch.device | None) -> str | None:
    """`cpu`, or the accelerator's own name."""
    if device is None or device.type != "cuda":
        return device.type if device else None
    import torch

    return torch.cuda.get_device_name(device)


@cache
def cpu_model() -> str | None:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return (
        command_output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or None
    )


@cache
def checkout(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout at `root`, and whether tracked files differ from it.

    A package that is installed elsewhere may lie inside another project's checkout, whose commit
    would be a lie. A frozen copy of the source says where it came from.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        note = json.loads((root / SOURCE_NOTE).read_text(encoding="utf-8"))
        return note["commit"], note["dirty"]
    top = command_output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return None, None
    commit = command_output("git", "-C", str(root), "rev-parse", "HEAD")
    changes = command_output(
        "git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"
    )
    return commit, None if changes is None else bool(changes)


def command_output(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
