"""The floor of a distance: what two disjoint sets of real images differ by.

No generator can be expected below it. It is measured as generated images are, with as many images
on each side; where there are too few real ones for that, with fewer in that proportion, which can
only raise a Fréchet distance: the floor is then at most that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.config.extractors import TRAINING
from bench.config.metrics import METRICS, metric_keys
from bench.metrics.evaluate import evaluate
from bench.metrics.reference import Reference
from bench.store.shared_cache import Check, once
from projgan.files import write_json_atomic


def sides(total: int, real: int, fake: int) -> tuple[int, int]:
    """Images of the two sets: `real` and `fake`, or fewer in that proportion."""
    if real + fake > total:
        fake = total * fake // (real + fake)
        real = total - fake
    return real, fake


def floor(reference: Reference, metrics: Iterable[str], fake: int) -> dict[str, Any]:
    """Return what the real images themselves differ by; kept on disk, as it is costly.

    Args:
        reference: the real side, with the count that generated images are compared with.
        metrics: names as a grid file gives them, or keys of METRICS. Of a run's own networks there
            is no floor, nor of statistics that only a generator has.
        fake: how many images are generated for a measurement.

    Returns:
        `real` and `fake`, the images of the two sets, `whole`, whether they are as many as a
        measurement has, and `metrics`, the values by key; empty where there are too few images.
    """
    keys = [
        key
        for key in metric_keys(metrics)
        if METRICS[key].extractor not in ("own", TRAINING) and ":" not in key
    ]
    real, few = sides(reference.total, reference.count, fake)
    if not keys or min(real, few) < 2:
        return {}
    names = dict.fromkeys(METRICS[key].extractor for key in keys)
    asked = [reference.fingerprint, real, few]
    asked += [[key, METRICS[key].version, reference.extractor(METRICS[key].extractor).identity]
             for key in keys]  # fmt: skip
    digest = hashlib.sha256(json.dumps([asked, list(names)]).encode()).hexdigest()
    path = reference.folder / f"floor-{digest[:24]}.json"

    def make(check: Check) -> dict[str, Any]:
        images, rest = reference.split(few, real)
        scores = evaluate(images, rest, keys)
        whole = (real, few) == (reference.count, fake)
        found = {"real": real, "fake": few, "whole": whole, "metrics": dict(scores)}
        check()
        write_json_atomic(path, found)
        return found

    return once(path, lambda: _read(path), make)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (FileNotFoundError, ValueError):
        return None
