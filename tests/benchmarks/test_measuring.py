"""Speed of the metrics: the feature pass beside its bare network, and KID beside clean-fid's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.metrics.extractors import (
    BATCH,
    EXTRACTORS,
    Extractor,
    Source,
    _pooled_levels,
    signed,
)
from bench.metrics.kernel import features_to_kernel
from bench.metrics.reference import Collector
from bench.run.throughput import synchronise
from projgan.backbones import build_backbone
from projgan.backbones.extractor import build_lab_extractor
from projgan.config import Backbone

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Known(nn.Module):
    """Stands in for a network, at once giving what it gave."""

    def __init__(self, output: Tensor | list[Tensor]) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Tensor | list[Tensor]:
        return self.output


@pytest.mark.parametrize(("name", "side"), [("lab", 32), ("levels", 256)])
def test_feature_pass(benchmark: BenchmarkFixture, name: str, side: int) -> None:
    """uint8 images to collected statistics, beside the network alone.

    Both take turns; what the pass adds is timed without the network too. On a CPU the processor's
    time counts, which others do not add to.
    """
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 3, side, side), dtype=np.uint8)
    levels = Backbone(name="efficientnet_lite0", weights="random")
    source = Source(side, DEVICE, Path("weights"), levels)
    extractor = EXTRACTORS[name].load(source)
    network = build_lab_extractor() if name == "lab" else build_backbone(levels, side)
    network.eval().requires_grad_(False).to(DEVICE)
    shown = torch.from_numpy(images).to(DEVICE)
    batch = shown.float() / 127.5 - 1
    known = Known(network(batch))
    hollow = (
        Extractor("", DEVICE, lambda x: {"": known(signed(x))})
        if name == "lab"
        else _pooled_levels(known, source)
    )
    collectors = {id(each): Collector() for each in (extractor, hollow)}

    def bare() -> None:
        with torch.no_grad():
            network(batch)

    def whole(extractor: Extractor = extractor) -> None:
        collectors[id(extractor)].add(extractor.on_device(shown))

    benchmark.pedantic(whole, rounds=2, warmup_rounds=1)
    turns = [(_seconds(bare), _seconds(whole)) for _ in range(7)]
    around = [_seconds(lambda: whole(hollow)) for _ in range(21)]
    alone = float(np.median([seconds for seconds, _ in turns]))
    ratios = [one / two for one, two in turns]
    benchmark.extra_info["images"] = BATCH
    benchmark.extra_info["speed_over_the_bare_network"] = float(np.median(ratios))
    benchmark.extra_info["of_single_rounds"] = [min(ratios), max(ratios)]
    benchmark.extra_info["added_share"] = float(np.median(around)) / alone


def test_kid(benchmark: BenchmarkFixture) -> None:
    """With its interval, at 2048 dimensions; clean-fid's gives none."""
    from cleanfid.fid import kernel_distance

    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(2000, 2048)).astype(np.float32) for _ in range(2))
    np.random.seed(0)  # noqa: NPY002 - clean-fid draws from the global state
    theirs = _seconds(lambda: kernel_distance(real, fake))
    benchmark.pedantic(lambda: features_to_kernel(real, fake), rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        times = theirs / benchmark.stats.stats.median
        benchmark.extra_info["times_as_fast_as_clean_fid"] = times


@pytest.mark.parametrize("dimensions", [192, 2048])
def test_statistics(benchmark: BenchmarkFixture, dimensions: int) -> None:
    """Mean and covariance in float64 of features that come in batches."""
    features = torch.randn(BATCH, dimensions, device=DEVICE)

    def whole() -> None:
        collector = Collector()
        for _ in range(8):
            collector.add({"": features})

    benchmark.pedantic(whole, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images"] = BATCH * 8


def _seconds(work: Callable[[], object]) -> float:
    clock = time.process_time if DEVICE.type == "cpu" else time.perf_counter
    synchronise(DEVICE)
    started = clock()
    work()
    synchronise(DEVICE)
    return clock() - started
