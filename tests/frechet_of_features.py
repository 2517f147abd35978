"""The Fréchet distance of two sets of features, written out plainly."""

from __future__ import annotations

from typing import Any

import numpy as np


def features_to_frechet(real: Any, fake: Any, ddof: int = 1) -> float:
    """Centred, scaled features [N, D] as factors of their covariances; the nuclear norm by an SVD.

    Args:
        ddof: covariances are divided by N - ddof.
    """
    x, y = (np.asarray(side, dtype=np.float64) for side in (real, fake))
    f1 = (x - x.mean(0)) / np.sqrt(len(x) - ddof)
    f2 = (y - y.mean(0)) / np.sqrt(len(y) - ddof)
    mean = np.sum((x.mean(0) - y.mean(0)) ** 2)
    traces = np.sum(f1**2) + np.sum(f2**2)
    # Triangles [D, D] with the same Gram matrices: no matrix of samples by samples.
    r1, r2 = (np.linalg.qr(f, mode="r") for f in (f1, f2))
    nuclear = np.linalg.svd(r1 @ r2.T, compute_uv=False).sum()
    return float(mean + traces - 2 * nuclear)
