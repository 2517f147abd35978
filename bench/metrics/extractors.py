"""The EXTRACTORS table: every network that a metric can look through, and how to load it.

Free of torch until an extractor is loaded. Adding one is adding an entry here, and a function that
loads it, beside its kin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.config.metrics import TRAINING
from bench.metrics import inception, patches, pretrained
from bench.metrics.extractor import (
    BATCH,
    Extractor,
    ExtractorEntry,
    Images,
    Outputs,
    Source,
    make_extractor,
    signed,
)
from projgan.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINING_ONLY = "logit_gap and memorised are measured while a run trains"
__all__ = ["BATCH", "EXTRACTORS", "Extractor", "ExtractorEntry", "Images", "Outputs", "Source"]


def _load_lab(source: Source) -> Extractor:
    from projgan.backbones.extractor import build_lab_extractor

    network = build_lab_extractor()
    return make_extractor("lab", network, source, lambda x: {"": network(signed(x))})


def _load_levels(source: Source) -> Extractor:
    from projgan.backbones import build_backbone

    if source.levels is None:
        raise ConfigError("fd_levels needs a reference backbone: name one in the grid's eval")
    return _pooled_levels(build_backbone(source.levels, source.resolution), source)


def _load_own(source: Source) -> Extractor:
    if source.own is None:
        raise ConfigError("own_levels: this run has no feature network of its own")
    return _pooled_levels(source.own, source, source.projection)


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
        if projection is not None and hasattr(projection, "ccm"):
            stages["ccm_"] = projection.mix_channels(maps)
        if projection is not None and hasattr(projection, "csm"):
            stages["csm_"] = projection(maps)
        return {
            f"{stage}l{level}": m.float().mean((2, 3))
            for stage, found in stages.items()
            for level, m in enumerate(found, start=1)
        }

    shown = [getattr(network, name, None) for name in ("input_size", "mean", "std", "strides")]
    whole = network if projection is None else nn.ModuleList([network, projection])
    return make_extractor(f"levels-{shown}", whole, source, forward)


def _load_training(source: Source) -> Extractor:
    raise ConfigError(f"{TRAINING_ONLY}: no images alone can give it")


EXTRACTORS: dict[str, ExtractorEntry] = {
    "lab": ExtractorEntry(10000, _load_lab),
    "levels": ExtractorEntry(0, _load_levels),
    "own": ExtractorEntry(0, _load_own),
    "inception": ExtractorEntry(10000, inception.load_clean, generated=(inception.LOGITS,)),
    "inception_legacy": ExtractorEntry(0, inception.load_legacy),
    "inception_graph": ExtractorEntry(0, inception.load_graph),
    "vgg16": ExtractorEntry(50000, pretrained.load_vgg16),
    "dinov2": ExtractorEntry(0, pretrained.load_dinov2),
    "clip": ExtractorEntry(0, pretrained.load_clip),
    "swav": ExtractorEntry(0, pretrained.load_swav),
    "mobilenet": ExtractorEntry(10000, pretrained.load_mobilenet),
    TRAINING: ExtractorEntry(0, _load_training),
    "patches": ExtractorEntry(patches.IMAGES, patches.load_patches),
}
