"""Benchmarks are collected with `--benchmark-only`, never by the default run."""

from __future__ import annotations

import os
from typing import Any

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.getoption("--benchmark-only", default=False) else True


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """What figures depend on, as records have it: no name of a host."""
    import torch

    from bench.store.environment import environment

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine_info.clear()
    machine_info["environment"] = environment(device)
    machine_info["load"] = os.getloadavg()[0]
