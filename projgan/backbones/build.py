"""From a name in the table to a frozen network with the weights that were asked for."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projgan.backbones import registry
from projgan.backbones.network import STRIDES, FeatureNetwork, FeatureNetworks, Trunk
from projgan.backbones.registry import Network
from projgan.backbones.trunks import ClipTrunk, CnnTrunk, VitTrunk
from projgan.config import Backbone
from projgan.errors import ConfigError, DataError, unknown
from projgan.files import sha256_of
from projgan.weights import EXTRA, PACKAGES, installed, placed, weights_dir

State = dict[str, Tensor]
OF_A_ROW = "; or set backbone.weights=PATH for that row alone (only=LABEL)"
SMALLEST = 224  # images below this are shown at this to the full-size networks (released code)


def build(cfg: Backbone, resolution: int) -> FeatureNetwork | FeatureNetworks:
    """See `projgan.backbones.build_backbone`."""
    registry.check(cfg)
    built = [_build(part, resolution) for part in registry.parts(cfg)]
    return built[0] if len(built) == 1 else FeatureNetworks(built)


def _build(cfg: Backbone, resolution: int) -> FeatureNetwork:
    network = resolve(registry.find(cfg))
    size = input_size(network, cfg, resolution)
    trunk = build_trunk(network, cfg.name, cfg.pretrain_seed, size)
    if cfg.weights == "random":
        return FeatureNetwork(trunk, size)

    info = registry.describe(cfg)
    accuracy, kind = info.accuracy, info.accuracy_kind
    if cfg.weights != "pretrained":
        path, how = Path(cfg.weights), "give backbone.weights another file"
        origin = "backbone.weights"
        if not path.is_file():
            raise DataError(f"backbone.weights={path}: no such file; give a .safetensors or .bin")
    elif network.source == "lab":
        path, how = shipped_file(cfg.name, cfg.pretrain_seed), "install the package again"
        origin = "shipped"
    else:
        path, origin = fetch(network)
        how = "delete it, and it is fetched again"
    what = f"{path.name} for {cfg.name} ({cfg.zoo})"
    state = read_weights(path, how)
    if network.tag in PACKAGES and origin == PACKAGES[network.tag].origin:
        import timm

        with torch.device("meta"):
            whole = timm.create_model(network.tag, pretrained=False).state_dict()
        state = in_order(state, whole, what)
    load_trunk(trunk, state, what, how)
    return FeatureNetwork(trunk, size, accuracy, kind, sha256_of(path), origin)


def resolve(network: Network) -> Network:
    """A network of timm that the table does not list, with what timm knows of its form.

    Transformers are tapped after every quarter of their blocks, and see their own size.

    Raises:
        ConfigError: timm does not have it, or it has neither maps nor tokens to tap.
    """
    if network.listed:
        return network
    import timm

    try:
        pretrained = timm.get_pretrained_cfg(network.tag)
        with torch.device("meta"):
            model: Any = timm.create_model(network.tag, pretrained=False, num_classes=0)
    except Exception:  # timm's own, of whatever it stumbles over
        known = timm.list_models(pretrained=True)
        raise ConfigError(unknown("network of timm", network.tag, known)[:200]) from None
    assert pretrained is not None
    tag = ".".join(filter(None, (pretrained.architecture, pretrained.tag)))
    size = pretrained.input_size[-1] if pretrained.fixed_input_size else None
    if {info["reduction"] for info in getattr(model, "feature_info", [])} >= set(STRIDES):
        return replace(network, tag=tag, size=size)
    blocks = len(getattr(model, "blocks", ()))
    if blocks < 4 or not hasattr(model, "patch_embed"):
        raise ConfigError(
            f"backbone.name={registry.ANY}{network.tag}: {type(model).__name__} has neither maps "
            "at strides 4 to 32 nor a transformer's blocks; choose another network"
        )
    hooks = tuple(blocks * i // 4 for i in (1, 2, 3, 4))
    widths = tuple(model.embed_dim // d for d in (8, 4, 2, 1))
    return replace(network, tag=tag, size=size or SMALLEST, hooks=hooks, widths=widths)


def input_size(network: Network, cfg: Backbone, resolution: int) -> int:
    """Pixels that images are resized to: the rule of the zoo, unless the config says otherwise.

    Lab networks see 64 px. Of the full-size ones, transformers always see their own size; the
    others see images as they are, from 224 px.
    """
    if cfg.input_size is not None:
        return cfg.input_size
    if network.source == "lab":
        return 64
    return network.size or max(resolution, SMALLEST)


def build_trunk(network: Network, name: str, pretrain_seed: int, size: int) -> Trunk:
    """The truncated network with random weights, which depend on the network and pretraining seed
    alone, and not on which of its names it was called by.

    Random weights are the classes' own initialisation with batch-norm statistics as they start:
    the plain control, with no residual branch switched off by a zero scale.
    """
    drawn_as = registry.drawn_as(name, network)
    seed = zlib.crc32(f"{drawn_as} {network.source} {pretrain_seed}".encode())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = _construct(network, name, size)
    if isinstance(trunk, VitTrunk):
        init_reassemble(trunk, seed)
    return trunk


def _construct(network: Network, name: str, size: int) -> Trunk:
    if network.source == "lab":
        from projgan.backbones.lab import LAB_NETWORKS, MEAN, STD

        model: Any = LAB_NETWORKS[name](0)
        if network.hooks:
            if size != network.size:
                model.set_input_size(img_size=size)
            return VitTrunk(model, MEAN, STD, network.hooks, network.widths)
        return (ClipTrunk if network.family == "CLIP ResNet" else CnnTrunk)(model, MEAN, STD)
    if network.source == "open_clip":
        import open_clip

        from projgan.backbones.lab import modified_resnet

        config = open_clip.get_model_config(network.tag.partition(".")[0])
        vision, embed = config["vision_cfg"], config["embed_dim"]
        width = vision["width"]
        heads = width * 32 // 64  # 64 channels a head, as open_clip counts them
        tower = modified_resnet(vision["layers"], width, embed, heads, vision["image_size"])
        return ClipTrunk(tower, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)

    import timm

    options: dict[str, Any] = {"num_classes": 0}
    if network.hooks:
        options["img_size"] = size
    if network.family == "ResNet":
        options["zero_init_last"] = False
    model = timm.create_model(network.tag, pretrained=False, **options)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    if network.hooks:
        return VitTrunk(model, mean, std, network.hooks, network.widths)
    return CnnTrunk(model, mean, std)


def init_reassemble(trunk: VitTrunk, seed: int) -> None:
    """Draws the reassembling weights (Kaiming, no bias) from `seed` alone, not from the run's."""
    generator = torch.Generator().manual_seed(seed)
    for module in trunk.reassemble.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
            # A transposed convolution whose kernel equals its stride sums over input channels.
            up = isinstance(module, nn.ConvTranspose2d)
            fan = module.in_channels if up else module.weight[0].numel()
            with torch.no_grad():
                module.weight.normal_(0.0, fan**-0.5, generator=generator)
                assert module.bias is not None
                module.bias.zero_()


def shipped_file(name: str, pretrain_seed: int) -> Path:
    """The lab weights' file, checked against the card's hash.

    Raises:
        DataError: it is missing, or is not the file that the card describes.
    """
    card = registry.card_of(name, pretrain_seed)
    path = registry.WEIGHTS / f"{registry.shipped_name(name, pretrain_seed)}.safetensors"
    if card is None or not path.is_file():
        raise DataError(
            f"{path.name}: these lab weights do not ship (pretraining seeds are 0 and 1); "
            f"make them with python -m projgan.pretrain {name} --seeds {pretrain_seed}"
        )
    if sha256_of(path) != card["sha256"]:
        raise DataError(f"{path}: damaged (its hash is not the card's); install the package again")
    return path


def read_weights(path: Path, how: str) -> State:
    """Tensors of a .safetensors file, or of a torch file that holds tensors alone, as float32.

    Raises:
        DataError: the file cannot be read as either.
    """
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        if path.suffix == ".safetensors":
            state = load(data)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    except pickle.UnpicklingError:
        reason = "not a file of tensors alone"
    except Exception as error:  # whatever a damaged file makes the two readers stumble over
        reason = _first_line(error)
    raise DataError(f"{path}: not readable as weights ({reason}); {how}")


def load_trunk(trunk: Trunk, state: State, what: str, how: str) -> None:
    """Copies into the trunk every tensor it has; the head and whatever else is there is ignored.

    Raises:
        DataError: a tensor is missing or has another shape.
    """
    own = trunk.model.state_dict()
    state = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
    if isinstance(trunk, VitTrunk) and "pos_embed" in state:
        state["pos_embed"] = _resized(state["pos_embed"], trunk)
    wanted = {n for n in own if not n.endswith("num_batches_tracked")}
    missing = sorted(n for n in wanted if n not in state)
    wrong = sorted(n for n in wanted if n in state and state[n].shape != own[n].shape)
    if missing or wrong:
        count = f"{len(missing)} of {len(wanted)} tensors missing, {len(wrong)} of another shape"
        raise DataError(
            f"{what}: weights of another network ({count}; first {(missing or wrong)[0]}); {how}"
        )
    trunk.model.load_state_dict({n: state[n] for n in wanted}, strict=False)


def in_order(state: State, own: Mapping[str, Tensor], what: str) -> State:
    """The tensors of a network under the names that it has here, matched by their order.

    Args:
        state: under other names.
        own: the network's own, of which names and shapes are looked at.
        what: the file, for the message.

    Raises:
        DataError: their number or any shape differs.
    """
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    tensors = [t for name, t in state.items() if not name.endswith("num_batches_tracked")]
    if [own[name].shape for name in names] != [t.shape for t in tensors]:
        raise DataError(f"{what}: weights of another network (other tensors, or another order)")
    return dict(zip(names, tensors, strict=True))


def _resized(pos_embed: Tensor, trunk: VitTrunk) -> Tensor:
    """A position embedding brought to the trunk's patch grid, where it is another one."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    own = trunk.model.pos_embed
    if pos_embed.shape == own.shape or pos_embed.ndim != 3:
        return pos_embed
    prefix = trunk.model.num_prefix_tokens
    grid = trunk.model.patch_embed.grid_size
    old = round((pos_embed.shape[1] - prefix) ** 0.5)
    if old * old + prefix != pos_embed.shape[1]:
        return pos_embed
    resized: Tensor = resample_abs_pos_embed(
        pos_embed, list(grid), [old, old], num_prefix_tokens=prefix, interpolation="bilinear"
    )
    return resized


def hub_file(network: Network) -> tuple[str, str]:
    """Repository and file name of the published weights."""
    if network.source == "open_clip":
        import open_clip

        arch, _, tag = network.tag.partition(".")
        repository = open_clip.get_pretrained_cfg(arch, tag)["hf_hub"].rstrip("/")
        return repository, "open_clip_model.safetensors"
    return f"timm/{network.tag}", "model.safetensors"


def fetch(network: Network, other_remedy: str = OF_A_ROW) -> tuple[Path, str]:
    """The published weights: placed by hand, of a package, from the hub's cache or the network.

    Args:
        other_remedy: ends the message where they are not to be had.

    Returns:
        The file, and where it is from as records say it.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import logging as chatter

    if (path := placed(network.tag)) is not None:
        return path, "placed by hand"
    if (path := installed(network.tag)) is not None:
        return path, PACKAGES[network.tag].origin
    repository, name = hub_file(network)
    verbosity = chatter.get_verbosity()
    chatter.set_verbosity_error()  # without a network it tells of every retry
    try:
        return Path(hf_hub_download(repository, name)), f"hub {repository}"
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        by_pip = f"{EXTRA} brings it; or " if network.tag in PACKAGES else ""
        raise DataError(
            f"Weights {network.tag!r} cannot be fetched ({_first_line(error)}): {by_pip}get {name}"
            f" of {repository} elsewhere and place it as"
            f" {weights_dir() / network.tag}{Path(name).suffix}, or let"
            f" `hf download {repository} {name}` fill a cache elsewhere"
            f" and copy it to {constants.HF_HUB_CACHE}{other_remedy}"
        ) from None
    finally:
        chatter.set_verbosity(verbosity)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__
