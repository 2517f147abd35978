"""Speed of the metrics: the feature pass beside its bare network, and KID beside clean-fid's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.metrics.extractors import EXTRACTORS, Source
from bench.metrics.kernel import features_to_kernel
from bench.metrics.reference import Collector
from bench.roofline import synchronise
from projgan.backbones.extractor import build_lab_extractor

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCHES = 4


def test_feature_pass(benchmark: BenchmarkFixture) -> None:
    """uint8 images to collected statistics; how much of that is the network alone."""
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    extractor = EXTRACTORS["lab"].load(Source(32, DEVICE, Path("weights")))
    network = build_lab_extractor().to(DEVICE)
    batch = torch.from_numpy(images).to(DEVICE).float() / 127.5 - 1
    shares = []

    def bare() -> None:
        with torch.no_grad():
            for _ in range(BATCHES):
                network(batch)

    def whole() -> None:
        collector = Collector(set())
        for _ in range(BATCHES):
            collector.add(extractor(images), np.zeros(64, bool))

    def both() -> None:
        seconds = [_seconds(bare), _seconds(whole)]
        shares.append(seconds[0] / seconds[1])

    for _ in range(5):
        both()
    benchmark.pedantic(whole, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images"] = 64 * BATCHES
    benchmark.extra_info["share_of_the_bare_network"] = float(np.median(shares))


def test_kid(benchmark: BenchmarkFixture) -> None:
    """With its interval, at 2048 dimensions; clean-fid's gives none."""
    from cleanfid.fid import kernel_distance

    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(2000, 2048)).astype(np.float32) for _ in range(2))
    np.random.seed(0)  # noqa: NPY002 - clean-fid draws from the global state
    theirs = _seconds(lambda: kernel_distance(real, fake))
    benchmark.pedantic(lambda: features_to_kernel(real, fake, seed=0), rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        times = theirs / benchmark.stats.stats.median
        benchmark.extra_info["times_as_fast_as_clean_fid"] = times


@pytest.mark.parametrize("dimensions", [192, 2048])
def test_statistics(benchmark: BenchmarkFixture, dimensions: int) -> None:
    """Mean and covariance in float64 of features that come in batches."""
    features = np.random.default_rng(0).normal(size=(64, dimensions)).astype(np.float32)

    def whole() -> None:
        collector = Collector(set())
        for _ in range(8):
            collector.add({"": features}, np.zeros(64, bool))

    benchmark.pedantic(whole, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images"] = 64 * 8


def _seconds(work: Callable[[], object]) -> float:
    synchronise(DEVICE)
    started = time.perf_counter()
    work()
    synchronise(DEVICE)
    return time.perf_counter() - started
