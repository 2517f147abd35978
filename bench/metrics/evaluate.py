"""evaluate(): generated images -> metrics, in one pass over the images.

Every extractor that some metric needs sees each image once; all metrics share what it saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.config.extractors import TRAINING, TRAINING_ONLY, function
from bench.config.metrics import EACH, METRICS, Metric, metric_keys
from bench.metrics.extractors import BATCH, EXTRACTORS, Images, stacked
from bench.metrics.order import ContentOrder
from bench.metrics.reference import Collector, Reference
from bench.metrics.statistics import Estimate, Features, Parts
from projgan.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Batches = Iterable["Images | Sequence[Images] | Tensor"]
# What `Metric.compute` names: features of both sides, and whether the numbers are to be published
# (a second route, intervals that take longer) -> numbers, in the unit of the table of metrics.
Compute = Callable[[Features, Features, bool], Parts]


class Scores(dict[str, float]):
    """Values by metric key; `missing` tells why a metric that was asked for has none."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: dict[str, str] = {}
        self.intervals: dict[str, tuple[float, float]] = {}  # 95 %, of the metrics that have one
        self.certificates: dict[str, float] = {}  # relative gaps to a second route
        self.used: dict[str, int] = {}  # images of each side, of the metrics that compare as many
        self.extractors: dict[str, str] = {}  # identities of the networks that looked
        self.fake = 0  # generated images that were measured
        self.real = 0  # real images that they were measured against

    def add(self, key: str, found: Estimate) -> None:
        """Takes a metric's number; one that is not finite is missing."""
        if not math.isfinite(found.value):
            self.missing[key] = f"came out as {found.value}"
            return
        self[key] = found.value
        if found.interval is not None:
            self.intervals[key] = found.interval
        if found.used is not None:
            self.used[key] = found.used
        if found.gap is not None:
            self.certificates[key] = found.gap


def evaluate(
    batches: Batches, reference: Reference, metrics: Iterable[str], *, certified: bool = False
) -> Scores:
    """Measures generated images against a reference.

    Args:
        batches: generated images, [B, 3, R, R] uint8 of any B, or lists of [3, H, W] of any sizes;
            consumed once.
        reference: the real side.
        metrics: names as a grid file gives them, or keys of METRICS.
        certified: the numbers are to be published: Fréchet distances are computed by a second,
            independent route and get an interval. It takes the features of all generated images
            into memory (4 N D bytes) and twenty distances more: a tenth of a second for 2000
            images in 192 dimensions, half a minute at 2048 dimensions.

    Returns:
        A value per metric, in the unit of its header. A metric that cannot be computed for this
        run (its own features where it has no backbone, a result that is not finite, scipy not
        installed, two routes that do not agree) is absent and named in `.missing`.

    Raises:
        UserError: an unknown metric, missing weights, fewer than two images.
    """
    scores = Scores()
    wanted = _measurable(metrics, reference, scores)
    names = list(dict.fromkeys(m.extractor for m in wanted))
    real = {name: reference.real(name) for name in names}
    scores.extractors = {name: reference.extractor(name).identity for name in names}
    scores.real = reference.count
    collectors = _collectors(wanted, certified)
    _show(batches, reference, collectors, scores)
    if scores.fake < 2:
        raise UserError(f"{scores.fake} generated images cannot be measured: eval.fake needs 2")

    fake = {name: collector.features() for name, collector in collectors.items()}

    done: dict[tuple[object, ...], Parts | str] = {}  # numbers, or why there are none
    for m in wanted:
        work = (m.extractor, m.output, m.compute)
        if work not in done:
            done[work] = _compute(m, real[m.extractor], fake[m.extractor], certified)
        found = done[work]
        if isinstance(found, str):
            scores.missing[m.key] = found
        else:
            scores.add(m.key, found[m.part])
    return scores


def _measurable(metrics: Iterable[str], reference: Reference, scores: Scores) -> list[Metric]:
    """The metrics that images alone can give; why others are missing is noted in `scores`."""
    wanted = []
    for m in (METRICS[key] for key in metric_keys(metrics)):
        if m.extractor == TRAINING:
            scores.missing[m.key] = TRAINING_ONLY
        elif m.extractor == "own" and not reference.has_own:
            scores.missing[m.key] = "this run has no feature network of its own"
        else:
            wanted.append(m)
    return wanted


def _collectors(wanted: Iterable[Metric], certified: bool) -> dict[str, Collector]:
    """Return what gathers the features of generated images, by extractor."""
    when = ("always", "certified") if certified else ("always",)
    whole: dict[str, set[str]] = {}  # outputs whose features are held of every generated image
    for m in wanted:
        outputs = whole.setdefault(m.extractor, {*EXTRACTORS[m.extractor].generated})
        if m.compute.needs_all in when:
            outputs.add(m.output)
    return {name: Collector(EXTRACTORS[name].keeps, held) for name, held in whole.items()}


def _show(
    batches: Batches, reference: Reference, collectors: Mapping[str, Collector], scores: Scores
) -> None:
    """Shows every generated image to every extractor, and counts them."""
    ordered = any(collector.holds for collector in collectors.values())
    order = ContentOrder()
    for images in rebatch(batches):
        keys = order(images) if ordered else None
        for name, collector in collectors.items():
            collector.add(reference.extractor(name).on_device(images), keys)
        scores.fake += len(images)


def _compute(
    m: Metric, real: Mapping[str, Features], fake: Mapping[str, Features], certified: bool
) -> Parts | str:
    """The numbers of one computation, or one line that says why there are none."""
    outputs = list(fake) if m.output == EACH else [m.output]
    if absent := [name for name in outputs if name not in fake]:
        return f"this network has no output {absent[0]!r}"
    compute: Compute = function(m.compute.function)
    try:
        # A metric of generated images alone has no real side, and does not look at it.
        found = [compute(real.get(n, fake[n]), fake[n], certified) for n in outputs]
    except ValueError as error:
        return str(error)
    except ModuleNotFoundError as error:  # the others can still be measured
        package = (error.name or "a package").partition(".")[0]
        return f"{package} is not installed"
    if len(found) == 1:
        return found[0]
    mean = {part: float(np.mean([each[part].value for each in found])) for part in found[0]}
    return {part: Estimate(value, used=found[0][part].used) for part, value in mean.items()}


def rebatch(batches: Batches, size: int = BATCH) -> Iterator[Images | list[Images] | Tensor]:
    """The same images in batches of `size` (the last may be smaller).

    Yields:
        An array [B, 3, H, W], or, where sizes differ, a list of [3, H, W]. A tensor that comes in
        the right size goes on as it is, so that images stay on the device they were made on.
    """
    held: list[Images] = []
    for batch in batches:
        if not held and len(batch) == size and not isinstance(batch, Sequence):
            yield batch
            continue
        # A list or an array of images; a tensor becomes the latter.
        images = batch if isinstance(batch, np.ndarray | Sequence) else batch.cpu().numpy()
        for start in range(0, len(images), size):
            held += [*images[start : start + size]]
            while len(held) >= size:
                yield stacked(held[:size])
                held = held[size:]
    if held:
        yield stacked(held)
