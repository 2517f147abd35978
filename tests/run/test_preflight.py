"""What is refused before a run begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bench.cli import main
from bench.config import grid
from bench.run import preflight
from projgan.config import Data
from projgan.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (40 + i, 50), (10 * i, 100, 200)).save(folder / f"{i}.png")
    return folder


def truncate(image: Path) -> None:
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])


@pytest.fixture
def networks_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("_check_networks", "_check_extractors"):
        monkeypatch.setattr(preflight, check, lambda *args: None)


def test_a_truncated_image_is_refused_before_any_run(
    photos: Path,
    networks_are_fine: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truncate(photos / "1.png")
    places = {key: tmp_path / key for key in ("runs_dir", "results_dir", "data_dir")}
    options = [f"{key}={place}" for key, place in places.items()]
    assert main.main(["grid=smoke", f"data.path={photos}", "data.images=null", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "1.png" in error and "replace or remove" in error
    assert not any(place.exists() for place in places.values())


def test_folders_are_packed_and_nothing_is_rendered(
    photos: Path,
    networks_are_fine: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Data] = []
    monkeypatch.setattr(
        "projgan.data.dataset.open_dataset", lambda data, place, show: opened.append(data)
    )
    runs = grid.load("smoke", "lab").runs
    folders = tuple(tmp_path / name for name in ("runs", "results", "data"))
    preflight.check(runs, *folders)
    assert opened == []
    data = Data(name="x", path=str(photos), resolution=64)
    preflight.check([replace(r, config=replace(r.config, data=data)) for r in runs], *folders)
    assert opened == [data]  # once for all runs


def test_rendered_data_at_another_resolution_is_refused(tmp_path: Path) -> None:
    run = grid.load("smoke", "lab").runs[0]
    data = replace(run.config.data, resolution=512)
    with pytest.raises(DataError, match=r"data\.resolution=512"):
        preflight.check(
            [replace(run, config=replace(run.config, data=data))], tmp_path, tmp_path, tmp_path
        )
