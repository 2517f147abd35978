"""The network of the lab scale's metric (FD-lab): self-supervised, of a family of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from projgan.backbones.build import read_weights, shipped_file
from projgan.backbones.lab import extractor_network, show
from projgan.errors import DataError

NAME = "fd_lab"


class LabExtractor(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] to features float32 [N, dim], pooled over the last map."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.dim: int = model.num_features
        self.requires_grad_(False)
        self.eval()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        shown = show(images.float()).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.model(shown)
        return features


def build_lab_extractor() -> LabExtractor:
    """The extractor with its shipped weights.

    Raises:
        DataError: the weights are missing or damaged.
    """
    return from_state(read_weights(shipped_file(NAME, 0), "install the package again"))


def from_state(state: dict[str, Tensor]) -> LabExtractor:
    """The extractor from the tensors of its file, as float32."""
    model = extractor_network()
    odd = model.load_state_dict(state, strict=False)
    missing = [name for name in odd.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or odd.unexpected_keys:
        raise DataError(f"{NAME}: weights of another network; install the package again")
    return LabExtractor(model)
