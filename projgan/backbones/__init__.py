"""Frozen feature networks: one table of names, two zoos, one contract (four maps).

`registry` is free of torch; building a network imports torch, timm or open_clip on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from projgan.backbones.registry import BACKBONES, BackboneInfo, Entry, Network, describe

if TYPE_CHECKING:
    from projgan.backbones.network import FeatureNetwork, FeatureNetworks
    from projgan.config import Backbone

__all__ = ["BACKBONES", "BackboneInfo", "Entry", "Network", "build_backbone", "describe"]


def build_backbone(cfg: Backbone, resolution: int) -> FeatureNetwork | FeatureNetworks:
    """The frozen feature network that `cfg` names, for images of `resolution` pixels.

    Args:
        cfg: which network, zoo and weights.
        resolution: side of the images it will be shown; decides whether they are resized.

    Returns:
        A module from images [N, 3, R, R] in [-1, 1] to four maps, shallow to deep; where several
        are named, `+` between them, to four of each.

    Raises:
        ConfigError: the name is unknown or the zoo does not have it.
        DataError: the weights are missing, damaged, or belong to another network.
    """
    from projgan.backbones.build import build

    return build(cfg, resolution)
