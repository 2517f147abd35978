"""Data sets: rendered or packed from a folder, checked by hash, shown in an order of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projgan.config import Data
from projgan.data import check_data, open_dataset, read_image, sample_order, training_indices
from projgan.errors import DataError

CLEVR = Data(name="clevr", resolution=32, images=20)


def folder_of(tmp_path: Path, count: int = 3) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (40 + i, 50), (10 * i, 100, 200)).save(folder / f"{i}.png")
    return folder


def test_rendered_once_and_checked_by_hash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, int]] = []
    first = open_dataset(CLEVR, tmp_path, lambda done, total: seen.append((done, total)))
    assert first.images.shape == (20, 3, 32, 32) and first.images.dtype == np.uint8
    assert seen == [(20, 20)]
    again = open_dataset(CLEVR, tmp_path, lambda done, total: seen.append((done, total)))
    assert len(seen) == 1 and again.fingerprint == first.fingerprint

    pixels = next(tmp_path.rglob("images.npy"))
    whole = np.array(first.images)
    del first, again
    data = bytearray(pixels.read_bytes())
    data[-1] ^= 255
    pixels.write_bytes(data)
    mended = open_dataset(CLEVR, tmp_path)
    assert "damaged" in caplog.text and np.array_equal(mended.images, whole)
    assert not list(tmp_path.rglob("*.part"))


def test_a_folder_is_packed_and_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    cfg = Data(name="photos", path=str(folder), resolution=32)
    first = open_dataset(cfg, tmp_path / "data")
    assert first.images.shape == (3, 3, 32, 32)
    assert first.images[2, :, 16, 16].tolist() == [20, 100, 200]
    Image.new("RGB", (40, 50), (255, 0, 0)).save(folder / "0.png")
    second = open_dataset(cfg, tmp_path / "data")
    assert second.fingerprint != first.fingerprint
    assert second.images[0, :, 16, 16].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 128, [128, 128, 128]),
        ("RGBA", (255, 0, 0, 255), [255, 0, 0]),
        ("RGBA", (255, 0, 0, 0), [255, 255, 255]),  # transparency is laid on white
        ("I;16", 257 * 200, [200, 200, 200]),
        ("P", 0, [0, 0, 0]),
        ("1", 1, [255, 255, 255]),
    ],
)
def test_image_modes(tmp_path: Path, mode: str, color: object, expected: list[int]) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, (32, 32), color).save(path)  # type: ignore[arg-type]
    assert read_image(path, 32)[:, 5, 5].tolist() == expected


def test_the_centre_is_cropped(tmp_path: Path) -> None:
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 255
    Image.fromarray(image).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", 32) == 255).all()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1\.png.*replace or remove"):
        open_dataset(Data(name="x", path=str(folder), resolution=32), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.npy*"))


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    for cfg, message in [
        (Data(name="x", path=str(tmp_path / "nowhere")), "no such folder"),
        (Data(name="x", path=str(tmp_path / "texts")), "holds no PNG, JPEG or WebP"),
        (Data(name="lsun_church"), "data.path=FOLDER"),
        (Data(name="x", path=str(folder_of(tmp_path)), subset=4), "more than the 3"),
    ]:
        with pytest.raises(DataError, match=message):
            check_data(cfg)


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    order = sample_order(seed=0, start=0, count=30, size=10)
    epochs = order.reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    assert np.array_equal(sample_order(0, 7, 9, 10), order[7:16])
    assert not np.array_equal(sample_order(1, 0, 30, 10), order)


def test_subsets_are_nested_and_do_not_follow_the_seed() -> None:
    small = training_indices(Data(subset=5), 100)
    large = training_indices(Data(subset=50), 100)
    assert len(small) == 5 and len(set(large)) == 50 and set(small) < set(large)
    assert np.array_equal(training_indices(Data(), 100), np.arange(100))
