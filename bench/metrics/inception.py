"""The Inception networks of clean-fid's modes, with its own resize, and the Inception Score.

`clean`: bicubic with antialiasing, each channel as float, and the TorchScript network that
NVIDIA published. `legacy`: bilinear without antialiasing, and the network of pytorch-fid; this is
what most papers before 2022 report. `graph`: the network of `clean` with the resize that is part
of it, as NVIDIA's StyleGAN family and the Projected GAN paper measure. What follows the features
is this project's arithmetic.

The Inception Score (Salimans et al., NeurIPS 2016) is of generated images alone: exp(mean over
images of KL(p(y|x) || p(y))), over ten parts of the sample, averaged. It knows no real images, so
it sees neither missing modes within a class nor whether the classes are the right ones; outside of
ImageNet it says little.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bench.metrics.extractors import Extractor, Source, make_extractor
from bench.metrics.resize import cleanfid_resizer, quiet
from bench.metrics.statistics import Estimate, Features, Parts
from bench.metrics.weights import find_weights
from projgan.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

LOGITS = "logits"  # the output that the Inception Score is made of
PARTS = 10
_SIZE = 299


def load_clean(source: Source) -> Extractor:
    """Features [B, 2048] and logits without bias [B, 1008] of the network of `clean` mode."""
    path = find_weights("inception", source.weights_dir)
    network = _torchscript(path, resize_inside=False)
    resized = cleanfid_resizer("PIL", "bicubic", _SIZE)
    # The last layer as a matrix, so that one pass gives features and logits; its bias is left out,
    # as the Inception Score's own code does.
    classes = next((w for w in network.state_dict().values() if set(w.shape) == {1008, 2048}), None)
    if classes is not None:
        classes = (classes.T if classes.shape[0] == 1008 else classes).to(source.device)

    def forward(images: Tensor) -> dict[str, Tensor]:
        features = network(resized(images))
        return {"": features} if classes is None else {"": features, LOGITS: features @ classes}

    return make_extractor("inception", network, source, forward)


def load_graph(source: Source) -> Extractor:
    """Features [B, 2048] of the network of `clean` mode, which resizes the images itself."""
    path = find_weights("inception_graph", source.weights_dir)
    network = _torchscript(path, resize_inside=True)
    return make_extractor("inception-graph", network, source, lambda x: {"": network(x.float())})


def load_legacy(source: Source) -> Extractor:
    """Features [B, 2048] of the network of `legacy_pytorch` mode."""
    import torch

    path = find_weights("inception_legacy", source.weights_dir)
    with quiet(), _naming(path):
        from cleanfid import inception_pytorch

        weights = torch.load(path, map_location="cpu", weights_only=True)
        with _weights_given(inception_pytorch, weights):
            network: nn.Module = inception_pytorch.InceptionV3([3], resize_input=False)
    resized = cleanfid_resizer("PyTorch", "bilinear", _SIZE)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(resized(images) / 255)[0].flatten(1)}

    return make_extractor("inception_legacy", network, source, forward)


def score(_: Features, fake: Features, certified: bool) -> Parts:
    """The Inception Score of all generated images."""
    return {"": Estimate(logits_to_score(fake.kept))}


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


def _torchscript(path: Path, resize_inside: bool) -> nn.Module:
    with quiet(), _naming(path):
        from cleanfid.inception_torchscript import InceptionV3W

        return InceptionV3W(str(path.parent), download=False, resize_inside=resize_inside)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Context in which whatever torch finds wrong with a file is an error that names it."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path} is not a usable Inception network ({lines[0][:120]}); delete it and run again"
        ) from error


@contextmanager
def _weights_given(module: Any, weights: dict[str, Tensor]) -> Iterator[None]:
    """Context in which clean-fid's constructor gets these weights and downloads none."""
    download = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda url, progress=False: weights
    try:
        yield
    finally:
        module.load_state_dict_from_url = download
