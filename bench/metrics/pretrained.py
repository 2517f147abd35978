"""Published networks of metrics beside Inception: VGG16, DINOv2, CLIP, SwAV and MobileNetV2.

Each is pinned to one file (`bench.metrics.weights`) and sees images at 224 pixels by the resize
that its metric's authors use; MobileNetV2 at 128, antialiased.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.metrics import weights
from bench.metrics.extractors import Extractor, Source, make_extractor
from bench.metrics.resize import cleanfid_resizer, tensorflow_bilinear
from bench.metrics.weights import find_weights
from projgan.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZE = 224
SIDE = SIZE // 14  # of DINOv2's grid of patches
MOBILENET_SIZE = 128
_FEW = 8  # images that MobileNetV2 sees at once
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def load_vgg16(source: Source) -> Extractor:
    """The second fully connected layer [B, 4096] after its ReLU: precision, recall and their kin.

    The network of Kynkäänniemi et al. (2019), with torchvision's weights and TensorFlow's bilinear
    resize, as torch-fidelity has it.
    """
    from torch import nn
    from torchvision.models import vgg16

    path = find_weights("vgg16", source.weights_dir)
    network = vgg16(weights=None)
    network.classifier = nn.Sequential(*list(network.classifier)[:5])
    _fill(network, path, _read(path))
    normalise = _normaliser(*_IMAGENET, source)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(normalise(tensorflow_bilinear(images.float(), SIZE)))}

    return make_extractor("vgg16", network, source, forward)


def load_dinov2(source: Source) -> Extractor:
    """The class token [B, 1024] of DINOv2 ViT-L/14: FD-DINOv2 (Stein et al., NeurIPS 2023)."""
    import timm

    path = find_weights("dinov2", source.weights_dir)
    network = timm.create_model(
        weights.DINOV2, pretrained=False, num_classes=0, img_size=SIZE, global_pool="token"
    )
    state = _read(path)
    if "pos_embed" in state:  # published for 518 px
        from timm.layers.pos_embed import resample_abs_pos_embed

        state["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"],
            [SIDE, SIDE],
            num_prefix_tokens=network.num_prefix_tokens,
        )
    _fill(network, path, state)
    return _of_224_pixels(f"dinov2-{weights.DINOV2}", network, source, *_IMAGENET)


def load_clip(source: Source) -> Extractor:
    """The image embedding [B, 512] of CLIP ViT-B/32: FD-CLIP (Kynkäänniemi et al., ICLR 2023).

    Resized and rounded to 8 bits as clean-fid's CLIP mode does.
    """
    import open_clip

    path = find_weights("clip", source.weights_dir)
    network = open_clip.create_model(weights.CLIP.partition(".")[0], pretrained=None).visual
    # The tower for texts has tensors of the same names, without the prefix.
    towers = _read(path)
    state = {n.removeprefix("visual."): t for n, t in towers.items() if n.startswith("visual.")}
    _fill(network, path, state or towers)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return _of_224_pixels(f"clip-{weights.CLIP}", network, source, mean, std, in_8_bits=True)


def load_swav(source: Source) -> Extractor:
    """The pooled last map [B, 2048] of SwAV's ResNet50: FD-SwAV (Morozov et al., ICLR 2021)."""
    from torch import nn
    from torchvision.models import resnet50

    path = find_weights("swav", source.weights_dir)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    _fill(network, path, {n.removeprefix("module."): t for n, t in _read(path).items()})
    return _of_224_pixels("swav", network, source, *_IMAGENET)


def load_mobilenet(source: Source) -> Extractor:
    """The pooled last map [B, 1280] of MobileNetV2 as a package brings it, of images at 128 px.

    Small photographs are told apart as well at 128 px as at 224, at a third of the work.
    """
    import timm
    import torch
    from torch.nn import functional as F

    from projgan.backbones.build import in_order

    path = find_weights("mobilenet", source.weights_dir)
    network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=0)
    _fill(network, path, in_order(_read(path), network.state_dict(), path.name))
    network.to(memory_format=torch.channels_last)
    normalise = _normaliser(*_IMAGENET, source)
    size = (MOBILENET_SIZE, MOBILENET_SIZE)

    def forward(images: Tensor) -> dict[str, Tensor]:
        shown = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        shown = normalise(shown).contiguous(memory_format=torch.channels_last)
        # Few at a time: on a CPU large maps cost more in memory than in arithmetic.
        return {"": torch.cat([network(part) for part in shown.split(_FEW)])}

    return make_extractor(f"mobilenet-{MOBILENET_SIZE}", network, source, forward)


def _of_224_pixels(
    name: str, network: nn.Module, source: Source, mean: Any, std: Any, in_8_bits: bool = False
) -> Extractor:
    """A network that sees images at 224 px, resized as clean-fid does, by its single output."""
    resized = cleanfid_resizer("PIL", "bicubic", SIZE, in_8_bits)
    normalise = _normaliser(mean, std, source)
    return make_extractor(name, network, source, lambda x: {"": network(normalise(resized(x)))})


def _read(path: Path) -> dict[str, Tensor]:
    from projgan.backbones.build import read_weights

    return read_weights(path, "delete it and place it there again")


def _fill(network: nn.Module, path: Path, state: dict[str, Tensor]) -> None:
    """Copies the tensors that the network has; a head that it has not is ignored.

    Raises:
        DataError: a tensor is missing or has another shape.
    """
    own = network.state_dict()
    wanted = [n for n in own if not n.endswith("num_batches_tracked")]
    wrong = [n for n in wanted if n not in state or state[n].shape != own[n].shape]
    if wrong:
        raise DataError(
            f"{path}: weights of another network ({len(wrong)} of {len(wanted)} tensors missing or "
            f"of another shape, first {wrong[0]}); replace it"
        )
    network.load_state_dict({n: state[n] for n in wanted}, strict=False)


def _normaliser(mean: Any, std: Any, source: Source) -> Callable[[Tensor], Tensor]:
    """For images of 0 to 255."""
    import torch

    shift, scale = (
        255.0 * torch.tensor(v, device=source.device).view(1, 3, 1, 1) for v in (mean, std)
    )
    return lambda images: (images - shift) / scale
