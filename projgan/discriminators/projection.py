"""Random projections of the feature maps: fixed, differentiable, never trained (Section 3.2).

Cross-channel mixing (CCM, 1x1 kernels) mixes the channels of each level. It loses nothing (full
column rank) where a level has no more channels than CCM gives out: so with the EfficientNets and
ResNet18; ResNet50, CLIP and the transformers at full size have more. Cross-scale mixing (CSM) then
walks from the deepest level to the shallowest and adds each result to the next level, in the form
of a U-Net's decoder; every level comes out at twice its resolution.

The accounts of CSM differ, and each is offered by name:

- `text`: one random 3x3 convolution per level, then bilinear upsampling, as the paper's text says.
- `author`: the author's description of the block: a residual 3x3 on the incoming skip (not at the
  deepest level), the sum, a residual 3x3 on the sum, bilinear upsampling, a 1x1 convolution.
- `released`: the sum, bilinear upsampling, a 1x1 convolution, as in the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from projgan import config
from projgan.speed import fast
from projgan.speed.merged import Linear2d, MergedLevel

LEVELS = 4  # maps of a feature network


def initialise(conv: nn.Conv2d, how: str) -> nn.Conv2d:
    """Draws a frozen convolution's weights.

    Args:
        how: "kaiming" (the paper: He normal, zero bias), "torch" (the released code: torch's
            default) or "rotation" (orthonormal rows or columns, zero bias).
    """
    if how == "kaiming":
        nn.init.kaiming_normal_(conv.weight)
    elif how == "rotation":
        nn.init.orthogonal_(conv.weight)
    if how != "torch" and conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class ResidualConv(nn.Module):
    """x + conv3x3(x), without activation: the projection stays linear."""

    def __init__(self, channels: int, init: str):
        super().__init__()
        self.conv = initialise(nn.Conv2d(channels, channels, 3, padding=1), init)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class CrossScaleBlock(nn.Module):
    """One level of CSM: this level's map and the deeper level's result -> a map twice the size."""

    def __init__(self, in_channels: int, out_channels: int, form: str, deepest: bool, init: str):
        super().__init__()
        self.form = form
        self.skip: nn.Module = nn.Identity()
        self.sum: nn.Module = nn.Identity()
        if form == "author":
            if not deepest:
                self.skip = ResidualConv(in_channels, init)
            self.sum = ResidualConv(in_channels, init)
        kernel = 3 if form == "text" else 1
        self.out = initialise(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), init
        )

    def forward(self, x: Tensor, deeper: Tensor | None) -> Tensor:
        x = self.skip(x)
        x = self.sum(x if deeper is None else x + deeper)
        if self.form == "text":
            return _double(self.out(x))
        result: Tensor = self.out(_double(x))
        return result

    def merged(self, ccm: nn.Conv2d, deepest: bool) -> MergedLevel:
        """This level and its cross-channel mixing with consecutive linear maps merged."""
        own, common = [Linear2d.of(ccm)], [Linear2d.of(self.out)]
        if isinstance(self.skip, ResidualConv):
            own.append(Linear2d.of(self.skip.conv, residual=True))
        if isinstance(self.sum, ResidualConv):
            common.insert(0, Linear2d.of(self.sum.conv, residual=True))
        return MergedLevel(own, common, deepest, self.out.weight)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class Projection(nn.Module):
    """Four feature maps -> four projected maps.

    Attributes:
        channels: channels of the projected maps, shallow to deep.
        scale: factor between the sizes of the projected maps and of the feature maps (1 or 2).
    """

    fast: frozenset[str] = fast.NONE

    def __init__(self, cfg: config.Projection, channels: tuple[int, ...]):
        super().__init__()
        self.kind = cfg.kind
        self.channels = tuple(channels)
        self.scale = 1
        if cfg.kind in ("ccm", "ccm_csm"):
            mixed = [cfg.channels * 2**level for level in range(len(channels))]
            self.ccm = nn.ModuleList(
                initialise(nn.Conv2d(i, o, 1), cfg.init)
                for i, o in zip(channels, mixed, strict=True)
            )
            self.channels = tuple(mixed)
        if cfg.kind == "ccm_csm":
            narrowed = [mixed[0], *mixed[:-1]]  # each level hands on the width of the level above
            deepest = len(mixed) - 1
            self.csm = nn.ModuleList(
                CrossScaleBlock(i, o, cfg.csm, level == deepest, cfg.init)
                for level, (i, o) in enumerate(zip(mixed, narrowed, strict=True))
            )
            self.channels = tuple(narrowed)
            self.scale = 2
        self.requires_grad_(False)
        self._merged: list[MergedLevel] | None = None  # made from the weights when first needed

    def _apply(self, *args: Any, **kwargs: Any) -> Projection:
        self._merged = None
        return super()._apply(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._merged = None
        return super().load_state_dict(*args, **kwargs)

    def mix_channels(self, maps: list[Tensor]) -> list[Tensor]:
        """CCM alone: each level's channels mixed; the maps themselves where there is no CCM."""
        if self.kind == "none":
            return maps
        return [conv(x) for conv, x in zip(self.ccm, maps, strict=True)]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """maps: four [N, C_l, H_l, W_l], shallow to deep -> four projected maps, likewise."""
        if self.kind == "ccm_csm" and "linear" in self.fast:
            if self._merged is None:
                pairs = list(zip(self.ccm, self.csm, strict=True))
                last = len(pairs) - 1
                self._merged = [
                    block.merged(ccm, level == last)  # type: ignore[operator]
                    for level, (ccm, block) in enumerate(pairs)
                ]
            return _descend(self._merged, maps)
        mixed = self.mix_channels(maps)
        return mixed if self.kind != "ccm_csm" else _descend(list(self.csm), mixed)


class Projections(nn.Module):
    """A projection for each of several feature networks, which are not mixed with each other."""

    def __init__(self, cfg: config.Projection, channels: tuple[int, ...]):
        super().__init__()
        groups = [channels[i : i + LEVELS] for i in range(0, len(channels), LEVELS)]
        self.each = nn.ModuleList(Projection(cfg, group) for group in groups)
        self.kind = cfg.kind
        self.channels = tuple(c for part in self._parts for c in part.channels)
        self.scale = self._parts[0].scale

    @property
    def _parts(self) -> list[Projection]:
        return [part for part in self.each if isinstance(part, Projection)]

    def mix_channels(self, maps: list[Tensor]) -> list[Tensor]:
        groups = enumerate(self._parts)
        return [x for i, p in groups for x in p.mix_channels(maps[LEVELS * i : LEVELS * (i + 1)])]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps of each network, one network after the other -> as many projected maps."""
        groups = enumerate(self._parts)
        return [x for i, p in groups for x in p(maps[LEVELS * i : LEVELS * (i + 1)])]


def _descend(blocks: Sequence[Callable[..., Tensor]], maps: list[Tensor]) -> list[Tensor]:
    """From the deepest level to the shallowest, each with the deeper one's result."""
    outputs: list[Tensor] = []
    deeper: Tensor | None = None
    for block, x in zip(reversed(blocks), reversed(maps), strict=True):
        deeper = block(x, deeper)
        outputs.insert(0, deeper)
    return outputs
