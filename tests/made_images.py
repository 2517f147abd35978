"""Images and the real side of metrics, made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.metrics.reference import Reference

CPU = torch.device("cpu")
Images = NDArray[np.uint8]


def draw(count: int, seed: int, spread: float = 1.0) -> Images:
    """Images that differ in colour and noise; `spread` 0 makes them all alike."""
    rng = np.random.default_rng(seed)
    colour = 128 + spread * 40 * rng.normal(size=(count, 3, 1, 1))
    noise = spread * 25 * rng.normal(size=(count, 3, 8, 8))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def make(data_dir: Path, images: Images | None = None, **settings: Any) -> Reference:
    real = draw(300, seed=0) if images is None else images
    return Reference(real, f"print of {real.sum()}", data_dir, CPU, **settings)
