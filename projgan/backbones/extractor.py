"""The network of the lab scale's metric (FD-lab): self-supervised, of a family of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from projgan.backbones.build import read_weights, shipped_file
from projgan.backbones.lab import extractor_network, show

NAME = "fd_lab"


class LabExtractor(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] to features float32 [N, dim], pooled over the last map."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.dim: int = model.num_features
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model(show(images.float()))
        return features


def build_lab_extractor() -> LabExtractor:
    """The extractor with its shipped weights.

    Raises:
        DataError: the weights are missing or damaged.
    """
    model = extractor_network()
    state = read_weights(shipped_file(NAME, 0), "install the package again")
    model.load_state_dict(state, strict=False)
    return LabExtractor(model)
