"""Networks that turn images into features: the EXTRACTORS table.

Free of torch until an extractor is loaded. Every extractor takes 8-bit images, of which real and
generated ones are therefore quantised alike, and sees them in batches of one fixed size, because
the size of a batch can change the last digits of a feature.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from projgan.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from projgan.config import Backbone

Images = NDArray[np.uint8]  # [N, 3, R, R]
Outputs = dict[str, NDArray[np.float32]]  # output name -> [N, D]

BATCH = 64  # images shown to an extractor at a time, everywhere
PROTOCOL = 1  # raise it when the way from image to feature changes: old caches then do not match

INCEPTION_FILE = "inception-2015-12-05.pt"


@dataclass(frozen=True)
class Source:
    """What extractors may be built from."""

    resolution: int  # of the images
    device: torch.device
    weights_dir: Path  # where files are looked for that cannot be shipped
    levels: Backbone | None = None  # the reference backbone that the grid names
    own: nn.Module | None = None  # the run's own feature network


@dataclass(frozen=True)
class Extractor:
    """A frozen network and everything between a uint8 image and its features."""

    identity: str  # of network, weights and preprocessing: the same features, the same identity
    device: torch.device
    forward: Callable[[Tensor], dict[str, Tensor]]  # [B, 3, R, R] uint8 on `device` -> [B, D]

    def __call__(self, images: Images) -> Outputs:
        """Features of at most BATCH images, [N, 3, R, R] uint8, by output name."""
        import torch

        if images.dtype != np.uint8:
            raise TypeError(f"an extractor takes uint8 images, not {images.dtype}")
        with torch.no_grad(), _full_precision():
            batch = torch.from_numpy(np.array(images)).to(self.device)
            outputs = self.forward(batch)
            return {name: value.float().cpu().numpy() for name, value in outputs.items()}


@dataclass(frozen=True)
class ExtractorEntry:
    """A row of the table; what a report must know of it stands in `table.EXTRACTOR_INFO`."""

    keeps: int  # how many images' features the real side keeps, for metrics that need them
    load: Callable[[Source], Extractor]


def _load_lab(source: Source) -> Extractor:
    from projgan.backbones.extractor import build_lab_extractor

    network = build_lab_extractor()
    return _extractor("lab", network, source, lambda x: {"": network(_signed(x))})


def _load_levels(source: Source) -> Extractor:
    from projgan.backbones import build_backbone

    if source.levels is None:
        raise ConfigError("fd_levels needs a reference backbone: name one in the grid's eval")
    return _pooled_levels(build_backbone(source.levels, source.resolution), source)


def _load_own(source: Source) -> Extractor:
    if source.own is None:
        raise ConfigError("own_levels: this run has no feature network of its own")
    return _pooled_levels(source.own, source)


def _load_inception(source: Source) -> Extractor:
    """The Inception network and the resize of clean-fid's `clean` mode, from its package."""
    import torch
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    path = find_inception(source.weights_dir)
    try:
        network = InceptionV3W(str(path.parent), download=False, resize_inside=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{path} is not a usable Inception network ({reason}); delete it and run again"
        ) from error
    resize = build_resizer("clean")  # bicubic with antialiasing, each channel as float, to 299 px

    threads = ThreadPoolExecutor()  # Pillow lets others run while it resizes

    def forward(images: Tensor) -> dict[str, Tensor]:
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        resized = np.stack(list(threads.map(resize, pixels))).transpose(0, 3, 1, 2)
        return {"": network(torch.from_numpy(resized).to(source.device))}

    return _extractor("inception", network, source, forward)


EXTRACTORS: dict[str, ExtractorEntry] = {
    "lab": ExtractorEntry(10000, _load_lab),
    "levels": ExtractorEntry(0, _load_levels),
    "own": ExtractorEntry(0, _load_own),
    "inception": ExtractorEntry(10000, _load_inception),
}


def find_inception(weights_dir: Path) -> Path:
    """The Inception network's file, downloaded once if it is not there.

    Raises:
        DataError: it is absent and cannot be downloaded; says where to put it by hand.
    """
    path = weights_dir / INCEPTION_FILE
    if path.is_file():
        return path
    from cleanfid.downloads_helper import inception_url

    try:
        _download(inception_url, path)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"fid and kid need {INCEPTION_FILE}, which is not in {weights_dir} and cannot be "
            f"downloaded ({reason}): fetch {inception_url} elsewhere and place it there"
        ) from None
    return path


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download") as folder:
        part = Path(folder) / path.name
        with urllib.request.urlopen(url, timeout=30) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
        part.replace(path)


def _extractor(
    name: str, network: nn.Module, source: Source, forward: Callable[[Tensor], dict[str, Tensor]]
) -> Extractor:
    network.eval().requires_grad_(False).to(source.device)
    return Extractor(f"{name}-{_sha256(network)}-{PROTOCOL}", source.device, forward)


def _pooled_levels(network: nn.Module, source: Source) -> Extractor:
    """The maps of a feature network, averaged over their positions: one output per level."""

    def forward(images: Tensor) -> dict[str, Tensor]:
        maps = network(_signed(images))
        return {f"l{level}": m.float().mean((2, 3)) for level, m in enumerate(maps, start=1)}

    shown = [getattr(network, name, None) for name in ("input_size", "mean", "std", "strides")]
    return _extractor(f"levels-{shown}", network, source, forward)


def _signed(images: Tensor) -> Tensor:
    """uint8 to float in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def _sha256(network: nn.Module) -> str:
    """Of all parameters and buffers, so that a replaced weights file is a new extractor."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """float32 as it says: neither TF32 nor autocast, and no algorithm chosen by timing."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    cudnn: Any = torch.backends.cudnn
    settings: list[tuple[Any, str, Any]] = [
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (cudnn.conv, "fp32_precision", "ieee"),
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
    ]
    before = [getattr(place, name) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        with torch.autocast("cuda", enabled=False):
            yield
    finally:
        for (place, name, _), value in zip(settings, before, strict=True):
            setattr(place, name, value)
