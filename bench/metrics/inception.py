"""The Inception networks of clean-fid's modes, with its own resize, through its package.

`clean`: bicubic with antialiasing, each channel as float, and the TorchScript network that
NVIDIA published. `legacy`: bilinear without antialiasing, and the network of pytorch-fid; this is
what most papers before 2022 report. `graph`: the network of `clean` with the resize that is part
of it, as NVIDIA's StyleGAN family and the Projected GAN paper measure. What follows the features
is this project's arithmetic.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics.extractor import Extractor, Images, Source, make_extractor
from bench.metrics.weights import fetch_url, find_weights
from projgan.errors import DataError
from projgan.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

CLEAN_FILE = "inception-2015-12-05.pt"
# TorchScript is code: this file alone is run, and no other under its name.
CLEAN_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
LEGACY_FILE = "pt_inception-2015-12-05-6726825d.pth"
LOGITS = "logits"  # the output that the Inception Score is made of

Resize = Callable[[Images], NDArray[np.float32]]  # [H, W, 3] -> [299, 299, 3], 0 to 255


def find_clean(weights_dir: Path) -> Path:
    """The TorchScript network's file, downloaded once if it is not there.

    Raises:
        DataError: it is not there, or not the one that was published.
    """
    with _quiet():
        from cleanfid.downloads_helper import inception_url
    purpose = "a metric of Inception (fid, kid, is)"
    fetch = fetch_url(inception_url)
    path = find_weights(weights_dir, CLEAN_FILE, purpose, inception_url, fetch)
    if (found := sha256_of(path)) != CLEAN_SHA256:
        raise DataError(
            f"{path} is not the Inception network that was published: its SHA-256 is "
            f"{found[:12]}…, not {CLEAN_SHA256[:12]}…; delete it and run again"
        )
    return path


def find_legacy(weights_dir: Path) -> Path:
    """pytorch-fid's file of weights, downloaded once if it is not there."""
    with _quiet():
        from cleanfid.inception_pytorch import FID_WEIGHTS_URL as url
    return find_weights(weights_dir, LEGACY_FILE, "fid_legacy", url, fetch_url(url))


def load_clean(source: Source) -> Extractor:
    """Features [B, 2048] and logits without bias [B, 1008] of the network of `clean` mode."""
    import torch

    path = find_clean(source.weights_dir)
    with _quiet(), _named(path, "delete it and run again"):
        from cleanfid.inception_torchscript import InceptionV3W

        network = InceptionV3W(str(path.parent), download=False, resize_inside=False)
    resized = _resizer("clean")
    # The last layer as a matrix, so that one pass gives features and logits; its bias is left out,
    # as the Inception Score's own code does.
    classes = next((w for w in network.state_dict().values() if set(w.shape) == {1008, 2048}), None)
    if classes is not None:
        classes = (classes.T if classes.shape[0] == 1008 else classes).to(source.device)

    def forward(images: Tensor) -> dict[str, Tensor]:
        features = network(torch.from_numpy(resized(images)).to(source.device))
        outputs = {"": features}
        if classes is not None:
            outputs[LOGITS] = features @ classes
        return outputs

    return make_extractor("inception", network, source, forward)


def load_graph(source: Source) -> Extractor:
    """Features [B, 2048] of the network of `clean` mode, which resizes the images itself."""
    path = find_clean(source.weights_dir)
    with _quiet(), _named(path, "delete it and run again"):
        from cleanfid.inception_torchscript import InceptionV3W

        network = InceptionV3W(str(path.parent), download=False, resize_inside=True)
    return make_extractor("inception-graph", network, source, lambda x: {"": network(x.float())})


def load_legacy(source: Source) -> Extractor:
    """Features [B, 2048] of the network of `legacy_pytorch` mode."""
    import torch

    path = find_legacy(source.weights_dir)
    with _quiet(), _named(path, "delete it and run again"):
        from cleanfid import inception_pytorch

        weights = torch.load(path, map_location="cpu", weights_only=True)
        with _weights_given(inception_pytorch, weights):
            network: nn.Module = inception_pytorch.InceptionV3([3], resize_input=False)
    resized = _resizer("legacy_pytorch")

    def forward(images: Tensor) -> dict[str, Tensor]:
        shown = torch.from_numpy(resized(images)).to(source.device)
        return {"": network(shown / 255)[0].flatten(1)}

    return make_extractor("inception_legacy", network, source, forward)


def _resizer(mode: str) -> Callable[[Tensor], NDArray[np.float32]]:
    """clean-fid's resize, image by image: [B, 3, H, W] uint8 -> [B, 3, 299, 299] float32."""
    with _quiet():  # making one silences all warnings of the process
        from cleanfid.resize import build_resizer

        resize: Resize = build_resizer(mode)
    threads = ThreadPoolExecutor()  # Pillow lets others run while it resizes

    def resized(images: Tensor) -> NDArray[np.float32]:
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        return np.stack(list(threads.map(resize, pixels))).transpose(0, 3, 1, 2)

    return resized


@contextmanager
def _named(path: Path, remedy: str) -> Iterator[None]:
    """A network that cannot be made of the file is an error that names it."""
    try:
        yield
    except Exception as error:  # whatever torch finds wrong with it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path} is not a usable Inception network ({lines[0][:120]}); {remedy}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """clean-fid's imports and constructors warn of names that have moved, and change filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _weights_given(module: Any, weights: dict[str, Tensor]) -> Iterator[None]:
    """Within, clean-fid's constructor gets these weights instead of downloading its own."""
    download = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda url, progress=False: weights
    try:
        yield
    finally:
        module.load_state_dict_from_url = download
