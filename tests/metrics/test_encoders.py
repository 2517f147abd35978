"""Any distance in any encoder: names, arithmetic, and the way from a command to a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import CPU
from PIL import Image
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from bench.cli import main
from bench.config.columns import expand
from bench.config.extractors import EXTRACTOR_INFO
from bench.config.metrics import METRICS, metric_keys
from bench.metrics.extractors import EXTRACTORS, Source
from bench.metrics.kernel import features_to_rbf
from bench.metrics.sliced import DIRECTIONS, features_to_sliced
from projgan.errors import ConfigError

RNG = np.random.default_rng(0)


def test_a_combination_with_a_name_of_its_own_is_that_metric() -> None:
    assert metric_keys(["fd@dinov2_l", "kd@lab", "rbf@clip_l14_336", "fd@clip_b32"]) == [
        "fd_dinov2", "kid_lab", "cmmd", "fd_clip",
    ]  # fmt: skip
    assert metric_keys(["prdc@dinov2_l"]) == metric_keys(["prdc_dinov2"])
    assert metric_keys(["raw:fd@mobilenet"]) == ["raw:fd_mobilenet"]


def test_others_are_metrics_of_their_own() -> None:
    (key,) = metric_keys(["kd@timm/resnet18.tv_in1k"])
    assert key in METRICS and METRICS[key].header == "KD@timm/resnet18.tv_in1k x1000"
    assert METRICS[f"standing:{key}"].norms == "standing"
    assert metric_keys(["prdc@swav/random"]) == [
        f"{part}@swav/random" for part in ("precision", "recall", "density", "coverage")
    ]
    assert expand(["prdc@swav/random", "rel:fd@lab/random"])[-1] == "rel:fd@lab/random"
    info = EXTRACTOR_INFO["timm/resnet18.tv_in1k"]
    assert (info.family, info.pretraining) == ("ResNet", "ImageNet-1k, labels")
    assert EXTRACTOR_INFO["swav/random"].pretraining == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fd@dinov3", "Unknown encoder 'dinov3'"),
        ("fid@lab", "Unknown distance 'fid'"),
        ("fd@inception/random", "has no random weights"),
        ("fd@lab/other", "Unknown encoder"),
    ],
)
def test_others_are_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        metric_keys([name])
    assert name not in METRICS


def test_cmmd_is_the_mean_of_a_gaussian_kernel_over_all_pairs() -> None:
    x, y = RNG.normal(size=(30, 8)), RNG.normal(0.3, 1.2, size=(25, 8))
    a, b = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.exp(-cdist(p, q, "sqeuclidean") / 200).mean())

    wanted = kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
    assert features_to_rbf(x, y) == pytest.approx(wanted, rel=1e-9)
    assert features_to_rbf(x, 7 * x) == pytest.approx(0, abs=1e-12)  # length says nothing


def test_sliced_distance_is_that_of_each_direction() -> None:
    x, y = RNG.normal(size=(40, 1)), RNG.normal(2, 1, size=(40, 1))
    found = features_to_sliced(x, y)  # in one dimension each direction is the line itself
    assert found == pytest.approx(
        np.sqrt(np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2)), rel=1e-5
    )
    assert found >= wasserstein_distance(x[:, 0], y[:, 0]) - 1e-6
    # A shift of length 3 in D dimensions is seen at 3 / sqrt(D) by a random direction.
    z = RNG.normal(size=(50, 16)).astype(np.float32)
    shift = np.full(16, 3 / 4)
    seen = features_to_sliced(z, z + shift)
    assert seen == pytest.approx(3 / 4, rel=4 / np.sqrt(DIRECTIONS))


@pytest.mark.parametrize("name", ["lab/random", "timm/resnet18/random", "mobilenet/random"])
def test_random_weights_are_drawn_by_the_encoders_name(name: str, tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 3, 32, 32), np.uint8)
    source = Source(32, CPU, tmp_path)
    torch.manual_seed(0)
    one = EXTRACTORS[name].load(source)
    torch.manual_seed(1)
    other = EXTRACTORS[name].load(source)
    assert one.identity == other.identity
    np.testing.assert_array_equal(one(images)[""], other(images)[""])
    assert np.std(one(images)[""], axis=0).max() > 0


def test_a_network_of_timm_is_shown_as_it_was_published(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    from bench.metrics.resize import cleanfid_resizer
    from projgan.weights import use_data_dir

    tag = "resnet18.tv_in1k"
    (tmp_path / "weights").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = timm.create_model(tag, pretrained=False).eval()
    save_file(whole.state_dict(), tmp_path / "weights" / f"{tag}.safetensors")
    images = torch.from_numpy(RNG.integers(0, 256, (2, 3, 40, 40), np.uint8))
    with use_data_dir(tmp_path):
        got = EXTRACTORS[f"timm/{tag}"].load(Source(40, CPU, tmp_path / "weights"))(images)[""]
    config = timm.get_pretrained_cfg(tag)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    shown = cleanfid_resizer("PIL", "bicubic", 224, False)(images) / 255
    with torch.no_grad():
        wanted = whole.global_pool(whole.forward_features((shown - mean) / std)).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_each_encoder_makes_one_pass_for_all_its_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        for i in range(8):
            pixels = RNG.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []
    names = ("lab", "lab/random", "mobilenet/random")
    for name in names:
        load = EXTRACTORS[name].load

        def counting(source: Source, load=load, name=name):  # type: ignore[no-untyped-def]
            extractor = load(source)
            forward = extractor.forward

            def watched(x: torch.Tensor) -> dict[str, torch.Tensor]:
                seen.append(len(x))
                return forward(x)

            object.__setattr__(extractor, "forward", watched)
            return extractor

        from dataclasses import replace

        monkeypatch.setitem(EXTRACTORS, name, replace(EXTRACTORS[name], load=counting))
    wanted = ",".join(f"{d}@{e}" for e in names for d in ("fd", "kd", "prdc", "rbf", "swd"))
    assert main.main(["do=score", "real=a", "fake=b", f"metrics=[{wanted}]", "out=found.json"]) == 0
    assert seen == [8] * 6  # once for the real images and once for the generated ones, three times
    said = capsys.readouterr().out
    assert "recall@lab/random" in said and "kid_lab" in said
