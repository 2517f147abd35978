"""evaluate(): generated images -> metrics, in one pass over the images.

Every extractor that some metric needs sees each image once; all metrics share what it saw.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.metrics import EACH, METRICS, TRAINING, Metric, metric_keys
from bench.metrics.extractors import BATCH, EXTRACTORS, TRAINING_ONLY, Images
from bench.metrics.frechet import GAP_TOLERANCE, certify_frechet
from bench.metrics.inception_score import logits_to_score
from bench.metrics.kernel import features_to_kernel
from bench.metrics.neighbours import features_to_neighbourhood
from bench.metrics.order import ContentOrder
from bench.metrics.patches import patches_to_distance
from bench.metrics.reference import Collector, Reference
from bench.metrics.sampling import FrechetInterval, frechet_infinity, frechet_interval
from bench.metrics.statistics import Features, statistics_to_frechet
from projgan.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_SEED = 0  # of what a metric draws: groups, directions; one for all, so that values compare


@dataclass(frozen=True)
class Estimate:
    """A metric's value, in the unit of its header."""

    value: float
    interval: tuple[float, float] | None = None  # 95 %. None = this metric has none
    gap: float | None = None  # to a second route, relative. None = there was none
    used: int | None = None  # images of each side that were compared. None = all there were


Kept = NDArray[np.float32]  # [K, D]
Parts = Mapping[str, Estimate]  # what one computation gives, by `Metric.part`


def _frechet(real: Features, fake: Features) -> Parts:
    return {"": Estimate(statistics_to_frechet(real.statistics, fake.statistics))}


def _by_n(side: Features) -> Features:
    return replace(side, statistics=side.statistics.by_n())


def _frechet_inf(real: Features, fake: Features) -> Parts:
    return {"": Estimate(frechet_infinity(real.statistics, fake.kept, seed=_SEED))}


def _kernel(real: Features, fake: Features) -> Parts:
    x, y = _alike(real, fake)
    found = features_to_kernel(x, y)
    low, high = found.interval
    return {"": Estimate(1000.0 * found.value, (1000.0 * low, 1000.0 * high), used=len(x))}


def _neighbours(real: Features, fake: Features) -> Parts:
    x, y = _alike(real, fake)
    found = features_to_neighbourhood(x, y)
    return {part: Estimate(value, used=len(x)) for part, value in asdict(found).items()}


def _sliced(real: Features, fake: Features) -> Parts:
    x, y = _alike(real, fake)
    return {"": Estimate(1000.0 * patches_to_distance(x, y, seed=_SEED), used=len(x))}


def _inception_score(_: Features, fake: Features) -> Parts:
    return {"": Estimate(logits_to_score(fake.kept))}


def _alike(real: Features, fake: Features) -> tuple[Kept, Kept]:
    """As many of each side, those that come first by content: unequal sides would tilt a metric."""
    count = min(len(real.kept), len(fake.kept))
    return real.kept[:count], fake.kept[:count]


# How the two sides become numbers, in the units that the table of metrics gives.
COMPUTE: dict[str, Callable[[Features, Features], Parts]] = {
    "frechet": _frechet,
    "frechet_by_n": lambda real, fake: _frechet(_by_n(real), _by_n(fake)),
    "frechet_inf": _frechet_inf,
    "kernel": _kernel,
    "neighbours": _neighbours,
    "sliced": _sliced,
    "inception_score": _inception_score,
}


def _certified(real: Features, fake: Features, found: Parts) -> Parts:
    """A Fréchet distance with its gap to a second route and, of enough images, its interval."""
    value, interval = found[""].value, _interval(real, fake)
    reach = (value - interval.reach, value + interval.reach) if interval else None
    return {"": Estimate(value, reach, _gap(real, fake, value))}


def _certified_inf(real: Features, fake: Features, found: Parts) -> Parts:
    gap = _gap(real, fake, statistics_to_frechet(real.statistics, fake.statistics))
    interval = _interval(real, fake)
    return {"": Estimate(found[""].value, interval.at_infinity if interval else None, gap)}


def _gap(real: Features, fake: Features, distance: float) -> float:
    a, b = real.statistics, fake.statistics
    gap = certify_frechet(distance, a.mean, a.cov, b.mean, b.cov)
    if not gap <= GAP_TOLERANCE:  # nor where it is no number
        raise ValueError(
            f"not published: a second route to the distance differs by {gap:.1e} of it, "
            f"more than {GAP_TOLERANCE:.0e}"
        )
    return gap


def _interval(real: Features, fake: Features) -> FrechetInterval | None:
    """None = too few images, see `sampling.enough`."""
    try:
        return frechet_interval(real.statistics, fake.kept, seed=_SEED)
    except ValueError:
        return None


# Done once, for numbers that are published: a second route, and intervals that take longer.
CERTIFY: dict[str, Callable[[Features, Features, Parts], Parts]] = {
    "frechet": _certified,
    "frechet_by_n": lambda real, fake, found: _certified(_by_n(real), _by_n(fake), found),
    "frechet_inf": _certified_inf,
}


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


def evaluate(
    batches: Iterable[Images | Sequence[Images] | Tensor],
    reference: Reference,
    metrics: Iterable[str],
    *,
    certified: bool = False,
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
    wanted = [METRICS[key] for key in metric_keys(metrics)]
    if not reference.has_own:
        reason = "this run has no feature network of its own"
        scores.missing = {m.key: reason for m in wanted if m.extractor == "own"}
        wanted = [m for m in wanted if m.extractor != "own"]
    scores.missing |= {m.key: TRAINING_ONLY for m in wanted if m.extractor == TRAINING}
    wanted = [m for m in wanted if m.extractor != TRAINING]
    names = list(dict.fromkeys(m.extractor for m in wanted))
    real = {name: reference.real(name) for name in names}
    scores.extractors = {name: reference.extractor(name).identity for name in names}

    collectors = {
        name: Collector(EXTRACTORS[name].keeps, _whole(name, wanted, certified)) for name in names
    }
    held = any(EXTRACTORS[name].keeps or _whole(name, wanted, certified) for name in names)
    order = ContentOrder()
    for images in rebatch(batches):
        keys = order(images) if held else None
        for name, collector in collectors.items():
            collector.add(reference.extractor(name).on_device(images), keys)
        scores.fake += len(images)
    scores.real = reference.count
    if scores.fake < 2:
        raise UserError(f"{scores.fake} generated images cannot be measured: eval.fake needs 2")
    fake = {name: collector.features() for name, collector in collectors.items()}

    done: dict[tuple[str, str, str], Parts | str] = {}  # numbers, or why there are none
    for m in wanted:
        work = (m.extractor, m.output, m.compute)
        if work not in done:
            done[work] = _compute(m, real[m.extractor], fake[m.extractor], certified)
        found = done[work]
        if isinstance(found, str):
            scores.missing[m.key] = found
        elif math.isfinite(found[m.part].value):
            scores[m.key] = found[m.part].value
            if (interval := found[m.part].interval) is not None:
                scores.intervals[m.key] = interval
            if (used := found[m.part].used) is not None:
                scores.used[m.key] = used
            if (gap := found[m.part].gap) is not None:
                scores.certificates[m.key] = gap
        else:
            scores.missing[m.key] = f"came out as {found[m.part].value}"
    return scores


def _whole(extractor: str, wanted: Iterable[Metric], certified: bool) -> set[str]:
    """Outputs whose features are held of every generated image."""
    needed = {"frechet_inf", *(CERTIFY if certified else ())}
    outputs = {m.output for m in wanted if m.extractor == extractor and m.compute in needed}
    return {*outputs, *EXTRACTORS[extractor].generated}


def _compute(
    m: Metric, real: Mapping[str, Features], fake: Mapping[str, Features], certified: bool
) -> Parts | str:
    """The numbers of one computation, or one line that says why there are none."""
    outputs = list(fake) if m.output == EACH else [m.output]
    if absent := [name for name in outputs if name not in fake]:
        return f"this network has no output {absent[0]!r}"
    try:
        # A metric of generated images alone has no real side, and does not look at it.
        found = [COMPUTE[m.compute](real.get(n, fake[n]), fake[n]) for n in outputs]
        if certified and m.compute in CERTIFY:
            found = [
                CERTIFY[m.compute](real[n], fake[n], parts)
                for n, parts in zip(outputs, found, strict=True)
            ]
    except ValueError as error:
        return str(error)
    except ModuleNotFoundError as error:  # the others can still be measured
        package = (error.name or "a package").partition(".")[0]
        return f"{package} is not installed"
    if len(found) == 1:
        return found[0]
    mean = {part: float(np.mean([each[part].value for each in found])) for part in found[0]}
    return {part: Estimate(value, used=found[0][part].used) for part, value in mean.items()}


def rebatch(
    batches: Iterable[Images | Sequence[Images] | Tensor], size: int = BATCH
) -> Iterator[Images | list[Images] | Tensor]:
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
                yield _together(held[:size])
                held = held[size:]
    if held:
        yield _together(held)


def _together(images: list[Images]) -> Images | list[Images]:
    return np.stack(images) if len({image.shape for image in images}) == 1 else images
