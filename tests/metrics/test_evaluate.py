"""From images to a record's numbers: tables, extractors, the reference's cache, evaluate()."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frechet_of_features import features_to_frechet
from made_images import CPU, Images, draw, make
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.config.extractors import EXTRACTOR_INFO, function
from bench.config.metrics import KERNEL, OF_TRAINING
from bench.metrics import METRICS, check_metrics, extractors, inception, metric_keys
from bench.metrics.evaluate import Scores, evaluate, rebatch
from bench.metrics.extractors import BATCH, EXTRACTORS, Extractor, Source
from bench.metrics.kernel import features_to_kernel
from bench.metrics.reference import Collector, Reference
from bench.metrics.statistics import Statistics
from projgan.errors import ConfigError, UserError

ROOT = Path(__file__).resolve().parents[2]


class Levels(nn.Module):
    """Stands in for a feature network: four maps of random convolutions, and a count of images."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterList(
            torch.randn(c, 3, 2, 2, generator=generator) for c in (4, 6, 8, 12)
        )
        self.input_size = 8
        self.seen = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen += len(images)
        return [nn.functional.conv2d(images, w).relu() for w in self.weights]


def in_batches(images: Images, size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield torch.from_numpy(images[start : start + size])


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Levels:
    """The lab extractor replaced by a small one."""
    network = Levels()

    def load(source: Source) -> Extractor:
        def forward(images: Tensor) -> dict[str, Tensor]:
            maps = network(extractors.signed(images))
            return {"": torch.cat([m.mean((2, 3)) for m in maps], dim=1)}

        return extractors.make_extractor("lab", network, source, forward)

    monkeypatch.setitem(EXTRACTORS, "lab", replace(EXTRACTORS["lab"], load=load))
    return network


@pytest.fixture
def reference(network: Levels, tmp_path: Path) -> Reference:
    return make(tmp_path)


# The table.


def test_the_table_needs_no_torch_and_no_numpy() -> None:
    code = (
        "import sys; from bench.metrics import METRICS, check_metrics; check_metrics(['fid']); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_entry_is_whole() -> None:
    for key, metric in METRICS.items():
        assert key == metric.key
        assert metric.extractor in EXTRACTORS
        assert metric.compute == OF_TRAINING or callable(function(metric.compute.function))
        assert metric.compute.text and metric.compute.needs_all in ("never", "certified", "always")
        assert metric.unit in metric.header
        if metric.compute == KERNEL:
            assert EXTRACTORS[metric.extractor].keeps > 0
            assert metric.unit == "x1000"
    headers = [metric.header for metric in METRICS.values()]
    assert len(set(headers)) == len(headers)


def test_every_extractor_tells_its_pretraining() -> None:
    assert EXTRACTOR_INFO.keys() == EXTRACTORS.keys()
    for name, info in EXTRACTOR_INFO.items():
        of_a_backbone = name in ("levels", "own")
        assert (info.pretraining is None) == (info.family is None) == of_a_backbone


def test_groups_are_opened_in_order_and_once() -> None:
    assert metric_keys(["kid_lab", "fd_levels", "fd_l2", "kid_lab"]) == [
        *("kid_lab", "fd_l1", "fd_l2", "fd_l3", "fd_l4")
    ]
    assert metric_keys([]) == []


def test_an_unknown_metric_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"Unknown metric 'fd_labb'. Did you mean 'fd_lab'"):
        check_metrics(["kid_lab", "fd_labb"])


# Evaluation.


def test_values_are_those_of_the_features(reference: Reference) -> None:
    fake = draw(200, seed=1, spread=0.8)
    got = evaluate(in_batches(fake, 50), reference, ["fd_lab", "kid_lab"])

    def features(images: Images) -> NDArray[np.float64]:
        maps = Levels()(torch.from_numpy(images).float() / 127.5 - 1)
        return torch.cat([m.mean((2, 3)) for m in maps], dim=1).detach().double().numpy()

    assert list(got) == ["fd_lab", "kid_lab"]
    real = features(draw(300, seed=0))
    assert got["fd_lab"] == pytest.approx(features_to_frechet(real, features(fake)), rel=1e-4)
    kept = reference.real("lab")[""].kept[:200]  # as many as there are generated ones
    kernel = features_to_kernel(kept, features(fake)).value
    assert got["kid_lab"] == pytest.approx(1000 * kernel, rel=1e-4)
    assert (got.fake, got.real, got.missing) == (200, 300, {})


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_the_batches_of_the_generator_do_not_matter(reference: Reference, size: int) -> None:
    fake = draw(200, seed=1)
    names = ["fd_lab", "kid_lab"]
    one, other = (evaluate(in_batches(fake, s), reference, names) for s in (size, 64))
    assert one == other  # to the bit: the extractor sees the same batches


def test_the_extractors_batch_moves_nothing_past_a_millionth(
    network: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = draw(200, seed=1)
    values = []
    for size in (64, 9):
        for module in ("evaluate", "reference"):
            monkeypatch.setattr(f"bench.metrics.{module}.BATCH", size)
        batches = rebatch(in_batches(fake, 50), size)
        names = ["fd_lab", "kid_lab", "prdc_lab", "swd"]
        values.append(evaluate(batches, make(tmp_path / str(size)), names))
    for key, value in values[0].items():
        assert values[1][key] == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_what_is_drawn_of_the_images_follows_no_order(
    network: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits and intervals draw groups, the Inception Score cuts parts: folders may be sorted."""

    def load(source: Source) -> Extractor:
        def forward(images: Tensor) -> dict[str, Tensor]:
            kind = images[:, 0, 0, 0].long() // 16
            return {inception.LOGITS: 30.0 * nn.functional.one_hot(kind, 16).float()}

        return Extractor("kinds", CPU, forward)

    entry = replace(EXTRACTORS["inception"], load=load)
    monkeypatch.setitem(EXTRACTORS, "inception", entry)
    fake = draw(400, seed=1)
    fake = fake[np.argsort(fake[:, 0, 0, 0])]
    reference = make(tmp_path)
    names = ["fd_lab", "fd_lab_inf", "is"]
    found = [
        evaluate([images], reference, names, certified=True)
        for images in (fake, np.random.default_rng(0).permutation(fake))
    ]
    for key in names:
        assert found[1][key] == pytest.approx(found[0][key], rel=1e-4)
    for key, interval in found[0].intervals.items():
        assert found[1].intervals[key] == pytest.approx(interval, rel=1e-3)
    assert set(found[0].intervals) == {"fd_lab", "fd_lab_inf"}
    assert found[0]["is"] > 3  # ten parts of ten kinds each; sorted, each part is of one


def test_of_images_that_repeat_a_share_is_kept(
    network: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS, "lab", replace(EXTRACTORS["lab"], keeps=100))
    once, often = draw(200, seed=0), np.repeat(draw(1, seed=3), 200, axis=0)
    kept = make(tmp_path, np.concatenate([once, often])).real("lab")[""].kept
    assert len(kept) == 100
    _, counts = np.unique(kept, axis=0, return_counts=True)
    assert 30 < counts.max() < 70 and (counts > 1).sum() == 1


def test_a_worse_generator_scores_worse(reference: Reference) -> None:
    def score(images: Images) -> Scores:
        return evaluate(in_batches(images, 64), reference, ["fd_lab", "kid_lab"])

    good = score(draw(300, seed=1))
    narrow = score(draw(300, seed=1, spread=0.5))
    collapsed = score(np.repeat(draw(1, seed=1), 300, axis=0))
    for key in ("fd_lab", "kid_lab"):
        assert good[key] < narrow[key] < collapsed[key]
        assert abs(good[key]) < 0.1 * collapsed[key]


def test_one_pass_serves_all_metrics(network: Levels, tmp_path: Path) -> None:
    own = Levels(seed=1)
    reference = make(tmp_path, own=own)
    names = ["fd_lab", "kid_lab", "prdc_lab", "own_levels", "swd"]
    reference.prepare(names)
    assert (network.seen, own.seen) == (300, 300)
    passes = iter([draw(100, seed=1)])  # can be read once
    got = evaluate(passes, reference, names)
    assert list(got) == metric_keys(names)
    assert (network.seen, own.seen) == (400, 400)


def test_a_runs_own_features_after_its_projection(tmp_path: Path) -> None:
    """CCM and CSM are those of the run's discriminator, on the same maps and in the same pass."""
    from projgan.backbones import build_backbone
    from projgan.config import from_dict
    from projgan.discriminators.projected import build_discriminator, build_projection

    lab = {"backbone": {"name": "resnet18", "zoo": "lab"}, "data": {"resolution": 32}}
    cfg = from_dict({**lab, "projection": {"channels": 8}})
    own = build_backbone(cfg.backbone, 32)
    projection = build_projection(cfg, own.channels)
    real, fake = draw(12, seed=0), draw(12, seed=1)
    groups = ["own_levels", "own_ccm", "own_csm"]
    got = evaluate([fake], make(tmp_path, real, own=own, projection=projection), groups)
    assert list(got) == [f"own_{s}l{i}" for s in ("", "ccm_", "csm_") for i in (1, 2, 3, 4)]

    discriminator = build_discriminator(cfg)
    assert discriminator.projection is not None
    with torch.no_grad():
        x, y = (own(torch.from_numpy(images).float() / 127.5 - 1) for images in (real, fake))
        for name, project in (
            ("ccm", discriminator.projection.mix_channels),
            ("csm", discriminator.projection),
        ):
            for i, (a, b) in enumerate(zip(project(x), project(y), strict=True), start=1):
                wanted = features_to_frechet(a.mean((2, 3)).numpy(), b.mean((2, 3)).numpy())
                assert got[f"own_{name}_l{i}"] == pytest.approx(wanted, rel=1e-3)

    plain = from_dict({**lab, "projection": {"kind": "ccm", "channels": 8}})
    only_ccm = make(tmp_path, real, own=own, projection=build_projection(plain, own.channels))
    got = evaluate([fake], only_ccm, groups)
    assert "own_ccm_l1" in got
    assert got.missing["own_csm_l1"] == "this network has no output 'csm_l1'"


def test_several_numbers_and_intervals_of_one_computation(reference: Reference) -> None:
    fake = draw(200, seed=1, spread=0.5)
    got = evaluate([fake], reference, ["kid_lab", "prdc_lab"])
    assert list(got) == ["kid_lab", *metric_keys(["prdc_lab"])]
    low, high = got.intervals["kid_lab"]
    assert low < got["kid_lab"] < high
    assert set(got.intervals) == {"kid_lab"}
    real = reference.real("lab")[""].kept[:200]
    features = reference.extractor("lab")(fake[:BATCH])[""]
    assert got["precision_lab"] > got["recall_lab"]  # narrow: realistic, and not all of the data
    found = features_to_kernel(real[:BATCH], features)
    few = evaluate([fake[:BATCH]], reference, ["kid_lab"])
    wanted = tuple(1000 * bound for bound in found.interval)
    assert few.intervals["kid_lab"] == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert got.extractors == {"lab": reference.extractor("lab").identity}


def test_levels_are_pooled_maps(network: Levels, tmp_path: Path) -> None:
    own = Levels(seed=1)
    real, fake = draw(300, seed=0), draw(100, seed=1)
    got = evaluate([fake], make(tmp_path, own=own), ["own_l3"])
    x, y = (
        own(torch.from_numpy(images).float() / 127.5 - 1)[2].mean((2, 3)).detach().numpy()
        for images in (real, fake)
    )
    assert got["own_l3"] == pytest.approx(features_to_frechet(x, y), rel=1e-4)


def test_a_run_without_features_of_its_own_says_so(reference: Reference) -> None:
    got = evaluate([draw(50, seed=1)], reference, ["own_levels", "fd_lab"])
    assert list(got) == ["fd_lab"]
    assert set(got.missing) == {"own_l1", "own_l2", "own_l3", "own_l4"}
    assert "no feature network" in got.missing["own_l1"]


def test_a_result_that_is_no_number_is_missing(
    network: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = make(tmp_path)
    reference.prepare(["fd_lab"])
    with torch.no_grad():
        network.weights[0].fill_(torch.nan)
    got = evaluate([draw(50, seed=1)], reference, ["fd_lab", "kid_lab"])
    assert dict(got) == {}
    assert "not finite" in got.missing["fd_lab"]
    assert "nan" in got.missing["kid_lab"]


def test_what_needs_scipy_is_missing_without_it_and_nothing_else(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scipy", "scipy.linalg", "scipy.linalg.lapack"):
        monkeypatch.setitem(sys.modules, name, None)
    got = evaluate([draw(50, seed=1)], reference, ["fd_lab", "kid_lab"])
    assert list(got) == ["kid_lab"]
    assert got.missing == {"fd_lab": "scipy is not installed"}


def test_what_cannot_be_measured_is_refused(reference: Reference) -> None:
    with pytest.raises(UserError, match="1 generated images cannot be measured"):
        evaluate([draw(1, seed=1)], reference, ["fd_lab"])
    with pytest.raises(ConfigError, match="Unknown metric 'sd_lab'"):
        evaluate([draw(9, seed=1)], reference, ["sd_lab"])
    with pytest.raises(ConfigError, match="fd_levels needs a reference backbone"):
        evaluate([draw(9, seed=1)], reference, ["fd_levels"])
    with pytest.raises(TypeError, match="uint8"):
        evaluate([torch.zeros(9, 3, 8, 8)], reference, ["fd_lab"])


# Numbers that are published.


def test_a_published_distance_has_a_certificate_and_an_interval(reference: Reference) -> None:
    fake = draw(300, seed=1, spread=0.8)
    plain = evaluate([fake], reference, ["fd_lab", "kid_lab"])
    assert (plain.certificates, "fd_lab" in plain.intervals) == ({}, False)
    got = evaluate([fake], reference, ["fd_lab", "kid_lab"], certified=True)
    assert dict(got) == dict(plain)
    assert list(got.certificates) == ["fd_lab"]
    assert 0 <= got.certificates["fd_lab"] < 1e-9
    low, high = got.intervals["fd_lab"]
    assert low < got["fd_lab"] < high
    assert high - low < got["fd_lab"]


def in_single_precision(real: Statistics, fake: Statistics) -> float:
    """A first route as others have it: the product's root, in float32."""
    a, b = real.cov.astype(np.float32), fake.cov.astype(np.float32)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(np.complex64)).real.sum()
    return float(((real.mean - fake.mean) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots)


def test_routes_that_disagree_are_not_published(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = draw(300, seed=1)
    name = "bench.metrics.fid.statistics_to_frechet"
    monkeypatch.setattr(name, in_single_precision)
    wrong = evaluate([fake], reference, ["fd_lab"])  # close enough to look right
    got = evaluate([fake], reference, ["fd_lab", "kid_lab"], certified=True)
    assert list(wrong) == ["fd_lab"]
    assert list(got) == ["kid_lab"]
    assert got.certificates == {}
    said = r"not published: a second route to the distance differs by \d\.\de-0\d of it, more than"
    assert re.match(said, got.missing["fd_lab"])
    monkeypatch.setattr(name, lambda real, fake: float("nan"))
    got = evaluate([fake], reference, ["fd_lab"], certified=True)
    assert "differs by nan" in got.missing["fd_lab"]


def test_the_limit_at_endless_images(reference: Reference) -> None:
    fake = draw(400, seed=1, spread=0.8)
    got = evaluate(in_batches(fake, 50), reference, ["fd_lab", "fd_lab_inf"], certified=True)
    assert got["fd_lab_inf"] < got["fd_lab"]
    low, high = got.intervals["fd_lab_inf"]
    assert low < got["fd_lab_inf"] < high < got.intervals["fd_lab"][1]
    assert set(got.certificates) == {"fd_lab", "fd_lab_inf"}
    few = evaluate([fake[:50]], reference, ["fd_lab", "fd_lab_inf"], certified=True)
    assert "50 samples tell nothing of endless ones" in few.missing["fd_lab_inf"]
    assert "fd_lab" in few.certificates and "fd_lab" not in few.intervals


def test_the_limit_looks_at_every_generated_image(
    network: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = evaluate([draw(400, seed=1)], make(tmp_path / "all"), ["fd_lab_inf", "kid_lab"])
    monkeypatch.setitem(EXTRACTORS, "lab", replace(EXTRACTORS["lab"], keeps=100))
    got = evaluate([draw(400, seed=1)], make(tmp_path / "few"), ["fd_lab_inf", "kid_lab"])
    assert got["fd_lab_inf"] == wanted["fd_lab_inf"]
    assert got["kid_lab"] != wanted["kid_lab"]  # which looks at those that are kept


@pytest.mark.parametrize("sizes", [[64, 64], [1, 130, 0, 5], [200], [3]], ids=str)
def test_rebatch_keeps_images_and_order(sizes: list[int]) -> None:
    images = draw(sum(sizes), seed=0)
    parts = np.split(images, np.cumsum(sizes)[:-1])
    got = list(rebatch(iter(parts)))
    assert [len(batch) for batch in got[:-1]] == [BATCH] * (len(got) - 1)
    assert 0 < len(got[-1]) <= BATCH
    np.testing.assert_array_equal(np.concatenate(got), images)


def test_images_of_a_generator_stay_where_they_were_made() -> None:
    made = [torch.zeros(size, 3, 8, 8, dtype=torch.uint8) for size in (BATCH, BATCH, 3)]
    assert [a is b for a, b in zip(rebatch(made), made, strict=True)] == [True, True, False]


def test_the_feature_pass_waits_for_nothing() -> None:
    """On a device whose values cannot be read, from images to sums: nothing asks for one."""
    device = torch.device("meta")

    def forward(images: Tensor) -> dict[str, Tensor]:
        pixels = extractors.signed(images).double()
        return {"": pixels.mean((2, 3)), "patches": pixels.flatten(2)}

    extractor, collector = Extractor("any", device, forward), Collector()
    images = torch.empty((BATCH, 3, 8, 8), dtype=torch.uint8, device=device)
    for batch in (images, draw(BATCH, seed=0), [*draw(2, seed=0)]):
        collector.add(extractor.on_device(batch))
    assert collector._moments[""].n == 2 * BATCH + 2
    assert collector._moments["patches"]._scatter.shape == (64, 64)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        collector.features()


# The reference's cache.


def test_computed_once_and_then_read(network: Levels, tmp_path: Path) -> None:
    first = make(tmp_path).real("lab")[""]
    again = make(tmp_path).real("lab")[""]
    assert network.seen == 300
    np.testing.assert_array_equal(first.statistics.cov, again.statistics.cov)
    np.testing.assert_array_equal(first.kept, again.kept)


def test_the_cache_knows_what_it_depends_on(network: Levels, tmp_path: Path) -> None:
    base = make(tmp_path).cache_path("lab")
    assert make(tmp_path).cache_path("lab") == base
    assert make(tmp_path, draw(300, seed=5)).cache_path("lab") != base
    assert make(tmp_path, count=100).cache_path("lab") != base
    with torch.no_grad():
        network.weights[3][0, 0, 0, 0] += 1e-3
    assert make(tmp_path).cache_path("lab") != base


def test_a_damaged_cache_is_computed_again(
    network: Levels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference = make(tmp_path)
    wanted = reference.real("lab")[""].statistics
    path = reference.cache_path("lab")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with caplog.at_level(logging.WARNING):
        got = make(tmp_path).real("lab")[""].statistics
    assert "damaged" in caplog.text
    assert path.name in caplog.text
    np.testing.assert_array_equal(got.cov, wanted.cov)
    assert path.read_bytes() == whole


def test_two_at_once_agree(network: Levels, tmp_path: Path) -> None:
    results: list[Any] = []

    def work() -> None:
        results.append(make(tmp_path).real("lab")[""].statistics.cov)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for cov in results[1:]:
        np.testing.assert_array_equal(cov, results[0])
    assert len(list((tmp_path / "reference").iterdir())) == 1


def test_kept_images_do_not_follow_the_folders_order(
    network: Levels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS, "lab", replace(EXTRACTORS["lab"], keeps=120))
    two_classes = np.concatenate(
        [np.zeros((150, 3, 8, 8), np.uint8), np.full((150, 3, 8, 8), 255, np.uint8)]
    )
    kept = make(tmp_path, two_classes).real("lab")[""].kept
    assert len(kept) == 120
    few = make(tmp_path, two_classes, count=100).real("lab")[""].kept
    turned = make(tmp_path / "turned", two_classes[::-1].copy(), count=100).real("lab")[""]
    np.testing.assert_array_equal(few, turned.kept)  # nor does the choice of those that count
    assert 0.25 < (few == few[0]).all(axis=1).mean() < 0.75
    for part in (kept, kept[:60]):  # and a part of them is as mixed
        assert 0.25 < (part == kept[0]).all(axis=1).mean() < 0.75


def test_all_images_count_unless_fewer_are_asked(network: Levels, tmp_path: Path) -> None:
    assert make(tmp_path).real("lab")[""].statistics.n == 300
    few = make(tmp_path, count=100)
    assert few.real("lab")[""].statistics.n == few.count == 100
    assert make(tmp_path, count=1000).count == 300


def test_progress_reaches_the_end(network: Levels, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make(tmp_path, progress=lambda done, total: seen.append((done, total))).real("lab")
    assert [total for _, total in seen] == [300] * 5
    assert seen[-1] == (300, 300)
