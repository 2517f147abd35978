"""The real side of every metric: computed once per data set and extractor, kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.config.extractors import TRAINING
from bench.config.metrics import METRICS, metric_keys
from bench.metrics.extractors import BATCH, EXTRACTORS, Extractor, Images, Source
from bench.metrics.order import ContentOrder, First, Keys
from bench.metrics.statistics import Accumulator, Features, load_features, save_features
from bench.store.shared_cache import Check, once
from projgan.weights import weights_dir

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from projgan.config import Backbone

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # images done, images in all


class Pictures(Protocol):
    """An array [N, 3, R, R] uint8, or what reads images when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, at: NDArray[np.int64], /) -> Images | list[Images]: ...


class Reference:
    """Real images, the extractors that look at them, and what these saw.

    All images count, also those that a subset run is not trained on, and none is mirrored. The
    moments (and the features of some images) are cached under `data_dir`/reference/, in a file
    named by a hash of everything they depend on. Of processes that need one at the same time one
    computes it, and the others wait and read it.

    Attributes:
        total: how many real images there are.
        count: how many of them the moments are computed from.
        fingerprint: hash of all images' pixels.
        folder: where what was computed is kept.
        has_own: whether the run has a feature network of its own.
    """

    def __init__(
        self,
        images: Pictures,
        fingerprint: str,
        data_dir: Path,
        device: torch.device,
        *,
        levels: Backbone | None = None,
        own: nn.Module | None = None,
        projection: nn.Module | None = None,
        count: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """
        Args:
            images: all real images, [N, 3, R, R] uint8; a memory map is read once, in order. Or
                whatever else is indexed likewise, with the shape of its first image.
            fingerprint: hash of their pixels.
            data_dir: parent of the cache; weights that do not ship are looked for in its weights/.
            device: where extractors run.
            levels: the reference backbone of `fd_levels`.
            own: the run's own feature network, for `own_levels`.
            projection: that of the run's own discriminator, for `own_ccm` and `own_csm`.
            count: use so many images, chosen by their content. None = all.
            progress: told how far a computation is.
        """
        self._images = images
        self.fingerprint, self.folder = fingerprint, data_dir / "reference"
        self.total = len(images)
        self.count = min(count or self.total, self.total)
        self.has_own = own is not None
        weights = weights_dir(data_dir)
        self._source = Source(images.shape[-1], device, weights, levels, own, projection)
        self._progress = progress
        self._extractors: dict[str, Extractor] = {}
        self._real: dict[str, dict[str, Features]] = {}

    def extractor(self, name: str) -> Extractor:
        """The extractor of a row of EXTRACTORS, loaded once."""
        if name not in self._extractors:
            self._extractors[name] = EXTRACTORS[name].load(self._source)
        return self._extractors[name]

    def real(self, name: str) -> dict[str, Features]:
        """Return the features of the real images, by output; from the cache if they are there."""
        if name not in self._real:
            self._real[name] = self._load_or_compute(name)
        return self._real[name]

    def prepare(self, metrics: Iterable[str]) -> None:
        """Gets ready everything that `metrics` will need of the real side.

        Called before training, it finds out then whether weights are missing.
        """
        for name in {METRICS[key].extractor for key in metric_keys(metrics)} - {TRAINING}:
            if name != "own" or self.has_own:
                self.real(name)

    def cache_path(self, name: str) -> Path:
        """Return the file in which `real(name)` is kept."""
        digest = hashlib.sha256(self._key(name).encode()).hexdigest()
        return self.folder / f"{name}-{digest[:24]}.npz"

    def _key(self, name: str) -> str:
        return json.dumps(
            {
                "data": self.fingerprint,
                "shape": list(self._images.shape),
                "count": self.count,
                "extractor": self.extractor(name).identity,
                "keeps": EXTRACTORS[name].keeps,
                "first": "by content",
            }
        )

    def _load_or_compute(self, name: str) -> dict[str, Features]:
        path, key = self.cache_path(name), self._key(name)

        def make(check: Check) -> dict[str, Features]:
            log.info("Computing %s features of %d real images", name, self.count)
            found = self._compute(name, check)
            check()
            save_features(path, key, found)
            return found

        return once(path, lambda: load_features(path, key), make)

    def _compute(self, name: str, check: Check) -> dict[str, Features]:
        extractor, entry = self.extractor(name), EXTRACTORS[name]
        collector, order = Collector(entry.keeps), ContentOrder()
        for start in range(0, self.count, BATCH):
            check()
            images = self._images[self._chosen[start : start + BATCH]]
            outputs = extractor.on_device(images)
            wanted = {n: v for n, v in outputs.items() if n not in entry.generated}
            collector.add(wanted, order(images) if entry.keeps else None)
            if self._progress:
                self._progress(start + len(images), self.count)
        return collector.features()

    def split(self, first: int, then: int) -> tuple[Iterator[Images | list[Images]], Reference]:
        """Two disjoint sets of the real images, chosen by content: images, and a reference."""
        order = self._by_content()
        taken, rest = np.sort(order[:first]), np.sort(order[first : first + then])
        other = copy(self)
        other._images = _Part(self._images, rest)
        other.fingerprint = f"{self.fingerprint}, {then} after the first {first}"
        other.total = other.count = then
        other._real, other._progress = {}, None
        other.__dict__.pop("_chosen", None)
        batches = (self._images[taken[at : at + BATCH]] for at in range(0, first, BATCH))
        return batches, other

    def _by_content(self) -> NDArray[np.int64]:
        """Places of all images in the order of their content."""
        order, places = ContentOrder(), np.arange(self.total)
        batches = (self._images[places[at : at + BATCH]] for at in range(0, self.total, BATCH))
        return np.argsort(np.concatenate([order(images) for images in batches]))

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        """Places of the images that count, ascending: files are read fastest in their order."""
        if self.count == self.total:
            return np.arange(self.total)
        return np.sort(self._by_content()[: self.count])


class _Part:
    """Some of the images."""

    def __init__(self, images: Pictures, places: NDArray[np.int64]) -> None:
        self._images, self._places = images, places
        self.shape = (len(places), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: NDArray[np.int64], /) -> Images | list[Images]:
        return self._images[self._places[at]]


class Collector:
    """Gathers the outputs of one extractor over many images."""

    def __init__(self, keeps: int = 0, whole: Iterable[str] = ()) -> None:
        """
        Args:
            keeps: of how many images features are held: of those that come first by content.
            whole: outputs that are held of every image.
        """
        self._keeps, self._whole = keeps, frozenset(whole)
        self.holds = bool(keeps or self._whole)  # whether any image's features are held
        self._moments: dict[str, Accumulator] = {}
        self._first: dict[str, First] = {}

    def add(self, outputs: Mapping[str, Tensor], keys: Keys | None = None) -> None:
        """Adds the features of one batch by output; `keys` [B] as `ContentOrder` gives them.

        Moments stay on the features' device until the end; what is held comes to the host at once.
        Without keys nothing is held.
        """
        for name, features in outputs.items():
            self._moments.setdefault(name, Accumulator()).update(features.flatten(0, -2))
            limit = None if name in self._whole else self._keeps
            first = self._first.setdefault(name, First(limit))
            if keys is not None:
                first.add(features, keys)

    def features(self) -> dict[str, Features]:
        """Everything so far, by output."""
        found = {}
        for name, moments in self._moments.items():
            statistics, held = moments.statistics(), self._first[name].ordered()
            none = np.empty((0, len(statistics.mean)), np.float32)
            found[name] = Features(statistics, none if held is None else held)
        return found
