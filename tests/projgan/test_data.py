"""Data sets: rendered or packed from a folder, checked by hash, shown in an order of their own."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projgan.config import Data
from projgan.data import dataset
from projgan.data.dataset import check_data, open_dataset, sample_order, training_indices
from projgan.data.image_source import decode_image, fit
from projgan.errors import ConfigError, DataError, UserError

CLEVR = Data(name="clevr", resolution=32, images=20)


def folder_of(tmp_path: Path, count: int = 3) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (40 + i, 50), (10 * i, 100, 200)).save(folder / f"{i}.png")
    return folder


def read_image(path: Path, resolution: int) -> np.ndarray:
    return fit(decode_image(path.read_bytes(), str(path)), resolution)


def damage(pixels: Path) -> None:
    """Changes a byte, and the time of change by more than a coarse clock may show."""
    changed = pixels.stat().st_mtime_ns + 1_000_000_000
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 255
    pixels.write_bytes(content)
    os.utime(pixels, ns=(changed, changed))


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
    damage(pixels)
    mended = open_dataset(CLEVR, tmp_path)
    assert "damaged" in caplog.text and np.array_equal(mended.images, whole)
    assert {p.name for p in pixels.parent.iterdir()} == {"images.npy", "meta.json"}


def test_pixels_are_hashed_once_per_process_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = dataset.sha256_of
    monkeypatch.setattr(dataset, "sha256_of", lambda path: hashed.append(path) or real(path))
    open_dataset(CLEVR, tmp_path)
    open_dataset(CLEVR, tmp_path)
    assert len(hashed) == 1
    damage(hashed[0])
    open_dataset(CLEVR, tmp_path)
    assert len(hashed) == 3  # the damaged file, and the one made in its place


def test_a_full_disk_is_one_line_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(io.FileIO):
        def write(self, content: object) -> int:
            if self.tell() > 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("projgan.files.os.fdopen", lambda handle, mode: Small(handle, mode))
        with pytest.raises(UserError, match=r"Cannot write in .*: No space left.*data_dir"):
            open_dataset(CLEVR, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert open_dataset(CLEVR, tmp_path).images.shape == (20, 3, 32, 32)


def test_packed_images_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    open_dataset(CLEVR, tmp_path)
    (tmp_path / "plain").touch()
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*.*") if p.is_file()} == {
        wanted
    }


def test_a_folder_beside_a_rendered_name_goes_by_its_own(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    cfg = Data(name="clevr", path=str(folder), resolution=32, images=2, subset=3)
    found = open_dataset(cfg, tmp_path / "data")
    assert found.name == "photos" and len(found.images) == 3
    assert open_dataset(Data(name="x", path=str(folder), resolution=32), tmp_path).name == "x"
    with pytest.raises(ConfigError, match=r"data\.subset=3 is more than data\.images=2"):
        Data(name="clevr", images=2, subset=3)


def test_a_folder_is_packed_and_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    cfg = Data(name="photos", path=str(folder), resolution=32)
    first = open_dataset(cfg, tmp_path / "data")
    assert first.images.shape == (3, 3, 32, 32)
    assert first.images[2, :, 16, 16].tolist() == [20, 100, 200]
    Image.new("RGB", (40, 50), (255, 0, 0)).save(folder / "0.png", compress_level=0)
    second = open_dataset(cfg, tmp_path / "data")
    assert second.fingerprint != first.fingerprint
    assert second.images[0, :, 16, 16].tolist() == [255, 0, 0]
    # Another image of the same size in bytes, with the date of the one that it replaces.
    before = (folder / "0.png").stat()
    Image.new("RGB", (40, 50), (0, 255, 0)).save(folder / "0.png", compress_level=0)
    os.utime(folder / "0.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "0.png").stat().st_size == before.st_size
    third = open_dataset(cfg, tmp_path / "data")
    assert third.images[0, :, 16, 16].tolist() == [0, 255, 0]


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
        open_dataset(Data(name="x", path=str(folder), resolution=32), tmp_path / "new" / "data")
    assert not (tmp_path / "new").exists()  # nothing is left behind


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    for cfg, message in [
        (Data(name="x", path=str(tmp_path / "nowhere")), "no such file"),
        (Data(name="x", path=str(tmp_path / "texts")), "without a PNG, JPEG, WebP"),
        (Data(name="lsun_church"), "data.path=PATH"),
        (Data(name="clevr", resolution=512), "data.resolution=512: .* 32, 64, 128, 256"),
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
