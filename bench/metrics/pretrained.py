"""Published networks of metrics beside Inception: VGG16, DINOv2, CLIP, SwAV and MobileNetV2.

Each is pinned to one file (`bench.metrics.weights`) and sees images at 224 pixels by the resize
that its metric's authors use; MobileNetV2 at 128, antialiased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.metrics import weights
from bench.metrics.extractors import Extractor, Source, make_extractor
from bench.metrics.resize import cleanfid_resizer, tensorflow_bilinear
from bench.metrics.weights import find_weights
from projgan.config import Backbone
from projgan.errors import ConfigError, DataError, unknown
from projgan.weights import PACKAGES

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]

SIZE = 224
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

    network = vgg16(weights=None)
    network.classifier = nn.Sequential(*list(network.classifier)[:5])
    _fill(network, "vgg16", source)
    normalise = _normaliser(*_IMAGENET, source)

    def forward(images: Tensor) -> dict[str, Tensor]:
        return {"": network(normalise(tensorflow_bilinear(images.float(), SIZE)))}

    return make_extractor("vgg16", network, source, forward)


def load_dinov2(source: Source) -> Extractor:
    """The class token [B, 1024] of DINOv2 ViT-L/14: FD-DINOv2 (Stein et al., NeurIPS 2023)."""
    import timm

    network = timm.create_model(
        weights.DINOV2, pretrained=False, num_classes=0, img_size=SIZE, global_pool="token"
    )
    _fill(network, "dinov2", source, _positions_for(network))
    return _of_pixels(f"dinov2-{weights.DINOV2}", network, source, *_IMAGENET)


def load_clip(source: Source) -> Extractor:
    """The image embedding [B, 512] of CLIP ViT-B/32: FD-CLIP (Kynkäänniemi et al., ICLR 2023).

    Resized and rounded to 8 bits as clean-fid's CLIP mode does.
    """
    import open_clip

    network = open_clip.create_model(weights.CLIP.partition(".")[0], pretrained=None).visual

    def image_tower(towers: State) -> State:
        """That for texts has tensors of the same names, without the prefix."""
        own = {n.removeprefix("visual."): t for n, t in towers.items() if n.startswith("visual.")}
        return own or towers

    _fill(network, "clip", source, image_tower)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return _of_pixels(f"clip-{weights.CLIP}", network, source, mean, std, in_8_bits=True)


def load_swav(source: Source) -> Extractor:
    """The pooled last map [B, 2048] of SwAV's ResNet50: FD-SwAV (Morozov et al., ICLR 2021)."""
    from torch import nn
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    _fill(network, "swav", source,
          lambda state: {n.removeprefix("module."): t for n, t in state.items()})  # fmt: skip
    return _of_pixels("swav", network, source, *_IMAGENET)


def load_mobilenet(source: Source) -> Extractor:
    """The pooled last map [B, 1280] of MobileNetV2 as a package brings it, of images at 128 px.

    Small photographs are distinguished as well at 128 px as at 224, at a third of the work.
    """
    import timm
    import torch
    from torch.nn import functional as F

    from projgan.backbones.build import in_order

    network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=0)
    _fill(network, "mobilenet", source,
          lambda state: in_order(state, network.state_dict(), "mobilenet"))  # fmt: skip
    network.to(memory_format=torch.channels_last)
    normalise = _normaliser(*_IMAGENET, source)
    size = (MOBILENET_SIZE, MOBILENET_SIZE)

    def forward(images: Tensor) -> dict[str, Tensor]:
        shown = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        shown = normalise(shown).contiguous(memory_format=torch.channels_last)
        # Few at a time: on a CPU large maps cost more in memory than in arithmetic.
        return {"": torch.cat([network(part) for part in shown.split(_FEW)])}

    return make_extractor(f"mobilenet-{MOBILENET_SIZE}", network, source, forward)


def load_timm(source: Source) -> Extractor:
    """What a network of timm gives before its classifier, as it was published.

    Images are resized as clean-fid does, bicubic, to the network's own size or that of the row. Of
    CLIP it is the image embedding.

    Raises:
        ConfigError: timm does not have it.
    """
    import timm

    from projgan.backbones import build, registry

    assert source.info is not None
    network = registry.find(Backbone(source.info.network, zoo="imagenet"))
    tag = network.tag
    try:
        known = timm.get_pretrained_cfg(tag)
    except Exception:  # timm's own
        known = None
    if known is None:
        raise ConfigError(unknown("network of timm", tag, timm.list_models(pretrained=True))[:200])
    tag = ".".join(filter(None, (known.architecture, known.tag)))
    size = source.info.size or known.input_size[-1]
    options: dict[str, Any] = {} if "clip" in tag else {"num_classes": 0}
    if known.fixed_input_size:
        options["img_size"] = size
    model = timm.create_model(tag, pretrained=False, **options)
    if not source.random:
        path, origin = build.fetch(replace(network, tag=tag), "")
        state = _positions_for(model)(_read(path))
        if tag in PACKAGES and origin == PACKAGES[tag].origin:
            whole = timm.create_model(tag, pretrained=False).state_dict()
            state = build.in_order(state, whole, path.name)
        _copy(model, path, state)
    return _of_pixels(f"timm-{tag}", model, source, known.mean, known.std, size=size)


def _of_pixels(
    name: str,
    network: nn.Module,
    source: Source,
    mean: Any,
    std: Any,
    in_8_bits: bool = False,
    size: int = SIZE,
) -> Extractor:
    """A network that sees images at `size` px, resized as clean-fid does, by its single output."""
    resized = cleanfid_resizer("PIL", "bicubic", size, in_8_bits)
    normalise = _normaliser(mean, std, source)
    identity = name if size == SIZE else f"{name}-{size}"
    return make_extractor(identity, network, source, lambda x: {"": network(normalise(resized(x)))})


def _positions_for(network: Any) -> Callable[[State], State]:
    """Brings positional embeddings of another size to the grid of this vision transformer."""

    def fitted(state: State) -> State:
        own = getattr(network, "pos_embed", None)
        if own is None or "pos_embed" not in state or state["pos_embed"].shape == own.shape:
            return state
        from timm.layers.pos_embed import resample_abs_pos_embed

        prefix = network.num_prefix_tokens
        with_prefix = not getattr(network, "no_embed_class", False)
        grid = network.patch_embed.grid_size
        new = resample_abs_pos_embed(
            state["pos_embed"], list(grid), num_prefix_tokens=prefix if with_prefix else 0
        )
        return state | {"pos_embed": new}

    return fitted


def _read(path: Path) -> State:
    from projgan.backbones.build import read_weights

    return read_weights(path, "delete it and place it there again")


def _fill(
    network: nn.Module,
    extractor: str,
    source: Source,
    adapt: Callable[[State], State] = lambda state: state,
) -> None:
    """Copies a file's tensors into a network, or leaves it as it was drawn.

    Args:
        extractor: a row of `bench.metrics.weights.FILES`.
        adapt: gives the file's tensors the names that the network has.
    """
    if not source.random:
        path = find_weights(extractor, source.weights_dir)
        _copy(network, path, adapt(_read(path)))


def _copy(network: nn.Module, path: Path, state: State) -> None:
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
    """Return a function that normalises images of 0 to 255."""
    import torch

    shift, scale = (
        255.0 * torch.tensor(v, device=source.device).view(1, 3, 1, 1) for v in (mean, std)
    )
    return lambda images: (images - shift) / scale
