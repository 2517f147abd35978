"""evaluate(): generated images -> metrics, in one pass over the images.

Every extractor that some metric needs sees each image once; all metrics share what it saw.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from bench.metrics.extractors import BATCH, EXTRACTORS, Images
from bench.metrics.kernel import features_to_kernel
from bench.metrics.reference import Collector, Reference
from bench.metrics.statistics import Features, statistics_to_frechet
from bench.metrics.table import METRICS, metric_keys
from projgan.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_KID_SEED = 0


def _frechet(real: Features, fake: Features) -> float:
    return statistics_to_frechet(real.statistics, fake.statistics)


def _kernel(real: Features, fake: Features) -> float:
    # As many of each side: more of one would cost much and tell little.
    count = min(len(real.kept), len(fake.kept))
    return 1000.0 * features_to_kernel(real.kept[:count], fake.kept[:count], seed=_KID_SEED).mean


# How the two sides become a number, in the unit that the table of metrics gives.
COMPUTE: dict[str, Callable[[Features, Features], float]] = {
    "frechet": _frechet,
    "kernel": _kernel,
}


class Scores(dict[str, float]):
    """Values by metric key; `missing` tells why a metric that was asked for has none."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: dict[str, str] = {}
        self.fake = 0  # generated images that were measured
        self.real = 0  # real images that they were measured against


def evaluate(
    batches: Iterable[Images | Tensor], reference: Reference, metrics: Iterable[str]
) -> Scores:
    """Measures generated images against a reference.

    Args:
        batches: generated images, [B, 3, R, R] uint8 of any B; consumed once.
        reference: the real side.
        metrics: names as a grid file gives them, or keys of METRICS.

    Returns:
        A value per metric, in the unit of its header. A metric that cannot be computed for this
        run (its own features where it has no backbone, a result that is not finite, scipy not
        installed) is absent and named in `.missing`.

    Raises:
        UserError: an unknown metric, missing weights, fewer than two images.
    """
    scores = Scores()
    wanted = [METRICS[key] for key in metric_keys(metrics)]
    if not reference.has_own:
        reason = "this run has no feature network of its own"
        scores.missing = {m.key: reason for m in wanted if m.extractor == "own"}
        wanted = [m for m in wanted if m.extractor != "own"]
    names = list(dict.fromkeys(m.extractor for m in wanted))
    real = {name: reference.real(name) for name in names}

    collectors = {name: Collector() for name in names}
    for images in rebatch(batches):
        number = scores.fake + np.arange(len(images))
        for name, collector in collectors.items():
            outputs = reference.extractor(name)(images)
            collector.add(outputs, number < EXTRACTORS[name].keeps)
        scores.fake += len(images)
    scores.real = reference.count
    if scores.fake < 2:
        raise UserError(f"{scores.fake} generated images cannot be measured: eval.fake needs 2")
    fake = {name: collector.features() for name, collector in collectors.items()}

    for m in wanted:
        try:
            value = COMPUTE[m.compute](real[m.extractor][m.output], fake[m.extractor][m.output])
        except ValueError as error:
            scores.missing[m.key] = str(error)
            continue
        except ModuleNotFoundError as error:  # the others can still be measured
            package = (error.name or "a package").partition(".")[0]
            scores.missing[m.key] = f"{package} is not installed"
            continue
        if math.isfinite(value):
            scores[m.key] = value
        else:
            scores.missing[m.key] = f"came out as {value}"
    return scores


def rebatch(batches: Iterable[Images | Tensor], size: int = BATCH) -> Iterator[Images]:
    """The same images in batches of `size` (the last may be smaller), as numpy arrays."""
    held: list[Images] = []
    count = 0
    for batch in batches:
        images = batch if isinstance(batch, np.ndarray) else batch.cpu().numpy()
        while len(images):
            part = images[: size - count]
            images = images[len(part) :]
            held.append(part)
            count += len(part)
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)
