"""The networks of metrics: those that ship, their precision, and Inception as clean-fid has it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frechet_of_features import features_to_frechet
from made_images import CPU, Images, draw, make
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bench.cli.score import measure
from bench.metrics import extractors, resize
from bench.metrics import weights as files
from bench.metrics.evaluate import evaluate
from bench.metrics.extractors import EXTRACTORS, Source
from bench.metrics.image_folder import open_images
from projgan.errors import DataError
from projgan.files import sha256_of


@pytest.mark.parametrize("name", ["lab", "levels"])
def test_networks_that_ship(name: str) -> None:
    from projgan.config import Backbone

    levels = Backbone("efficientnet_lite1", zoo="lab", pretrain_seed=1)
    source = Source(32, CPU, Path("weights"), levels=levels)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    first, again = (EXTRACTORS[name].load(source) for _ in range(2))
    assert first.identity == again.identity
    got = first(images)
    assert list(got) == ([""] if name == "lab" else ["l1", "l2", "l3", "l4"])
    for output, features in got.items():
        assert features.shape[0] == 5
        assert features.dtype == np.float32
        assert features.std() > 0
        np.testing.assert_array_equal(features, again(images)[output])
    if name == "levels":
        other = Backbone("efficientnet_lite1", zoo="lab", pretrain_seed=0)
        assert EXTRACTORS[name].load(replace(source, levels=other)).identity != first.identity


def test_extractors_compute_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn

    def state() -> tuple[Any, ...]:
        tf32 = matmul.fp32_precision, cudnn.conv.fp32_precision
        return *tf32, cudnn.benchmark, cudnn.deterministic, cudnn.enabled

    found = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        before = state()
        with pytest.raises(KeyError), extractors._full_precision():
            assert state() == ("ieee", "ieee", False, True, True)
            raise KeyError
        assert state() == before
        assert before[0] == "tf32"
    finally:
        matmul.fp32_precision = found


# Inception.


class TinyInception(nn.Module):
    """Has the file format that clean-fid's wrapper opens: a script module with `.layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 2048, 3, stride=16), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        shown = nn.functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
        y: Tensor = self.layers((shown - 128) / 128)
        return y


@pytest.fixture
def inception_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return published(TinyInception(), tmp_path / "weights", monkeypatch)


def published(network: nn.Module, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Puts a network into the published one's place, as if it were that."""
    folder.mkdir()
    path = folder / files.FILES["inception"].name
    torch.jit.script(network).save(str(path))
    trust(path, patch)
    return path


def trust(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Has what lies there taken for the published file."""
    for extractor in ("inception", "inception_graph"):
        file = replace(files.FILES[extractor], sha256=sha256_of(path))
        patch.setitem(files.FILES, extractor, file)


needs_cleanfid = pytest.mark.filterwarnings("ignore::DeprecationWarning")


LEGACY = files.FILES["inception_legacy"].name


@needs_cleanfid
def test_inception_features_are_clean_fids(inception_file: Path) -> None:
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import make_resizer

    images = np.random.default_rng(0).integers(0, 256, (3, 3, 40, 40), dtype=np.uint8)
    got = EXTRACTORS["inception"].load(Source(40, CPU, inception_file.parent))(images)[""]
    resize: Callable[[Images], NDArray[np.float32]]
    resize = make_resizer("PIL", False, "bicubic", (299, 299))
    network = InceptionV3W(str(inception_file.parent), download=False)
    for image, features in zip(images, got, strict=True):
        shown = torch.from_numpy(resize(image.transpose(1, 2, 0))).permute(2, 0, 1)[None]
        wanted = network(shown).detach().numpy()[0]
        np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)


@needs_cleanfid
def test_the_networks_own_resize_is_that_of_clean_fids_wrapper(inception_file: Path) -> None:
    from cleanfid.inception_torchscript import InceptionV3W

    images = np.random.default_rng(0).integers(0, 256, (3, 3, 40, 40), dtype=np.uint8)
    source = Source(40, CPU, inception_file.parent)
    got, other = (EXTRACTORS[e].load(source) for e in ("inception_graph", "inception"))
    network = InceptionV3W(str(inception_file.parent), download=False, resize_inside=True)
    wanted = network(torch.from_numpy(images).float()).detach().numpy()
    np.testing.assert_allclose(got(images)[""], wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(other(images)[""] - wanted).max() > 1e-3  # the resizes do differ
    assert got.identity != other.identity


@needs_cleanfid
def test_kid_looks_for_the_network_under_the_data(inception_file: Path, tmp_path: Path) -> None:
    got = evaluate([draw(6, seed=1)], make(tmp_path, draw(8, seed=0)), ["kid"])
    assert list(got) == ["kid"]


@needs_cleanfid
def test_missing_inception_weights_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **settings: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError, match="no network here") as caught:
        make(tmp_path).prepare(["fid"])
    message = str(caught.value)
    assert files.FILES["inception"].name in message
    assert str(tmp_path / "weights") in message
    assert "\n" not in message
    assert not [*tmp_path.glob("weights/*")]


@needs_cleanfid
@pytest.mark.parametrize("metric", ["fid", "fid_nvlabs"])
def test_another_file_than_the_published_one_is_not_run(
    inception_file: Path, tmp_path: Path, metric: str
) -> None:
    """A TorchScript file is code, whoever put it there under that name."""

    class Other(TinyInception):
        def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
            print("other code")
            return x

    torch.jit.script(Other()).save(str(inception_file))
    with pytest.raises(DataError, match="not the Inception network that was published") as caught:
        make(tmp_path).prepare([metric])
    assert "delete it and run again" in str(caught.value) and "\n" not in str(caught.value)


@needs_cleanfid
def test_a_file_that_torch_cannot_read_is_named(
    inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inception_file.write_bytes(inception_file.read_bytes()[:1000])
    trust(inception_file, monkeypatch)
    with pytest.raises(DataError, match="not a usable Inception network") as caught:
        make(tmp_path).prepare(["fid"])
    assert str(inception_file) in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_cleanfid
def test_a_download_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "served"
    source.write_bytes(b"weights" * 1000)
    file = replace(files.FILES["inception"], url=source.as_uri(), sha256=sha256_of(source))
    monkeypatch.setitem(files.FILES, "inception", file)
    got = files.find_weights("inception", tmp_path / "weights")
    assert got.read_bytes() == source.read_bytes()
    assert [f.name for f in got.parent.iterdir()] == [file.name]


@needs_cleanfid
def test_addresses_are_those_of_clean_fid() -> None:
    from cleanfid.downloads_helper import inception_url
    from cleanfid.inception_pytorch import FID_WEIGHTS_URL

    assert files.FILES["inception"].url == inception_url
    assert files.FILES["inception_legacy"].url == FID_WEIGHTS_URL


def legacy_weights() -> dict[str, Tensor]:
    """Random weights in the form of pytorch-fid's file: torchvision's network, some blocks changed.

    Their statistics are those of a network at its start, and its features differ between images.
    """
    from cleanfid import inception_pytorch as blocks
    from torchvision.models import inception_v3

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False, weights=None)
        network.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
        network.Mixed_6b = blocks.FIDInceptionC(768, channels_7x7=128)
        network.Mixed_6c = blocks.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6d = blocks.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6e = blocks.FIDInceptionC(768, channels_7x7=192)
        network.Mixed_7b = blocks.FIDInceptionE_1(1280)
        network.Mixed_7c = blocks.FIDInceptionE_2(2048)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    return network.state_dict()


def folder_of(place: Path, images: list[Images]) -> Path:
    place.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{i}.png")
    return place


def pictures(*sizes: tuple[int, int]) -> list[Images]:
    """Random images [3, H, W] of these heights and widths."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (3, *size), dtype=np.uint8) for size in sizes]


@pytest.mark.filterwarnings("ignore")
def test_legacy_features_are_clean_fids_on_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cleanfid.inception_pytorch
    from cleanfid.features import build_feature_extractor
    from cleanfid.fid import get_folder_features

    weights = tmp_path / "weights"
    weights.mkdir()
    torch.save(legacy_weights(), weights / LEGACY)
    images = pictures((40, 40), (350, 320))
    ours = EXTRACTORS["inception_legacy"].load(Source(40, CPU, weights))(images)[""]

    def given(url: str, progress: bool) -> dict[str, Tensor]:
        assert url.endswith(LEGACY)
        return torch.load(weights / LEGACY)

    monkeypatch.setattr(cleanfid.inception_pytorch, "load_state_dict_from_url", given)
    network = build_feature_extractor("legacy_pytorch", CPU, use_dataparallel=False)
    theirs = get_folder_features(
        str(folder_of(tmp_path / "x", images)),
        network,
        num_workers=0,
        device=CPU,
        mode="legacy_pytorch",
        batch_size=1,
        verbose=False,
    )
    assert theirs.std(axis=0).mean() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.filterwarnings("ignore")
def test_clean_mode_gives_clean_fids_numbers_from_the_same_folders(
    inception_file: Path, tmp_path: Path
) -> None:
    """From files to numbers, with images of unequal sizes: theirs and ours see the same network."""
    from cleanfid.fid import get_folder_features, kernel_distance
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(inception_file.parent), download=False)
    sides = {
        "real": pictures(*[(40, 40), (33, 61)] * 6),
        "fake": [image // 2 for image in pictures(*[(24, 40)] * 12)],
    }
    folders = [folder_of(tmp_path / name, images) for name, images in sides.items()]
    real, fake = (
        get_folder_features(
            str(f), network, num_workers=0, device=CPU, mode="clean", batch_size=1, verbose=False
        )
        for f in folders
    )
    opened = [open_images(folder) for folder in folders]
    got = measure(*opened, ["fid", "kid"], tmp_path, lambda *_: None).scores
    theirs = 1000 * kernel_distance(real, fake, num_subsets=1)
    assert got["kid"] == pytest.approx(theirs, rel=1e-4)
    assert got["fid"] == pytest.approx(features_to_frechet(real, fake), rel=1e-4)
    assert got["fid"] > 0


def test_only_the_clean_resize_removes_what_the_small_image_cannot_show() -> None:
    """Resizing without antialiasing turns a fine pattern into a coarse one that is not there."""
    fine = np.indices((600, 600)).sum(axis=0) % 2 * 255
    image = torch.from_numpy(np.stack([fine] * 3)[None].astype(np.uint8))
    modes = [("PIL", "bicubic", 299), ("PyTorch", "bilinear", 299)]
    clean, legacy = (resize.cleanfid_resizer(*mode)(image) for mode in modes)
    assert clean.shape == legacy.shape == (1, 3, 299, 299)
    assert clean.std() < 10
    assert legacy.std() > 40


def test_making_a_resizer_silences_no_warning() -> None:
    before = list(warnings.filters)
    resize.cleanfid_resizer("PyTorch", "bilinear", 299)
    assert list(warnings.filters) == before


class Classifying(TinyInception):
    """With a last layer, as the published file has."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(2048, 1008)


@needs_cleanfid
def test_the_inception_score_shares_the_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published(Classifying(), tmp_path / "weights", monkeypatch)
    reference = make(tmp_path, draw(12, seed=0))
    got = evaluate([draw(20, seed=1)], reference, ["is", "kid"])
    assert 1.0 < got["is"] < 1008
    assert set(reference.real("inception")) == {""}  # of real images no logits are kept
    images = draw(3, seed=2)
    outputs = reference.extractor("inception")(images)
    weight = torch.jit.load(str(path)).output.weight.detach().numpy()
    np.testing.assert_allclose(outputs["logits"], outputs[""] @ weight.T, rtol=1e-3, atol=1e-4)


@needs_cleanfid
def test_without_a_last_layer_there_is_no_inception_score(
    inception_file: Path, tmp_path: Path
) -> None:
    got = evaluate([draw(12, seed=1)], make(tmp_path, draw(12, seed=0)), ["is", "kid"])
    assert list(got) == ["kid"]
    assert got.missing == {"is": "this network has no output 'logits'"}


# The other published networks, with random weights in files of the published form.


def squares(count: int = 2, size: int = 40) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def normalised(images: Images, mean: Any, std: Any) -> Tensor:
    """Resized by Pillow as float, one channel at a time, as clean-fid's `clean` does."""
    shown = np.stack(
        [
            [
                np.asarray(
                    Image.fromarray(channel.astype(np.float32)).resize(
                        (224, 224), Image.Resampling.BICUBIC
                    )
                )
                for channel in image
            ]
            for image in images
        ]
    ).clip(0, 255)
    shift, scale = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (mean, std))
    return torch.from_numpy(((shown / 255 - shift) / scale).astype(np.float32))


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "weights"
    place.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield place


def test_swav_is_a_resnet50_from_its_file(weights: Path) -> None:
    from torchvision.models import resnet50

    network = resnet50(weights=None).eval()
    published = {f"module.{n}": t for n, t in network.state_dict().items() if "fc" not in n}
    published["module.prototypes.weight"] = torch.zeros(3, 128)
    torch.save(published, weights / files.FILES["swav"].name)
    got = EXTRACTORS["swav"].load(Source(40, CPU, weights))(squares())[""]
    network.fc = nn.Identity()
    with torch.no_grad():
        wanted = network(normalised(squares(), *IMAGENET)).numpy()
    assert got.shape == (2, 2048)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_dinov2_is_timms_at_224_pixels(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from safetensors.torch import load_file, save_file
    from timm.models.vision_transformer import checkpoint_filter_fn

    tag = "vit_small_patch14_dinov2.lvd142m"  # a tenth of the size, the same form
    monkeypatch.setattr(files, "DINOV2", tag)
    path = weights / f"{tag}.safetensors"
    file = replace(files.FILES["dinov2"], name=path.name)
    monkeypatch.setitem(files.FILES, "dinov2", file)
    save_file(timm.create_model(tag, num_classes=0).state_dict(), path)
    got = EXTRACTORS["dinov2"].load(Source(40, CPU, weights))(squares())[""]
    network = timm.create_model(tag, num_classes=0, img_size=224).eval()
    network.load_state_dict(checkpoint_filter_fn(load_file(path), network))  # timm's own way
    with torch.no_grad():
        wanted = network.forward_features(normalised(squares(), *IMAGENET))[:, 0].numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_clip_is_open_clips_image_tower(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip
    from safetensors.torch import save_file

    tiny = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    monkeypatch.setattr(files, "CLIP", "tiny-clip.openai")
    file = replace(files.FILES["clip"], name="tiny-clip.openai.safetensors")
    monkeypatch.setitem(files.FILES, "clip", file)
    network, _, shown = open_clip.create_model_and_transforms("tiny-clip", pretrained=None)
    save_file(network.state_dict(), weights / "tiny-clip.openai.safetensors")
    got = EXTRACTORS["clip"].load(Source(40, CPU, weights))(squares())[""]
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in squares()]
    with torch.no_grad():
        wanted = network.eval().encode_image(torch.stack([shown(p) for p in pictures])).numpy()
    assert got.shape == (2, 16)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_vgg16_is_cut_after_its_second_layer(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(nn.Module):
        """Has VGG16's parts at a small size."""

        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 32, 32), nn.Flatten())
            pairs = [nn.Linear(196, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6), nn.ReLU()]
            self.classifier = nn.Sequential(*pairs, nn.Dropout(), nn.Linear(6, 5))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.classifier(self.features(x))
            return y

    network = Small().eval()
    monkeypatch.setattr("torchvision.models.vgg16", lambda weights: Small())
    torch.save(network.state_dict(), weights / files.FILES["vgg16"].name)
    got = EXTRACTORS["vgg16"].load(Source(224, CPU, weights))(squares(size=224))[""]
    shown = torch.from_numpy(squares(size=224)) / 255 - torch.tensor(IMAGENET[0])[:, None, None]
    shown = shown / torch.tensor(IMAGENET[1])[:, None, None]
    with torch.no_grad():
        wanted = network.classifier[:5](network.features(shown)).numpy()
    assert got.shape == (2, 6)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_vgg16_features_are_torch_fidelitys(weights: Path) -> None:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
    from torchvision.models import vgg16

    path = weights / files.FILES["vgg16"].name
    torch.save(vgg16(weights=None).state_dict(), path)
    got = EXTRACTORS["vgg16"].load(Source(40, CPU, weights))(squares())[""]
    oracle = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path))
    (wanted,) = oracle(torch.from_numpy(squares()))
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-3, atol=1e-4 * wanted.max().item())


@pytest.mark.parametrize("size", [(40, 40), (300, 31), (224, 224)], ids=str)
def test_tensorflows_resize_is_torch_fidelitys(size: tuple[int, int]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as oracle,
    )

    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    got = resize.tensorflow_bilinear(images, 224)
    wanted = oracle(images, (224, 224), align_corners=False)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-3)  # of 255


FILES = {
    "fid_legacy": LEGACY,
    "prdc": files.FILES["vgg16"].name,
    "fd_dinov2": files.FILES["dinov2"].name,
    "fd_clip": files.FILES["clip"].name,
    "fd_swav": files.FILES["swav"].name,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("metric", FILES)
def test_weights_that_are_not_there_are_one_line(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **settings: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(DataError) as caught:
        make(tmp_path).prepare([metric])
    message = str(caught.value)
    for part in (FILES[metric], str(tmp_path / "weights"), "place it there", "no network here"):
        assert part in message
    assert metric.rstrip("0123456789") in message
    assert "\n" not in message


def test_weights_of_another_network_are_named(weights: Path) -> None:
    torch.save({"module.conv1.weight": torch.zeros(3)}, weights / files.FILES["swav"].name)
    with pytest.raises(DataError, match=r"swav.*weights of another network"):
        EXTRACTORS["swav"].load(Source(40, CPU, weights))
    (weights / files.FILES["swav"].name).write_bytes(b"cut")
    with pytest.raises(DataError, match=r"swav.*not readable as weights"):
        EXTRACTORS["swav"].load(Source(40, CPU, weights))
