"""Extractors: the frozen networks of metrics, and everything between an image and its features.

`bench.config.extractors` names them and the functions that load them; this file holds
what they share, and the networks that ship with the package. Every extractor takes 8-bit images, of
which real and generated ones are therefore quantised alike, in batches of one fixed size, because
the size of a batch can change the last digits of a feature. Free of torch until one is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.config.extractors import EXTRACTOR_INFO, TRAINING_ONLY, ExtractorInfo, function
from projgan.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from projgan.config import Backbone

Images = NDArray[np.uint8]  # [N, 3, R, R]
Outputs = dict[str, NDArray[np.float32]]  # output name -> [N, D], or [N, P, D]: P rows an image

BATCH = 64  # images shown to an extractor at a time, everywhere
PROTOCOL = 1  # raise it when the way from image to feature changes: old caches then do not match


@dataclass(frozen=True)
class Source:
    """All that extractors may be built from."""

    resolution: int  # of the images
    device: torch.device
    weights_dir: Path  # where files are looked for that cannot be shipped
    levels: Backbone | None = None  # the reference backbone that the grid names
    own: nn.Module | None = None  # the run's own feature network
    projection: nn.Module | None = None  # what its discriminator makes of those features
    info: ExtractorInfo | None = None  # the row that is loaded

    @property
    def random(self) -> bool:
        """Whether the network keeps its random weights, and no file is read."""
        return self.info is not None and self.info.random


@dataclass(frozen=True)
class Extractor:
    """A frozen network and everything between a uint8 image and its features."""

    identity: str  # of network, weights and preprocessing: the same features, the same identity
    device: torch.device
    forward: Callable[[Tensor], dict[str, Tensor]]  # [B, 3, R, R] uint8 on `device` -> [B, D]

    def __call__(self, images: Images | Sequence[Images] | Tensor) -> Outputs:
        """Features by output name, of at most BATCH images, as arrays.

        Args:
            images: as `on_device` takes them.
        """
        return {name: value.cpu().numpy() for name, value in self.on_device(images).items()}

    def on_device(self, images: Images | Sequence[Images] | Tensor) -> dict[str, Tensor]:
        """Features float32 by output name, of at most BATCH images, left where they were computed.

        Args:
            images: [N, 3, H, W] uint8, or N arrays [3, H, W] of any sizes: each size is shown by
                itself, through the extractor's own resize.
        """
        if not isinstance(images, Sequence):
            return self._of_one_size(images)
        shapes = [image.shape for image in images]
        outputs: dict[str, Tensor] = {}
        for shape in dict.fromkeys(shapes):
            at = [i for i, s in enumerate(shapes) if s == shape]
            for name, features in self._of_one_size(np.stack([images[i] for i in at])).items():
                empty = features.new_empty((len(images), *features.shape[1:]))
                outputs.setdefault(name, empty)[at] = features
        return outputs

    def _of_one_size(self, images: Images | Tensor) -> dict[str, Tensor]:
        import torch

        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.array(images))  # a copy: memory maps cannot be written
        if images.dtype != torch.uint8:
            raise TypeError(f"an extractor takes uint8 images, not {images.dtype}")
        with torch.no_grad(), _full_precision():
            outputs = self.forward(images.to(self.device))
            return {name: value.float() for name, value in outputs.items()}


@dataclass(frozen=True)
class ExtractorEntry:
    """A row of EXTRACTORS."""

    keeps: int  # how many images' features the real side keeps, for metrics that need them
    load: Callable[[Source], Extractor]
    generated: tuple[str, ...] = ()  # outputs that are wanted of generated images alone, and of all


def make_extractor(
    name: str, network: nn.Module, source: Source, forward: Callable[[Tensor], dict[str, Tensor]]
) -> Extractor:
    """An extractor of a network, which is frozen and moved to the device.

    Args:
        name: begins the identity; a hash of all parameters and buffers follows, so that a replaced
            weights file is a new extractor.
        forward: images [B, 3, R, R] uint8 on the device -> features by output name.
    """
    network.eval().requires_grad_(False).to(source.device)
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return Extractor(f"{name}-{digest.hexdigest()}-{PROTOCOL}", source.device, forward)


def stacked(images: list[Images]) -> Images | list[Images]:
    """Images [3, H, W] as one array [N, 3, H, W]; as they are where their sizes differ."""
    return np.stack(images) if len({image.shape for image in images}) == 1 else images


def signed(images: Tensor) -> Tensor:
    """uint8 to float in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def load_lab(source: Source) -> Extractor:
    """The lab extractor, which ships."""
    from projgan.backbones.extractor import LabExtractor, build_lab_extractor
    from projgan.backbones.lab import extractor_network

    network = LabExtractor(extractor_network()) if source.random else build_lab_extractor()
    return make_extractor("lab", network, source, lambda x: {"": network(signed(x))})


def load_levels(source: Source) -> Extractor:
    """The four levels of the reference backbone, pooled: `l1` to `l4`."""
    from projgan.backbones import build_backbone

    if source.levels is None:
        raise ConfigError("fd_levels needs a reference backbone: name one in the grid's eval")
    return _pooled_levels(build_backbone(source.levels, source.resolution), source)


def load_own(source: Source) -> Extractor:
    """The levels of the run's own backbone, also after its projection: `l1`, `ccm_l1`, `csm_l1`."""
    if source.own is None:
        raise ConfigError("own_levels: this run has no feature network of its own")
    return _pooled_levels(source.own, source, source.projection)


def load_training(source: Source) -> Extractor:
    """Refuses: metrics of training have no images to look at."""
    raise ConfigError(f"{TRAINING_ONLY}: no images alone can give it")


def _pooled_levels(network: nn.Module, source: Source, projection: Any = None) -> Extractor:
    """The maps of a feature network, averaged over their positions: one output per level.

    Args:
        projection: gives further outputs, after CCM (`ccm_l1`, …) and after CSM, as far as it has
            these parts.
    """
    from torch import nn

    def forward(images: Tensor) -> dict[str, Tensor]:
        maps = network(signed(images))
        stages = {"": maps}
        if hasattr(projection, "ccm"):
            stages["ccm_"] = projection.mix_channels(maps)
        if hasattr(projection, "csm"):
            stages["csm_"] = projection(maps)
        return {
            f"{stage}l{level}": m.float().mean((2, 3))
            for stage, found in stages.items()
            for level, m in enumerate(found, start=1)
        }

    shown = [getattr(network, name, None) for name in ("input_size", "mean", "std", "strides")]
    whole = network if projection is None else nn.ModuleList([network, projection])
    return make_extractor(f"levels-{shown}", whole, source, forward)


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


def _loader(name: str) -> Callable[[Source], Extractor]:
    """The function that loads an extractor; its file is imported when it is called.

    Weights that stay random are drawn by the extractor's name.
    """

    def load(source: Source) -> Extractor:
        import torch

        info = EXTRACTOR_INFO[name]
        found = function(info.load)
        with torch.random.fork_rng(devices=[], enabled=info.random):
            if info.random:
                torch.manual_seed(zlib.crc32(name.encode()))
            extractor: Extractor = found(replace(source, info=info))
        return extractor

    return load


class _Entries(dict[str, ExtractorEntry]):
    """A row for each of EXTRACTOR_INFO's, also for those that it makes on demand."""

    def __missing__(self, name: str) -> ExtractorEntry:
        info = EXTRACTOR_INFO[name]
        return ExtractorEntry(info.keeps, _loader(name), info.generated)


EXTRACTORS = _Entries()
EXTRACTORS |= {name: EXTRACTORS[name] for name in EXTRACTOR_INFO}
