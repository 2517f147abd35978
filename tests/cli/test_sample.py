"""do=sample: from a kept generator to pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_records import make_grid, make_record, write_record
from PIL import Image

import projgan
from bench.cli import main
from bench.config.paths import RunPaths
from bench.config.spec import ReportSpec
from projgan import standing_statistics
from projgan.config import Config, Data, Generator
from projgan.generators import build_generator
from projgan.rng import Coordinates, Stream
from projgan.sample import generate, interpolate, save_generator, to_uint8

FASTGAN = Config(data=Data(resolution=32), generator=Generator(width=4, z_dim=16))
STYLEGAN2 = Config(
    data=Data(resolution=32), generator=Generator(name="stylegan2", width=4, z_dim=16, w_dim=16)
)

OF_CLASSES = {
    cfg.generator.name: replace(cfg, data=replace(cfg.data, classes=3))
    for cfg in (FASTGAN, STYLEGAN2)
}


@pytest.fixture(autouse=True)
def few_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of the averaged weights from few latents: quick, and the same everywhere."""
    monkeypatch.setattr(standing_statistics, "LATENTS", 64)


def kept(folder: Path, cfg: Config, nimg: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    generator = build_generator(cfg)
    with torch.no_grad():  # with statistics of batch norm, or its images are grey
        for step in range(20):
            where = Coordinates(1, Stream.LATENT_G, torch.arange(8) + 8 * step)
            labels = {"labels": torch.arange(8) % cfg.data.classes} if cfg.data.classes else {}
            generator(where.normal(16), where, **labels)
    generator.eval()
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text("{}")
    save_generator(RunPaths(folder).snapshot(nimg), generator, cfg, nimg)
    return standing_statistics.standing_statistics(generator)


def sample(tmp_path: Path, *arguments: str) -> int:
    return main.main(["do=sample", f"runs_dir={tmp_path}", f"out={tmp_path / 'out'}", *arguments])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).transpose(2, 0, 1)


def test_pictures_are_the_generators_samples(tmp_path: Path) -> None:
    generator = kept(tmp_path / "abc", FASTGAN, 1000)
    assert sample(tmp_path, "run=abc", "n=5", "interpolate=2") == 0
    expected = torch.cat(list(generate(generator, 0, range(5)))).numpy()
    found = np.stack([pixels(tmp_path / "out" / f"{i:05d}.png") for i in range(5)])
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert pixels(tmp_path / "out-grid.png").shape == (3, 64, 96)
    between = pixels(tmp_path / "out-interpolation.png")
    assert between.shape == (3, 5 * 32, 3 * 32)
    # A row begins with its sample, in the noise of the first one.
    assert np.abs(between[:, :32, :32].astype(int) - expected[0].astype(int)).max() <= 1


def test_an_interpolation_goes_in_even_steps_from_one_sample_to_the_next() -> None:
    torch.manual_seed(0)
    for cfg in (FASTGAN, STYLEGAN2):
        generator = build_generator(cfg).eval()
        first, _ = interpolate(generator, 0, range(2), steps=7)
        jumps = (first[1:].float() - first[:-1].float()).abs().mean(dim=(1, 2, 3))
        whole = (first[-1].float() - first[0].float()).abs().mean()
        assert jumps.max() < whole  # no jump as large as the way


def test_the_best_snapshot_can_be_asked_for(tmp_path: Path) -> None:
    spec = make_grid({"A": {}}, ReportSpec()).runs[0]
    folder = tmp_path / spec.run_id
    for nimg in (1000, 2000):
        kept(folder, FASTGAN, nimg, seed=nimg)
    curve = {1000: {"fd_lab": 3.0}, 2000: {"fd_lab": 5.0}}
    write_record(tmp_path, spec, make_record(spec, curve))
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    run = f"run={spec.run_id}"
    out = tmp_path / "out"
    assert sample(tmp_path, run, "n=1", "metrics=fd_lab") == 0
    best = pixels(out / "00000.png")
    assert sample(tmp_path, f"run={RunPaths(folder).snapshot(1000)}", "n=1") == 0
    assert (pixels(out / "00000.png") == best).all()
    assert sample(tmp_path, run, "n=1") == 0  # the last one
    assert (pixels(out / "00000.png") != best).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "run=ID is missing"),
        (["run=xyz"], "neither a folder nor a run"),
        (["run=none.safetensors"], "no such file"),
        (["run=empty"], "keeps no generator yet"),
        (["run=abc", "truncation=0.5"], "has no styles"),
        (["run=abc", "metrics=fd_lab"], "metrics=fd_lab: standing:fd_lab is not measured"),
        (["run=abc", "n=0"], "give a whole number from 1"),
        (["run=abc", "truncation=x"], "give a number from 0 to 2"),
        (["run=abc", "class=0"], "class=0: the generator was trained without classes"),
        (["run=abc", "class=all"], "was trained without classes"),
        (["run=classes", "class=3"], "class=3: the generator has classes 0 to 2"),
        (["run=classes", "class=-1"], "give the number of a class, from 0, or all"),
        (["run=classes", "class=dog"], "give the number of a class, from 0, or all"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path / "abc", FASTGAN, 1000)
    kept(tmp_path / "classes", OF_CLASSES["fastgan"], 1000)
    (tmp_path / "empty").mkdir()
    assert sample(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_truncated_styles_are_nearer_to_each_other(tmp_path: Path) -> None:
    kept(tmp_path / "abc", STYLEGAN2, 1000)
    spread = []
    for truncation in (1.0, 0.2):
        assert sample(tmp_path, "run=abc", "n=4", f"truncation={truncation}") == 0
        images = np.stack([pixels(tmp_path / "out" / f"{i:05d}.png") for i in range(4)])
        spread.append(images.astype(float).std(axis=0).mean())
    assert spread[1] < spread[0]


def test_a_folder_of_samples_holds_those_of_one_call_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, seed in (("abc", 0), ("xyz", 1)):
        kept(tmp_path / run, FASTGAN, 1000, seed=seed)
    out = tmp_path / "out"
    assert sample(tmp_path, "run=abc", "n=4", "interpolate=1") == 0
    assert sorted(f.name for f in out.iterdir()) == [f"{i:05d}.png" for i in range(4)]
    assert main.main(["do=score", f"real={out}", f"fake={out}", "metrics=swd",
                     f"data_dir={tmp_path}"]) == 0  # fmt: skip
    assert f"4 images of {out} against 4" in capsys.readouterr().out
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    for more, first in ((["n=3"], "00003.png"), (["n=2", "class=all"], "00000.png")):
        run = "abc" if len(more) == 1 else "of"
        kept(tmp_path / "of", OF_CLASSES["fastgan"], 1000)
        assert sample(tmp_path, f"run={run}", *more) == 2
        error = capsys.readouterr().err
        assert f"{first} first); give another out=" in error
        assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    assert sample(tmp_path, "run=xyz", "n=5") == 0  # whole: all of another run's are replaced
    after = {f.name: f.read_bytes() for f in out.iterdir()}
    assert len(after) == 5 and not set(after.values()) & set(before.values())
    (out / "old.JPG").write_bytes(b"")
    assert sample(tmp_path, "run=xyz", "n=5") == 2
    assert "none of these samples (1, old.JPG first)" in capsys.readouterr().err


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_class_can_be_asked_for_and_all_of_them(name: str, tmp_path: Path) -> None:
    generator = kept(tmp_path / "abc", OF_CLASSES[name], 1000)
    out = tmp_path / "out"
    z = Coordinates(0, Stream.LATENT_EVAL, torch.arange(2))
    with torch.no_grad():
        wanted = [
            to_uint8(generator(z.normal(16), z, labels=torch.full((2,), c))).numpy()
            for c in range(3)
        ]
    assert np.abs(wanted[0].astype(int) - wanted[2]).max() > 2

    def near(found: np.ndarray, expected: np.ndarray) -> bool:
        return bool(np.abs(found.astype(int) - expected).max() <= 1)

    assert sample(tmp_path, "run=abc", "class=2", "n=2", "interpolate=1") == 0
    assert all(near(pixels(out / f"{i:05d}.png"), wanted[2][i]) for i in range(2))
    assert near(pixels(tmp_path / "out-interpolation.png")[:, :32, :32], wanted[2][0])

    for file in out.iterdir():
        file.unlink()
    assert sample(tmp_path, "run=abc", "class=all", "n=2", "interpolate=1") == 0
    rows = np.concatenate([np.concatenate(list(row), axis=2) for row in wanted], axis=1)
    assert near(pixels(tmp_path / "out-grid.png"), rows)
    assert near(pixels(out / "1" / "00001.png"), wanted[1][1])
    between = pixels(tmp_path / "out-interpolation.png")
    assert between.shape == (3, 3 * 32, 2 * 32)  # a way in each class
    assert all(near(between[:, 32 * c : 32 * c + 32, :32], wanted[c][0]) for c in range(3))


def test_the_class_is_for_samples_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["grid=smoke", "do=plan", "class=1"]) == 2
    assert "Did you mean data.classes=?" in capsys.readouterr().err


def test_an_export_loads_without_the_harness(tmp_path: Path) -> None:
    """In a process of its own, where `bench` cannot be imported."""
    kept(tmp_path / "abc", OF_CLASSES["stylegan2"], 1000)
    code = """
import sys
from pathlib import Path
sys.modules["bench"] = None
from projgan.sample import generate, load_generator
generator, cfg, nimg = load_generator(Path(sys.argv[1]))
(images,) = generate(generator, 0, range(2), truncation=0.5, label=1)
print(tuple(images.shape), nimg, cfg.data.classes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(RunPaths(tmp_path / "abc").snapshot(1000))],
        cwd=Path(projgan.__file__).parents[1], env={"PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "(2, 3, 32, 32) 1000 3\n", done.stderr
