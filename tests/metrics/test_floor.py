"""The floor: what two disjoint sets of real images differ by, measured as generated images are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli.main import main
from bench.metrics import floor as floors
from bench.metrics.evaluate import evaluate
from bench.metrics.floor import floor, sides
from bench.metrics.reference import Reference
from projgan.scenes import render

GRID = """
name: made
about: one run of a grid of the tests
base: {train.total_kimg: 0.032, train.batch: 16, generator.width: 4, data.images: 64,
       discriminator.kind: rgb, discriminator.width: 16}
rows: [{label: One}]
eval: {metrics: [fd_lab, swd], every_kimg: 0.032, also_at_kimg: [], fake: 16, floor: true}
report: {rank_by: fd_lab, columns: [fd_lab, swd]}
"""


def reference(images: np.ndarray, folder: Path, count: int | None = None) -> Reference:
    return Reference(images, "some", folder, torch.device("cpu"), count=count)


def test_sides_are_as_many_or_fewer_in_proportion() -> None:
    assert sides(10000, 5000, 2000) == (5000, 2000)
    assert sides(7000, 5000, 2000) == (5000, 2000)
    assert sides(3781, 3781, 2000) == (2473, 1308)
    assert pytest.approx(2473 / 1308, rel=0.001) == 3781 / 2000


def test_the_two_sets_are_disjoint_and_chosen_by_content(tmp_path: Path) -> None:
    images = render("clevr", 0, range(40), 32)
    whole = reference(images, tmp_path)
    first, rest = whole.split(10, 25)
    taken = np.concatenate([np.asarray(batch) for batch in first])
    others = np.asarray(rest._images[np.arange(25)])
    both = [image.tobytes() for image in (*taken, *others)]
    assert len(taken) == 10 and rest.count == rest.total == 25 and len(set(both)) == 35
    turned = reference(images[::-1].copy(), tmp_path)
    again = np.concatenate([np.asarray(batch) for batch in turned.split(10, 25)[0]])
    assert {image.tobytes() for image in again} == {image.tobytes() for image in taken}


def test_the_floor_is_what_real_images_get_as_generated_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = render("clevr", 0, range(120), 32)
    found = floor(reference(images, tmp_path, 80), ["fd_lab", "kid_lab", "swd", "own_levels"], 40)
    assert (found["real"], found["fake"], found["whole"]) == (80, 40, True)
    assert found["metrics"].keys() == {"fd_lab", "kid_lab", "swd"}
    # Other images are farther away, however measured.
    noise = np.random.default_rng(0).integers(0, 256, images[:40].shape, dtype=np.uint8)
    scores = evaluate([noise], reference(images, tmp_path, 80), ["fd_lab", "kid_lab", "swd"])
    assert all(found["metrics"][key] < 0.5 * scores[key] for key in scores)

    # It is computed once for all runs, and fewer images are told.
    with monkeypatch.context() as patched:
        patched.setattr(floors, "evaluate", None)
        same = reference(images, tmp_path, 80)
        assert floor(same, ["fd_lab", "kid_lab", "swd", "own_levels"], 40) == found
    fewer = floor(reference(images, tmp_path), ["swd"], 60)
    assert (fewer["real"], fewer["fake"], fewer["whole"]) == (80, 40, False)
    assert floor(reference(images[:2], tmp_path), ["swd"], 60) == {}
    assert floor(reference(images, tmp_path), ["own_levels", "logit_gap"], 60) == {}


def test_it_stands_under_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made.yaml").write_text(GRID)
    assert main(["grid=made.yaml", "dispatch=inprocess"]) == 0
    (path,) = Path("runs").glob("*/record.json")
    kept = json.loads(path.read_text())["floor"]
    assert (kept["real"], kept["fake"], kept["whole"]) == (52, 12, False)
    for name in ("table.md", "index.html"):
        text = (Path("results/made") / name).read_text(encoding="utf-8")
        assert "Floor, 12 real images against 52 others (of more images, which a" in text, name
        assert f"is lower): FD-lab {kept['metrics']['fd_lab']:.3g}, SWD" in text, name
    # Without being asked for, as before.
    words = ["grid=made.yaml", "eval.floor=false", "runs_dir=other", "dispatch=inprocess"]
    assert main(words) == 0
    (path,) = Path("other").glob("*/record.json")
    assert "floor" not in json.loads(path.read_text())
