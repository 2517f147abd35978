"""The Inception Score (Salimans et al., NeurIPS 2016): of generated images alone.

exp(mean over images of KL(p(y|x) || p(y))), over ten parts of the sample, averaged. It knows no
real images, so it sees neither missing modes within a class nor whether the classes are the right
ones; outside of ImageNet it says little.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike

PARTS = 10


def logits_to_score(logits: ArrayLike, *, parts: int = PARTS) -> float:
    """Inception Score.

    Args:
        logits: [N, classes], of the network's last layer without its bias.
        parts: how many; the published protocol has ten of 5000 images. Images that the network
            shows no order in need no shuffling: a generator's samples are independent.

    Returns:
        The mean over parts, from 1 to the number of classes.

    Raises:
        ValueError: fewer images than parts, or values that are not finite.
    """
    x = np.asarray(logits, dtype=np.float64)
    if x.ndim != 2 or len(x) < parts:
        raise ValueError(f"an Inception Score in {parts} parts needs {parts} images, not {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError("the logits are not finite")
    x = x - x.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    scores = []
    ends = [len(x) * i // parts for i in range(parts + 1)]  # as the published code cuts them
    for start, stop in itertools.pairwise(ends):
        part = log_p[start:stop]
        p = np.exp(part)
        # A class that no image has a probability for contributes nothing: 0 log 0 = 0.
        mean = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
        scores.append(np.exp((p * (part - mean)).sum(axis=1).mean()))
    return float(np.mean(scores))
