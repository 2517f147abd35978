"""What every test and the processes that it starts find around them."""

from __future__ import annotations

import os
import signal

import pytest

# Their networks are tiny, and threads that wait for each other on a busy machine take many times
# as long as one alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in the background deaf to Ctrl-C, and a process that it starts inherits
# that; the tests that send the signal want it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process more than there are cores, as drills on a cluster and in a browser mostly wait.

    Benchmarks have the machine for themselves; one file would keep one process busy only.
    """
    one_file = len(config.args) == 1 and ".py" in config.args[0]
    alone = one_file or config.getoption("--benchmark-only", default=False)
    return 0 if alone else len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drills on a cluster, which wait for most of their time, come first and beside others."""
    items.sort(key=lambda item: "slurm" not in item.keywords)
    of_a_gpu = [item for item in items if "gpu" in item.keywords]
    if of_a_gpu:
        import torch

        for item in of_a_gpu if not torch.cuda.is_available() else ():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
