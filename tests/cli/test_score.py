"""do=score: two sets of images against each other, from the command line to the written table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.cli import main, score
from bench.config.metrics import METRICS, metric_keys
from bench.metrics.extractors import EXTRACTORS, Extractor, Source


def images(count: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """Smooth pictures [N, 16, 16, 3]."""
    rng = np.random.default_rng(seed)
    small = 128 + 60 * spread * rng.normal(size=(count, 4, 4, 3))
    return np.clip(small.repeat(4, axis=1).repeat(4, axis=2), 0, 255).astype(np.uint8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("real.npy", images(70, 0))
    np.save("fake.npy", images(70, 1, spread=0.5))
    return tmp_path


def test_two_arrays_are_scored_without_a_network_or_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["do=score", "real=real.npy", "fake=fake.npy", "out=o/scores.json"]) == 0
    shown = capsys.readouterr().out
    written = json.loads((place / "o" / "scores.json").read_text())
    keys = metric_keys(score.DEFAULT)
    assert list(written["metrics"]) == keys
    for key in keys:
        entry = written["metrics"][key]
        assert f"{entry['value']:.5g}" in shown
        assert METRICS[key].header in shown
    assert written["metrics"]["kid_lab"]["low"] < written["metrics"]["kid_lab"]["value"]
    assert written["metrics"]["precision_lab"]["value"] > written["metrics"]["recall_lab"]["value"]
    assert written["real"]["images"] == written["fake"]["images"] == 70
    assert "Pillow" in written["decoders"]
    assert sorted(p.name for p in place.iterdir()) == ["data", "fake.npy", "o", "real.npy"]


def test_the_default_needs_nothing_that_does_not_ship() -> None:
    assert {METRICS[k].extractor for k in metric_keys(score.DEFAULT)} == {"lab", "patches"}


def test_equal_sets_have_no_distance_and_a_csv_says_so(place: Path) -> None:
    command = ["do=score", "real=real.npy", "fake=real.npy", "metrics=[swd]", "out=scores.csv"]
    assert main.main(command) == 0
    with (place / "scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["metric"], row["header"], float(row["value"])) == ("swd", "SWD x1000", 0.0)


def test_unequal_sizes_go_through_the_extractors_resize(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "mixed"
    folder.mkdir()
    for i, pixels in enumerate(images(8, 1)):
        size = (16, 16) if i % 2 else (24, 40)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    assert main.main(["do=score", "real=real.npy", "fake=mixed", "metrics=[fd_lab,swd]"]) == 0
    shown = capsys.readouterr().out
    assert "2 sizes (16x16, 24x40)" in shown
    assert "8 images of mixed against 70 of real.npy" in shown


def test_each_image_of_a_mixed_batch_is_seen_as_if_alone() -> None:
    source = Source(16, torch.device("cpu"), Path("weights"))
    rng = np.random.default_rng(0)
    mixed = [rng.integers(0, 256, (3, h, 16), dtype=np.uint8) for h in (16, 24, 16)]
    for name in ("lab", "patches"):
        extractor = EXTRACTORS[name].load(source)
        together = extractor(mixed)
        for i, image in enumerate(mixed):
            for output, features in extractor(image[None]).items():
                np.testing.assert_allclose(together[output][i], features[0], rtol=1e-4, atol=1e-4)


DEPENDENT = ["kid_lab", "precision_lab", "recall_lab", "density_lab", "coverage_lab", "swd"]


def scores(place: Path, real: str, fake: str, *more: str) -> dict[str, dict[str, float]]:
    """What `do=score` writes, by metric."""
    command = ["do=score", f"real={real}", f"fake={fake}", "out=scores.json", *more]
    assert main.main(command) == 0
    found: dict[str, dict[str, float]] = json.loads((place / "scores.json").read_text())["metrics"]
    return found


def two_kinds(count: int, seed: int) -> np.ndarray:
    """`count` pictures of each of two kinds, dark ones first."""
    dark, light = images(count, seed, 0.4) // 2, 255 - images(count, seed + 1, 0.4) // 2
    return np.concatenate([dark, light])


@pytest.mark.parametrize("counts", [(30, 60), (60, 30), (60, 60)], ids=str)
def test_neither_names_nor_order_matter(
    place: Path,
    counts: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """More images on one side, and, as beyond 10,000, more on both than are compared."""
    if counts[0] == counts[1]:
        for name in ("lab", "patches"):
            monkeypatch.setitem(EXTRACTORS, name, replace(EXTRACTORS[name], keeps=40))
    used = 40 if counts[0] == counts[1] else 2 * min(counts)
    real, fake = two_kinds(counts[0], 10), two_kinds(counts[1], 20)
    mixed = np.random.default_rng(0).permutation
    found = []
    for i, (a, b) in enumerate([(real, fake), (real, fake[::-1]), (mixed(real), mixed(fake))]):
        np.save("a.npy", a)
        (place / str(i)).mkdir()
        for n, pixels in enumerate(b):  # the names of a folder, the order of an array
            Image.fromarray(pixels).save(place / str(i) / f"{n:03}.png")
        found.append(scores(place, "a.npy", str(i)))
    for key in DEPENDENT:
        values = [one[key]["value"] for one in found]
        assert values == pytest.approx([values[0]] * 3, rel=1e-4, abs=1e-4), key
        assert [one[key]["used"] for one in found] == [used] * 3
    assert found[0]["coverage_lab"]["value"] > 0.3  # both kinds are among what is compared
    said = f"{', '.join(DEPENDENT)}: {used} images of each side were compared, chosen by a hash"
    assert said in capsys.readouterr().out


def test_the_name_of_a_larger_image_decides_no_size(place: Path) -> None:
    """Of real images of two sizes SWD takes the smaller, whichever comes first by name."""
    small, large = images(20, 0), images(20, 1).repeat(2, axis=1).repeat(2, axis=2)
    np.save("fake.npy", images(40, 2))
    found = []
    for name, order in (("a", [*small, *large]), ("b", [*large, *small])):
        (place / name).mkdir()
        for n, pixels in enumerate(order):
            Image.fromarray(pixels).save(place / name / f"{n:03}.png")
        found.append(scores(place, name, "fake.npy")["swd"]["value"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_fid_nvlabs_divides_by_n_on_both_sides(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one feature the distance is (m1 - m2)^2 + (s1 - s2)^2, here with the released divisor."""

    def load(source: Source) -> Extractor:
        return Extractor("first", source.device, lambda x: {"": x[:, :1, 0, 0].float()})

    for name in ("inception_graph", "lab"):
        monkeypatch.setitem(EXTRACTORS, name, replace(EXTRACTORS[name], load=load))
    real, fake = images(7, 0), images(5, 1, spread=0.3)
    np.save("few.npy", real)
    np.save("fewer.npy", fake)
    found = scores(place, "few.npy", "fewer.npy", "metrics=[fid_nvlabs,fd_lab]")
    x, y = (side[:, 0, 0, 0].astype(float) for side in (real, fake))
    for metric, ddof in (("fid_nvlabs", 0), ("fd_lab", 1)):
        wanted = (x.mean() - y.mean()) ** 2 + (x.std(ddof=ddof) - y.std(ddof=ddof)) ** 2
        assert found[metric]["value"] == pytest.approx(wanted, rel=1e-9)
        assert found[metric]["gap"] < 1e-9


def test_jpeg_reals_give_a_warning(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "jpeg").mkdir()
    for i, pixels in enumerate(images(8, 1)):
        Image.fromarray(pixels).save(place / "jpeg" / f"{i}.jpg")
    assert main.main(["do=score", "real=jpeg", "fake=real.npy", "metrics=swd"]) == 0
    assert "8 of 8 real images are JPEG" in capsys.readouterr().out
    assert main.main(["do=score", "real=real.npy", "fake=jpeg", "metrics=swd"]) == 0
    assert "JPEG" not in capsys.readouterr().out


def test_the_real_side_is_computed_once_and_a_replaced_file_is_noticed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    load = EXTRACTORS["patches"].load

    def counting(source: Source) -> Extractor:
        extractor = load(source)

        def forward(batch: Tensor) -> dict[str, Tensor]:
            seen.append(len(batch))
            return extractor.forward(batch)

        return replace(extractor, forward=forward)

    monkeypatch.setitem(EXTRACTORS, "patches", replace(EXTRACTORS["patches"], load=counting))
    command = ["do=score", "real=real.npy", "fake=fake.npy", "metrics=swd"]
    assert main.main(command) == 0
    assert sum(seen) == 140
    assert main.main(command) == 0
    assert sum(seen) == 140 + 70
    np.save("real.npy", images(70, 5))
    assert main.main(command) == 0
    assert sum(seen) == 140 + 70 + 140


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["real=real.npy"], "needs real=PATH and fake=PATH"),
        (["real=real.npy", "fake=absent"], "fake=absent: no such file"),
        (["real=real.npy", "fake=fake.npy", "metrics=[fdd]"], "Unknown metric 'fdd'"),
        (["real=real.npy", "fake=fake.npy", "metrics=own_csm"], "own_csm_l1 looks through a run's"),
        (["real=real.npy", "fake=fake.npy", "out=x.txt"], "ending in .json or .csv"),
        (["real=real.npy", "fake=cut.png"], "neither a folder"),
        (["real=one.npy", "fake=fake.npy"], "one.npy holds one image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_scored_is_one_line(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "cut.png").write_bytes(b"cut")
    np.save("one.npy", images(1, 0))
    assert main.main(["do=score", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (place / "data").exists()


def test_a_truncated_file_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "some").mkdir()
    for i, pixels in enumerate(images(3, 0)):
        Image.fromarray(pixels).save(place / "some" / f"{i}.png")
    whole = (place / "some" / "1.png").read_bytes()
    (place / "some" / "1.png").write_bytes(whole[: len(whole) // 2])
    assert main.main(["do=score", "real=real.npy", "fake=some", "metrics=swd"]) == 2
    assert "1.png" in capsys.readouterr().err
