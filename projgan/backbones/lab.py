"""The small networks that ship with the package: the paper's families at about a thirtieth.

They are built from timm's and open_clip's own classes, so that an adapter that serves the full-size
network serves its counterpart too. All see 64 px, give maps at strides 4/8/16/32, and keep their
level channels within 32/64/128/256, so that a CCM of 32/64/128/256 channels has full column rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.deit import VisionTransformerDistilled
from timm.models.efficientnet import EfficientNet
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 64  # pixels that every lab network sees
MEAN = STD = (0.5, 0.5, 0.5)
EMBED = 64  # width of the space that CLIP's images and captions share


def _lite(width: float, repeats: tuple[int, int, int, int, int]) -> Callable[[int], nn.Module]:
    """EfficientNet-Lite by width and depth: the family's stages, ReLU6, no squeeze-excite."""
    a, b, c, d, e = repeats
    stages = [
        ["ds_r1_k3_s1_e1_c16"],
        [f"ir_r{a}_k3_s2_e3_c24"],
        [f"ir_r{b}_k5_s2_e3_c40"],
        [f"ir_r{c}_k3_s2_e3_c80"],
        [f"ir_r{d}_k5_s1_e3_c112"],
        [f"ir_r{e}_k5_s2_e3_c192"],
        ["ir_r1_k3_s1_e3_c320"],
    ]

    def build(classes: int) -> nn.Module:
        return EfficientNet(
            block_args=decode_arch_def(stages),
            num_classes=classes,
            num_features=0,
            stem_size=16,
            fix_stem=True,
            round_chs_fn=partial(round_channels, multiplier=width),
            act_layer=nn.ReLU6,
            norm_layer=nn.BatchNorm2d,
        )

    return build


def _resnet(
    block: Any, layers: tuple[int, ...], channels: tuple[int, ...]
) -> Callable[[int], nn.Module]:
    """ResNet with timm's three-convolution stem: the 7x7 one is fixed at 64 channels there.

    The last norm of a block does not start at zero, so that random weights are a fair control.
    """

    def build(classes: int) -> nn.Module:
        return ResNet(
            block,
            layers,
            num_classes=classes,
            stem_type="deep",
            stem_width=8,
            channels=channels,
            zero_init_last=False,
        )

    return build


def modified_resnet(layers: list[int], width: int, embed: int, heads: int, size: int) -> nn.Module:
    """CLIP's image tower with the initialisation of timm's ResNet.

    open_clip leaves convolutions at torch's default, under which the features of random weights
    vanish from layer to layer, and starts the residual branches at zero.
    """
    from open_clip.modified_resnet import ModifiedResNet

    tower = ModifiedResNet(layers, embed, heads=heads, image_size=size, width=width)
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return tower


def _clip(classes: int) -> nn.Module:
    """Its head gives an embedding to compare with captions, so that `classes` says nothing."""
    return modified_resnet([2, 2, 4, 3], width=8, embed=EMBED, heads=4, size=SIZE)


def _vit(classes: int) -> nn.Module:
    return VisionTransformer(
        img_size=SIZE, patch_size=8, num_classes=classes, embed_dim=80, depth=4, num_heads=5
    )


def _deit(classes: int) -> nn.Module:
    return VisionTransformerDistilled(
        img_size=SIZE, patch_size=8, num_classes=classes, embed_dim=72, depth=4, num_heads=3
    )


# name -> classes -> the whole network with its head
LAB_NETWORKS: dict[str, Callable[[int], Any]] = {
    "efficientnet_lite0": _lite(0.4, (1, 1, 1, 1, 1)),
    "efficientnet_lite1": _lite(0.4, (1, 1, 2, 2, 1)),
    "efficientnet_lite2": _lite(0.45, (1, 1, 2, 2, 1)),
    "efficientnet_lite3": _lite(0.5, (1, 1, 2, 2, 1)),
    "efficientnet_lite4": _lite(0.55, (2, 2, 2, 2, 2)),
    "resnet18": _resnet(BasicBlock, (2, 2, 2, 2), (10, 20, 40, 80)),
    "resnet50": _resnet(Bottleneck, (2, 2, 4, 3), (8, 16, 32, 64)),
    "r50_clip": _clip,
    "deit": _deit,
    "vit": _vit,
}


def extractor_network() -> Any:
    """The metric's network, a RegNet: of none of the families that backbones come from."""
    return RegNet(
        RegNetCfg(depth=8, w0=24, wa=16.0, wm=2.0, group_size=8, stem_width=16), num_classes=0
    )


class ZeroShot(nn.Module):
    """An image tower and the embeddings of the classes' captions, as one classifier.

    Attributes:
        prompts: [classes, EMBED] unit vectors.
    """

    prompts: Tensor

    def __init__(self, tower: nn.Module, prompts: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("prompts", prompts)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, 64, 64] to cosine similarities [N, classes]."""
        return F.normalize(self.tower(images), dim=1) @ self.prompts.T


def classifier(name: str, state: dict[str, Tensor]) -> nn.Module:
    """A shipped network whole, with its head: normalised images [N, 3, 64, 64] to scores.

    Args:
        name: a key of LAB_NETWORKS.
        state: the tensors of its file, as float32.
    """
    if "prompts" in state:
        tower = LAB_NETWORKS[name](0)
        tower.load_state_dict({k: v for k, v in state.items() if k != "prompts"}, strict=False)
        return ZeroShot(tower, state["prompts"]).eval()
    head = next(k for k in ("classifier.bias", "fc.bias", "head.bias") if k in state)
    model = LAB_NETWORKS[name](len(state[head]))
    model.load_state_dict(state, strict=False)
    return model.eval()


def show(images: Tensor) -> Tensor:
    """Return the input of a lab network for images [N, 3, R, R] in [-1, 1]: the same at 64 px.

    Its statistics are 0.5, so that normalising changes nothing.
    """
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)
