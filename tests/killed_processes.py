"""Processes that do one piece of work together, some of which kill themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def together(processes: int, work: Callable[[int], None]) -> int:
    """Keeps so many at work, and replaces each that was killed, until all have ended.

    Prints how many were started and how many of them were killed.

    Args:
        processes: at work at a time.
        work: is given the number of its process, from 1.

    Returns:
        An exit status: 1 as soon as one ended in any other way.
    """
    started, killed, living = 0, 0, set[int]()
    while started == 0 or living:
        while len(living) < processes and started < processes + killed:
            started += 1
            if (child := os.fork()) == 0:
                code = 1
                try:
                    work(started)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            living.add(child)
        child, status = os.wait()
        living.discard(child)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL):
            return 1
        killed += code != 0
    print(started, killed)
    return 0


def forge_claim(path: Path, **changes: object) -> None:
    """A claim of another process."""
    content = {"token": "x", "host": socket.gethostname(), "pid": os.getpid(), "birth": "0",
               "time": time.time(), "nimg": 7}  # fmt: skip
    path.write_text(json.dumps(content | changes))
