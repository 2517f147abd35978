"""The networks of metrics: those that ship, their precision, and Inception as clean-fid has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_images import CPU, Images, draw, make
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.metrics import extractor, inception
from bench.metrics.evaluate import evaluate
from bench.metrics.extractors import EXTRACTORS, Source
from projgan.errors import DataError


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
        with pytest.raises(KeyError), extractor._full_precision():
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
def inception_file(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / inception.CLEAN_FILE
    path.parent.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.jit.script(TinyInception()).save(str(path))
    return path


needs_cleanfid = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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
    assert inception.CLEAN_FILE in message
    assert str(tmp_path / "weights") in message
    assert "\n" not in message
    assert not [*tmp_path.glob("weights/*")]


@needs_cleanfid
def test_a_damaged_inception_file_is_named(inception_file: Path, tmp_path: Path) -> None:
    inception_file.write_bytes(inception_file.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a usable Inception network") as caught:
        make(tmp_path).prepare(["fid"])
    assert str(inception_file) in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_cleanfid
def test_a_download_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "served"
    source.write_bytes(b"weights" * 1000)
    monkeypatch.setattr("cleanfid.downloads_helper.inception_url", source.as_uri())
    got = inception.find_clean(tmp_path / "weights")
    assert got.read_bytes() == source.read_bytes()
    assert [f.name for f in got.parent.iterdir()] == [inception.CLEAN_FILE]
