"""The EXTRACTOR_INFO table: the networks of metrics, and what each learned from.

Free of torch and numpy, because plans and tables read it. A new network is one row here, which also
says what it learned from, so that a table can tell where a backbone learned from the same, and one
function in `bench/metrics/` that loads it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

from projgan.backbones.registry import describe
from projgan.config import Backbone


def function(name: str) -> Any:
    """A function of bench/metrics/ by its name, `FILE.FUNCTION`, imported when it is asked for."""
    module, _, attribute = name.partition(".")
    return getattr(importlib.import_module(f"bench.metrics.{module}"), attribute)


@dataclass(frozen=True)
class ExtractorInfo:
    """The network of a metric.

    Attributes:
        label: its name on a page.
        pretraining: in the form of a backbone's: data sets joined by ", then ", and after the last
            comma what was learned from them. "" = nothing was learned. None = that of the backbone
            it is made of.
        family: architecture. "" = no network. None = that of the backbone it is made of.
        load: `FILE.FUNCTION` of bench/metrics/: `extractors.Source` -> `extractors.Extractor`.
        keeps: how many images' features the real side keeps, for computations that need more than
            the moments.
        generated: outputs that are wanted of generated images alone, and of all of them.
        network: what `load` needs to know: a network of timm.
        size: px at which that network sees images. None = its own.
        random: with random weights, drawn by the network's name.
    """

    label: str
    pretraining: str | None
    family: str | None
    load: str
    keeps: int = 0
    generated: tuple[str, ...] = ()
    network: str = ""
    size: int | None = None
    random: bool = False


class ExtractorTable(dict[str, ExtractorInfo]):
    """Rows of metrics' networks, and on demand `timm/NAME` and `ROW/random`.

    Raises:
        KeyError: neither a row nor one of these.
    """

    def __missing__(self, name: str) -> ExtractorInfo:
        row, _, random = name.rpartition("/")
        if random == "random" and row not in ("", TIMM.rstrip("/")):
            label = f"{self[row].label}, random weights"
            return replace(self[row], label=label, pretraining="", family="", random=True)
        if name.startswith(TIMM) and name != TIMM:
            known = describe(Backbone(name, zoo="imagenet"))
            return ExtractorInfo(
                name, known.pretraining, known.family, "pretrained.load_timm", _KEPT, (), name
            )
        raise KeyError(name)


# Metrics of a run's training images and discriminator, which are at hand while it trains.
TRAINING = "training"
TRAINING_ONLY = "logit_gap and memorised are measured while a run trains"

_KEPT = 10000  # images whose features the real side keeps: what the kernel distances take
TIMM = "timm/"  # before the name of any network of timm


def _timm(
    label: str, pretraining: str, family: str, network: str, size: int | None = None
) -> ExtractorInfo:
    """A network of timm by a name of our own."""
    load = "pretrained.load_timm"
    return ExtractorInfo(label, pretraining, family, load, _KEPT, (), TIMM + network, size)


_LABELS, _NO_LABELS = "ImageNet-1k, labels", "ImageNet-1k, no labels"
_LVD = "ImageNet-21k, then ImageNet-1k, then LVD-142M, no labels"  # it was gathered around ImageNet
_CAPTIONS = "OpenAI image-text pairs, captions"
_INCEPTION = ("Inception-v3", _LABELS, "Inception")

EXTRACTOR_INFO = ExtractorTable()
EXTRACTOR_INFO |= {
    "lab": ExtractorInfo("lab extractor", "rendered scenes of its own, no labels", "RegNet",
                         "extractors.load_lab", _KEPT),
    "levels": ExtractorInfo("reference backbone", None, None, "extractors.load_levels"),
    "own": ExtractorInfo("own backbone", None, None, "extractors.load_own"),
    "inception": ExtractorInfo(*_INCEPTION, "inception.load_clean", _KEPT, ("logits",)),
    "inception_legacy": ExtractorInfo(*_INCEPTION, "inception.load_legacy"),
    "inception_graph": ExtractorInfo(*_INCEPTION, "inception.load_graph"),
    "vgg16": ExtractorInfo("VGG16", _LABELS, "VGG", "pretrained.load_vgg16", 50000),
    "dinov2": ExtractorInfo("DINOv2 ViT-L/14", _LVD, "ViT", "pretrained.load_dinov2", _KEPT),
    "dinov2_b": _timm("DINOv2 ViT-B/14", _LVD, "ViT", "vit_base_patch14_dinov2.lvd142m", 224),
    "clip": ExtractorInfo("CLIP ViT-B/32", _CAPTIONS, "CLIP ViT", "pretrained.load_clip", _KEPT),
    "clip_l14_336": _timm("CLIP ViT-L/14 at 336 px", _CAPTIONS, "CLIP ViT",
                          "vit_large_patch14_clip_336.openai"),
    "swav": ExtractorInfo("SwAV ResNet50", _NO_LABELS, "ResNet", "pretrained.load_swav", _KEPT),
    "mae_l": _timm("MAE ViT-L/16", _NO_LABELS, "ViT", "vit_large_patch16_224.mae"),
    "convnextv2": _timm("ConvNeXt V2-B", "ImageNet-1k, then ImageNet-21k, then ImageNet-1k, labels",
                        "ConvNeXt", "convnextv2_base.fcmae_ft_in22k_in1k"),
    "mobilenet": ExtractorInfo("MobileNetV2", _LABELS, "MobileNet",
                               "pretrained.load_mobilenet", _KEPT),
    TRAINING: ExtractorInfo("discriminator and training images", "", "",
                            "extractors.load_training"),
    "patches": ExtractorInfo("Laplacian pyramid", "", "", "patches.load_patches", 4096),
}  # fmt: skip
