"""Backends, which do runs. Each takes run folders and ends in `bench.run.runner.execute`."""

from __future__ import annotations

from collections.abc import Callable

from bench.dispatch import inprocess, local

BACKENDS: dict[str, Callable[..., None]] = {
    "local": local.dispatch,
    "inprocess": inprocess.dispatch,
}
