"""Benchmarks are collected with `--benchmark-only`, never by the default run."""

from __future__ import annotations

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.getoption("--benchmark-only", default=False) else True
