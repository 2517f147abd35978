"""The network of the lab scale's metric (FD-lab): self-supervised, of a family of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from projgan.backbones.build import read_weights, shipped_file
from projgan.backbones.lab import extractor_network, show

NAME = "fd_lab"


def pooled(model: Any, images: Tensor) -> Tensor:
    """Means over the network's last two maps, side by side: [N, 3, 64, 64] to [N, dim]."""
    maps = model.forward_intermediates(images, indices=[3, 4], intermediates_only=True)
    return torch.cat([fmap.mean((2, 3)) for fmap in maps], 1)


class LabExtractor(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] to features float32 [N, dim].

    Each feature is centred and scaled by its mean and spread over rendered scenes, so that a
    distance between features does not hang on the few that vary most.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.dim = len(mean)
        self.requires_grad_(False)
        self.eval()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        shown = show(images.float()).contiguous(memory_format=torch.channels_last)
        return (pooled(self.model, shown) - self.mean) / self.std


def build_lab_extractor() -> LabExtractor:
    """The extractor with its shipped weights.

    Raises:
        DataError: the weights are missing or damaged.
    """
    return from_state(read_weights(shipped_file(NAME, 0), "install the package again"))


def from_state(state: dict[str, Tensor]) -> LabExtractor:
    """The extractor from the tensors of its file, as float32."""
    mean, std = state.pop("feature_mean"), state.pop("feature_std")
    model = extractor_network()
    model.load_state_dict(state, strict=False)
    return LabExtractor(model, mean, std)
