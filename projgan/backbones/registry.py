"""The table of feature networks (Table 2 of the paper), free of torch.

Each name has two zoos: "imagenet", the networks of the paper by full weight tag, and "lab", small
counterparts of the same family that ship with the package and run on two CPU cores.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from projgan.config import Backbone
from projgan.errors import ConfigError, DataError, reason, unknown

WEIGHTS = Path(__file__).parent / "weights"
CARD = WEIGHTS / "card.json"
ANY = "timm/"  # before the name of any network of timm

_IMAGENET = "ImageNet-1k, labels"
_TOP1 = "ImageNet top-1, %"


@dataclass(frozen=True)
class Network:
    """One network in one zoo: how to build it, and what a table says of it."""

    label: str  # as tables show it
    family: str  # of architecture; networks with a word in common are akin
    source: Literal["timm", "open_clip", "lab"]
    tag: str  # full weight tag of the source
    pretraining: str  # data, and what was learned from
    accuracy: float | None = None  # of the pretraining task. None = the card tells, or none applies
    accuracy_kind: str = ""
    params_m: float | None = None  # millions in the part that is used. None = the card tells
    size: int | None = None  # transformers: pixels that images are always resized to
    hooks: tuple[int, ...] = ()  # transformers: blocks whose output is tapped, from 1
    widths: tuple[int, ...] = ()  # transformers: channels of the reassembled maps
    note: str = ""  # how the protocol differs from the paper's
    listed: bool = True  # else any network of timm, whose form is found out when it is built


@dataclass(frozen=True)
class Entry:
    """A name of the table and its network in each zoo."""

    imagenet: Network
    lab: Network | None = None


@dataclass(frozen=True)
class BackboneInfo:
    """Facts about a backbone that are known without building it."""

    name: str
    label: str
    zoo: str
    weights: str  # the weight tag, "random", or a path
    pretraining: str
    family: str
    params_m: float | None
    accuracy: float | None
    accuracy_kind: str
    note: str


def _lite(number: int, tag: str, top1: float, params_m: float, note: str = "") -> Entry:
    label = f"EfficientNet-lite{number}"
    return Entry(
        Network(
            label, "EfficientNet-Lite", "timm", tag, _IMAGENET, top1, _TOP1, params_m, note=note
        ),
        Network(label, "EfficientNet-Lite", "lab", f"efficientnet_lite{number}", _LABELS),
    )


def of_timm(
    label: str,
    family: str,
    tag: str,
    pretraining: str,
    size: int | None = None,
    hooks: tuple[int, ...] = (),
    widths: tuple[int, ...] = (),
) -> Entry:
    """Return a row for a network of timm without a lab counterpart.

    Args:
        label: as tables show it.
        family: architecture; a metric whose network's family has a word in common is flagged.
        tag: timm's name with the tag of the weights.
        pretraining: data sets joined by ", then ", and after the last comma what was learned.
        size: transformers: pixels that images are resized to.
        hooks: transformers: the four blocks after which maps are taken, from 1.
        widths: transformers: channels of the four maps.
    """
    network = Network(
        label, family, "timm", tag, pretraining, size=size, hooks=hooks, widths=widths
    )
    return Entry(network)


_LABELS = "rendered scenes, labels"
_BASE_HOOKS = (3, 6, 9, 12)
_BASE_WIDTHS = (96, 192, 384, 768)
# Blocks and widths of transformers by size; widths are an eighth of the tokens' to all of it.
_TAPS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "small": (_BASE_HOOKS, (48, 96, 192, 384)),
    "base": (_BASE_HOOKS, _BASE_WIDTHS),
    "large": ((6, 12, 18, 24), (256, 512, 1024, 1024)),
}
_LAB_HOOKS = (1, 2, 3, 4)
_LAB_WIDTHS = (24, 48, 64, 64)

# Top-1 are timm's own numbers of spring 2021, which the paper's table quotes.
BACKBONES: dict[str, Entry] = {
    "efficientnet_lite0": _lite(
        0,
        "efficientnet_lite0.ra_in1k",
        75.484,
        2.959,
        "native weights and ImageNet statistics; lite1 to lite4 are tf_ conversions",
    ),
    "tf_efficientnet_lite0": Entry(
        Network(
            "EfficientNet-lite0 (tf)",
            "EfficientNet-Lite",
            "timm",
            "tf_efficientnet_lite0.in1k",
            _IMAGENET,
            74.83,
            _TOP1,
            2.959,
            note="the released code's default; the paper's table has timm's native lite0",
        )
    ),
    "efficientnet_lite1": _lite(1, "tf_efficientnet_lite1.in1k", 76.642, 3.724),
    "efficientnet_lite2": _lite(2, "tf_efficientnet_lite2.in1k", 77.468, 4.358),
    "efficientnet_lite3": _lite(3, "tf_efficientnet_lite3.in1k", 79.820, 6.422),
    "efficientnet_lite4": _lite(4, "tf_efficientnet_lite4.in1k", 81.536, 11.150),
    "resnet18": Entry(
        Network("ResNet18", "ResNet", "timm", "resnet18.tv_in1k", _IMAGENET, 69.748, _TOP1, 11.177),
        Network("ResNet18", "ResNet", "lab", "resnet18", _LABELS),
    ),
    "resnet50": Entry(
        # ram_in1k is the file that timm's plain `resnet50` was in spring 2021 (79.04).
        Network(
            "ResNet50", "ResNet", "timm", "resnet50.ram_in1k", _IMAGENET, 79.038, _TOP1, 23.508
        ),
        Network("ResNet50", "ResNet", "lab", "resnet50", _LABELS),
    ),
    "r50_clip": Entry(
        Network(
            "R50-CLIP",
            "CLIP ResNet",
            "open_clip",
            "RN50.openai",
            "OpenAI image-text pairs, captions",
            params_m=23.527,
        ),
        Network("R50-CLIP", "CLIP ResNet", "lab", "r50_clip", "rendered scenes, captions"),
    ),
    "deit": Entry(
        Network(
            "DeiT",
            "DeiT",
            "timm",
            "deit_base_distilled_patch16_384.fb_in1k",
            "ImageNet-1k, labels and a teacher",
            85.422,
            _TOP1,
            92.357,
            size=384,
            hooks=_BASE_HOOKS,
            widths=_BASE_WIDTHS,
        ),
        Network(
            "DeiT",
            "DeiT",
            "lab",
            "deit",
            "rendered scenes, labels and a teacher",
            size=64,
            hooks=_LAB_HOOKS,
            widths=_LAB_WIDTHS,
        ),
    ),
    "vit": Entry(
        Network(
            "ViT",
            "ViT",
            "timm",
            "vit_large_patch16_384.augreg_in21k_ft_in1k",
            "ImageNet-21k, then ImageNet-1k, labels",
            87.1,
            _TOP1,
            317.519,
            size=384,
            hooks=(6, 12, 18, 24),
            widths=(256, 512, 1024, 1024),
            note="protocol differs: the paper's weights (85.16) are no longer published by timm",
        ),
        Network(
            "ViT",
            "ViT",
            "lab",
            "vit",
            _LABELS,
            size=64,
            hooks=_LAB_HOOKS,
            widths=_LAB_WIDTHS,
        ),
    ),
    "deit_small": Entry(
        Network(
            "DeiT-small",
            "DeiT",
            "timm",
            "deit_small_distilled_patch16_224.fb_in1k",
            "ImageNet-1k, labels and a teacher",
            81.2,
            _TOP1,
            size=224,
            hooks=_BASE_HOOKS,
            widths=(48, 96, 192, 384),
            note="named in the paper's text; its table's numbers are deit's",
        )
    ),
    "vit_base": Entry(
        Network(
            "ViT-Base",
            "ViT",
            "timm",
            "vit_base_patch16_224.orig_in21k_ft_in1k",
            "ImageNet-21k, then ImageNet-1k, labels",
            81.786,
            _TOP1,
            size=224,
            hooks=_BASE_HOOKS,
            widths=_BASE_WIDTHS,
            note="named in the paper's text; its table's numbers are vit's",
        )
    ),
    # The author tried VGG for the reviewers; ResNets with torchvision's own weights.
    "vgg16": of_timm("VGG16", "VGG", "vgg16.tv_in1k", _IMAGENET),
    "vgg16_bn": of_timm("VGG16-BN", "VGG", "vgg16_bn.tv_in1k", _IMAGENET),
    "resnet34": of_timm("ResNet34", "ResNet", "resnet34.tv_in1k", _IMAGENET),
    "resnet50_tv": of_timm("ResNet50 (torchvision)", "ResNet", "resnet50.tv_in1k", _IMAGENET),
    "resnet101": of_timm("ResNet101", "ResNet", "resnet101.tv_in1k", _IMAGENET),
    "resnet152": of_timm("ResNet152", "ResNet", "resnet152.tv_in1k", _IMAGENET),
    # Beyond the paper.
    "convnext_tiny": of_timm("ConvNeXt-T", "ConvNeXt", "convnext_tiny.fb_in1k", _IMAGENET),
    "convnext_base": of_timm(
        "ConvNeXt-B", "ConvNeXt", "convnext_base.fb_in22k_ft_in1k",
        "ImageNet-21k, then ImageNet-1k, labels",
    ),
    **{
        f"dinov2_{size}": of_timm(
            f"DINOv2 ViT-{size[0].upper()}/14", "ViT", f"vit_{size}_patch14_dinov2.lvd142m",
            "LVD-142M, no labels", 224, *taps,
        )
        for size, taps in _TAPS.items()
    },
    **{
        f"dinov3_{size}": of_timm(
            f"DINOv3 ViT-{size[0].upper()}/16", "ViT", f"vit_{size}_patch16_dinov3.lvd1689m",
            "LVD-1689M, no labels", 256, *taps,
        )
        for size, taps in _TAPS.items()
    },
    "dinov3_convnext_tiny": of_timm(
        "DINOv3 ConvNeXt-T", "ConvNeXt", "convnext_tiny.dinov3_lvd1689m", "LVD-1689M, no labels"
    ),
    "eva02_base": of_timm(
        "EVA-02-B/14", "EVA ViT", "eva02_base_patch14_224.mim_in22k",
        "ImageNet-21k, masked CLIP features", 224, *_TAPS["base"],
    ),
    "siglip_base": of_timm(
        "SigLIP-B/16", "SigLIP ViT", "vit_base_patch16_siglip_224.webli", "WebLI, captions", 224,
        *_TAPS["base"],
    ),
    "clip_vit_base": of_timm(
        "CLIP ViT-B/16", "CLIP ViT", "vit_base_patch16_clip_224.openai",
        "OpenAI image-text pairs, captions", 224, *_TAPS["base"],
    ),
}  # fmt: skip


def check(cfg: Backbone) -> None:
    """Checks the names of a backbone's networks and weights, without building them.

    Raises:
        ConfigError: an unknown name, one that the zoo does not have, or one file for several.
    """
    networks = parts(cfg)
    for part in networks:
        find(part)
    named = ("pretrained", "random")
    a_path = re.search(r"[./\\]", cfg.weights) or Path(cfg.weights).exists()
    if cfg.weights not in named and not a_path:
        raise ConfigError(unknown("backbone.weights", cfg.weights, named) + " (or a file)")
    if len(networks) > 1 and cfg.weights not in named:
        raise ConfigError(
            f"backbone.weights={cfg.weights}: a file fits one network, and backbone.name="
            f"{cfg.name} is {len(networks)}; place each in the folder of weights under its tag"
        )
    random = cfg.weights == "random"
    meant = {drawn_as(p.name, find(p)) if random else find(p).tag for p in networks}
    if len(meant) < len(networks):
        raise ConfigError(f"backbone.name={cfg.name}: give networks that differ")


def find(cfg: Backbone) -> Network:
    """The one network that `cfg` names in its zoo.

    Raises:
        ConfigError: the name is unknown, or that zoo does not have it.
    """
    if cfg.name.startswith(ANY) and cfg.zoo == "imagenet":
        name = cfg.name.removeprefix(ANY)
        family = name.partition("_")[0].rstrip("0123456789") or name
        found = Network(name, family, "timm", name, "unknown (a network of timm)", listed=False)
        if row := same_as(name):
            listed = BACKBONES[row].imagenet
            found = replace(found, family=listed.family)
            if listed.tag == name:  # the very weights, and not others of its form
                found = replace(found, pretraining=listed.pretraining)
        return found
    if cfg.name not in BACKBONES:
        raise ConfigError(unknown("backbone", cfg.name, BACKBONES))
    entry = BACKBONES[cfg.name]
    if cfg.zoo == "imagenet":
        return entry.imagenet
    if entry.lab is None:
        known = ", ".join(sorted(name for name, e in BACKBONES.items() if e.lab is not None))
        raise ConfigError(f"Backbone {cfg.name!r} has no lab counterpart. Lab has: {known}")
    return entry.lab


def same_as(tag: str) -> str | None:
    """The row whose network a name of timm means: by its full tag, else by its architecture."""
    rows = {row: e.imagenet.tag for row, e in BACKBONES.items() if e.imagenet.source == "timm"}
    exact = (row for row, known in rows.items() if known == tag)
    alike = (row for row, known in rows.items() if _architecture(known) == _architecture(tag))
    return next(exact, None) or next(alike, None)


def drawn_as(name: str, network: Network) -> str:
    """Return the name that random weights follow from: one per network, however it was named.

    A row has its own; what timm calls by a row's name, with or without a tag of weights, is that
    row; the tag of any other says nothing of random weights.
    """
    if network.listed:
        return name
    return same_as(network.tag) or f"{ANY}{_architecture(network.tag)}"


def _architecture(tag: str) -> str:
    return tag.partition(".")[0]


TOGETHER = " + "  # joins the facts of several networks


def parts(cfg: Backbone) -> list[Backbone]:
    """The networks that a backbone is made of, `+` between their names; mostly one."""
    return [replace(cfg, name=name) for name in cfg.name.split("+")]


def shipped_name(name: str, pretrain_seed: int) -> str:
    """The name of a lab network's weights in the card and, with .safetensors, on disk."""
    return f"{name}-s{pretrain_seed}"


@cache
def _read_card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        card["networks"]
    except FileNotFoundError:
        return {"networks": {}}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged card of the lab weights ({reason(error)}); reinstall it"
        ) from None
    return card


def card_of(name: str, pretrain_seed: int) -> dict[str, Any] | None:
    """Return the card's entry for a shipped lab network; None = it has none."""
    found: dict[str, Any] | None
    found = _read_card(CARD)["networks"].get(shipped_name(name, pretrain_seed))
    return found


def describe(cfg: Backbone) -> BackboneInfo:
    """Return what tables and records show about the backbone `cfg`, without importing torch."""
    found = [_describe(part) for part in parts(cfg)]
    if len(found) == 1:
        return found[0]

    def joined(name: str) -> str:
        return TOGETHER.join(dict.fromkeys(str(getattr(info, name)) for info in found))

    millions = [info.params_m for info in found]
    return BackboneInfo(
        name=cfg.name,
        label=joined("label"),
        zoo=cfg.zoo,
        weights=joined("weights"),
        pretraining=joined("pretraining"),
        family=joined("family").replace(TOGETHER, " "),
        params_m=None if None in millions else sum(m for m in millions if m is not None),
        accuracy=None,
        accuracy_kind="",
        note="; ".join(info.note for info in found if info.note),
    )


def _describe(cfg: Backbone) -> BackboneInfo:
    network = find(cfg)
    card = (card_of(cfg.name, cfg.pretrain_seed) or {}) if cfg.zoo == "lab" else {}
    pretrained = cfg.weights == "pretrained"
    tag = shipped_name(cfg.name, cfg.pretrain_seed) if cfg.zoo == "lab" else network.tag
    pretraining = {"pretrained": network.pretraining, "random": "none (random weights)"}
    return BackboneInfo(
        name=cfg.name,
        label=network.label,
        zoo=cfg.zoo,
        weights=tag if pretrained else cfg.weights,
        pretraining=pretraining.get(cfg.weights, "unknown (weights from a file)"),
        family=network.family,
        params_m=card.get("params_m", network.params_m),
        accuracy=card.get("accuracy", network.accuracy) if pretrained else None,
        accuracy_kind=card.get("accuracy_kind", network.accuracy_kind) if pretrained else "",
        note=network.note,
    )
