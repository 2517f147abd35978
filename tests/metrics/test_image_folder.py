"""Images of every kind that users have, and those that are damaged."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.metrics.image_folder import ImageSet, open_images
from projgan.data import image_source
from projgan.errors import DataError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)  # [N, H, W, 3]


def encoded(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def png(i: int) -> bytes:
    return encoded(Image.fromarray(COLOURS[i]))


def read(images: ImageSet) -> list[NDArray[np.uint8]]:
    return [image for batch in images.batches(2) for image in batch]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    (place / "deeper").mkdir(parents=True)
    (place / "b.png").write_bytes(png(1))
    (place / "a.PNG").write_bytes(png(0))
    (place / "deeper" / "c.webp").write_bytes(
        encoded(Image.fromarray(COLOURS[2]), "WEBP", lossless=True)
    )
    (place / "notes.txt").write_text("not an image")
    return place


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_folder_zip_and_array_hold_the_same(folder: Path, tmp_path: Path) -> None:
    files = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    archive = packed(tmp_path / "a.zip", {n: f.read_bytes() for n, f in files.items()})
    last, first = tmp_path / "last.npy", tmp_path / "first.npy"
    np.save(last, COLOURS)
    np.save(first, COLOURS.transpose(0, 3, 1, 2))
    for path in (folder, archive, last, first):
        images = open_images(path)
        assert len(images) == 3
        assert images.shape == (3, 3, 12, 10)
        np.testing.assert_array_equal(read(images), COLOURS.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(
            images[np.array([2, 0])], COLOURS[[2, 0]].transpose(0, 3, 1, 2)
        )


GREY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
CASES = {
    "greyscale": (encoded(Image.fromarray(GREY)), np.stack([GREY] * 3)),
    "one bit": (
        encoded(Image.fromarray(GREY > 127)),
        np.stack([np.where(GREY > 127, 255, 0)] * 3),
    ),
    "16 bit": (
        encoded(Image.fromarray(GREY.astype(np.uint16) * 257)),
        np.stack([GREY] * 3),
    ),
    "palette": (
        encoded(Image.fromarray(COLOURS[0] // 128 * 255).quantize(8)),
        (COLOURS[0] // 128 * 255).transpose(2, 0, 1),
    ),
    "opaque": (
        encoded(Image.fromarray(COLOURS[0]).convert("RGBA")),
        COLOURS[0].transpose(2, 0, 1),
    ),
    "transparent": (encoded(Image.new("RGBA", (10, 12), (9, 9, 9, 0))), np.full((3, 12, 10), 255)),
    "transparent palette": (
        encoded(Image.new("P", (10, 12)), transparency=0),
        np.full((3, 12, 10), 255),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_mode_becomes_rgb(kind: str, tmp_path: Path) -> None:
    content, wanted = CASES[kind]
    (tmp_path / "x.png").write_bytes(content)
    np.testing.assert_array_equal(read(open_images(tmp_path))[0], wanted)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    colour = (200, 30, 90)
    cmyk = Image.new("RGB", (16, 16), colour).convert("CMYK")
    (tmp_path / "x.jpg").write_bytes(encoded(cmyk, "JPEG", quality=100, subsampling=0))
    images = open_images(tmp_path)
    assert images.jpegs == 1
    np.testing.assert_allclose(read(images)[0].mean((1, 2)), colour, atol=3)


def test_unequal_sizes_come_as_they_are(tmp_path: Path) -> None:
    for i, size in enumerate([(10, 12), (7, 9)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    batch = open_images(tmp_path)[0:2]
    assert [image.shape for image in batch] == [(3, 12, 10), (3, 9, 7)]


def test_a_truncated_file_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "b.png").write_bytes(png(1)[:-40])
    with pytest.raises(DataError, match=r"Cannot read image b\.png"):
        read(open_images(folder))
    archive = packed(tmp_path / "a.zip", {"s/x.png": png(0), "s/y.png": png(1)[:-40]})
    with pytest.raises(DataError, match=r"Cannot read image s/y\.png of .*a\.zip"):
        read(open_images(archive))


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"x.png": png(0)})
    whole = path.read_bytes()
    at = whole.index(b"x.png") + 30  # in the compressed pixels
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(DataError, match=r"x\.png of .*a\.zip"):
        read(open_images(path))
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"a\.zip"):
        open_images(path)


def test_a_zip_writes_nothing_and_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = packed(inside / "a.zip", {"../../out.png": png(0), "__MACOSX/._x.png": b"no image"})
    images = open_images(path)
    assert len(read(images)) == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "inside"]

    monkeypatch.setattr(image_source, "LARGEST", 1000)
    bomb = packed(inside / "bomb.zip", {"x.png": bytes(100_000)})
    with pytest.raises(DataError, match=r"x\.png of .* unpacks to over"):
        read(open_images(bomb))
    # A header that lies about the size: zipfile stops at it, and the image is cut short.
    lying = bytearray(bomb.read_bytes())
    at = lying.index(b"PK\x01\x02")
    struct.pack_into("<I", lying, at + 24, 500)
    bomb.write_bytes(lying)
    with pytest.raises(DataError, match=r"x\.png"):
        read(open_images(bomb))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "holds float32"),
        (np.zeros((2, 8, 8, 4), np.uint8), "of shape"),
        (np.zeros((0, 8, 8, 3), np.uint8), "of shape"),
        (np.zeros((2, 3, 8, 3), np.uint8), "first or last"),
        (np.array([{}], dtype=object), "not a whole"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(array: NDArray[np.generic], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(DataError, match=reason):
        open_images(path, "fake")


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"real=.*no such file"):
        open_images(tmp_path / "absent", "real")
    with pytest.raises(DataError, match="without a PNG"):
        open_images(tmp_path)
    with pytest.raises(DataError, match="without a PNG"):
        open_images(packed(tmp_path / "a.zip", {"x.txt": b""}))
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(DataError, match="neither a folder"):
        open_images(tmp_path / "x.tar")


def test_the_fingerprint_follows_content_and_decoder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_images(folder).fingerprint
    assert open_images(folder).fingerprint == before
    with monkeypatch.context() as patch:
        patch.setattr("PIL.__version__", "1.0")  # another decoder, other pixels perhaps
        assert open_images(folder).fingerprint != before
    (folder / "b.png").write_bytes(png(2))
    assert open_images(folder).fingerprint != before
