"""A frozen feature network by contract: images in, four maps out, shallow to deep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (4, 8, 16, 32)


class Trunk(nn.Module):
    """The part of a network that is used: normalised images to four maps at strides 4/8/16/32.

    Attributes:
        channels: of the four maps.
        mean, std: statistics of the inputs the network was trained on, for images in [0, 1].
        uncounted: parameters that the paper's count leaves out (tokens, position embedding).
    """

    channels: tuple[int, int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    strides: tuple[float, ...] = STRIDES  # of the maps, relative to the resized image
    uncounted: tuple[str, ...] = ()
    model: Any  # timm's or open_clip's; its attributes are not typed


class FeatureNetwork(nn.Module):
    """A trunk that never learns: frozen, always in eval mode, with gradients reaching its input.

    Section 3.1 of the paper. It takes generator-range images, resizes them where its rule says so
    and normalises them with its own statistics.

    Attributes:
        channels, strides: of the four maps; strides are relative to the resized image.
        mean, std: what inputs in [0, 1] are normalised with.
        input_size: pixels that images are resized to.
        params_m: millions of parameters in the trunk, counted as in Table 2.
        accuracy, accuracy_kind: on the pretraining task, as far as known.
        weights_sha256: of the weights' file; "" for random weights.
        weights_from: where that file is from: shipped, a package, a hub, placed by hand.
        layout: memory format that the trunk gets its images in.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(
        self,
        trunk: Trunk,
        input_size: int,
        accuracy: float | None = None,
        accuracy_kind: str = "",
        weights_sha256: str = "",
        weights_from: str = "",
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.channels = trunk.channels
        self.strides = trunk.strides
        self.mean, self.std = trunk.mean, trunk.std
        self.input_size = input_size
        self.params_m = count_params(trunk) / 1e6
        self.accuracy = accuracy
        self.accuracy_kind = accuracy_kind
        self.weights_sha256, self.weights_from = weights_sha256, weights_from
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.std).view(1, 3, 1, 1)
        # (0.5 x + 0.5 - mean) / std in one multiplication and one addition.
        self.register_buffer("_scale", 0.5 / std, persistent=False)
        self.register_buffer("_shift", (0.5 - mean) / std, persistent=False)
        self.requires_grad_(False)
        self.eval()
        # Small convolutions are two to three times faster on a CPU in this layout.
        self.layout = torch.channels_last
        self.to(memory_format=self.layout)

    @property
    def networks(self) -> list[FeatureNetwork]:
        """This one; of several together each."""
        return [self]

    @property
    def map_sizes(self) -> list[int]:
        """Pixels of each map's side."""
        return [int(self.input_size / stride) for stride in self.strides]

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stays in eval mode whatever is asked: the statistics of its norms are frozen too."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Four feature maps, shallow to deep.

        Args:
            images: [N, 3, R, R] float in [-1, 1].

        Returns:
            Four maps [N, channels[i], S / strides[i], S / strides[i]] with S = input_size.
        """
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        images = images * self._scale + self._shift
        maps: list[Tensor] = self.trunk(images.contiguous(memory_format=self.layout))
        return maps


class FeatureNetworks(nn.Module):
    """Several feature networks side by side: the maps of each, one after the other.

    Attributes:
        as those of a FeatureNetwork; channels and strides are those of all, `input_size` is the
        largest.
    """

    accuracy = None
    accuracy_kind = ""

    def __init__(self, networks: list[FeatureNetwork]) -> None:
        super().__init__()
        self.each = nn.ModuleList(networks)
        self.channels = tuple(c for network in networks for c in network.channels)
        self.strides = tuple(s for network in networks for s in network.strides)
        self.input_size = max(network.input_size for network in networks)
        self.params_m = sum(network.params_m for network in networks)
        self.weights_sha256 = " + ".join(filter(None, (n.weights_sha256 for n in networks)))
        self.weights_from = " + ".join(filter(None, (n.weights_from for n in networks)))
        self.mean = tuple(network.mean for network in networks)
        self.std = tuple(network.std for network in networks)

    @property
    def networks(self) -> list[FeatureNetwork]:
        return [network for network in self.each if isinstance(network, FeatureNetwork)]

    @property
    def map_sizes(self) -> list[int]:
        return [size for network in self.networks for size in network.map_sizes]

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of every network; images as a FeatureNetwork takes them."""
        return [fmap for network in self.networks for fmap in network(images)]


def count_params(trunk: Trunk) -> int:
    """Parameters of the truncated network as Table 2 counts them."""
    return sum(
        p.numel()
        for name, p in trunk.named_parameters()
        if not name.rpartition(".")[2].startswith(trunk.uncounted or ("\0",))
    )
