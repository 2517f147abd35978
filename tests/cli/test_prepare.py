"""do=prepare: every kind of source gives the same packed data set, resumes, and refuses by name."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.cli.main import main
from bench.cli.prepare import known
from bench.config import paths
from projgan.config import LIKENESSES, Data
from projgan.data import dataset as datasets
from projgan.data import image_source
from projgan.data import prepare as preparing
from projgan.data.dataset import open_dataset, subset_fingerprint, training_indices
from projgan.data.prepare import prepare
from projgan.data.sources import open_source
from projgan.errors import ConfigError, DataError

COUNT = 7
RNG = np.random.default_rng(0)
PICTURES = {
    f"{'ab'[i % 2]}/{i:02d}.png": RNG.integers(0, 256, (40 + i, 50, 3), np.uint8)
    for i in range(COUNT)
}


def encoded(name: str, alpha: bool = False) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(PICTURES[name])
    if alpha:  # CLEVR's PNGs have an alpha channel, opaque throughout
        image.putalpha(255)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def folder(place: Path) -> Path:
    for name in PICTURES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(encoded(name, alpha=True))
    (place / "a" / "notes.txt").write_text("no image")
    return place


def zipped(place: Path) -> Path:
    place.mkdir()
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        for name in reversed(PICTURES):
            archive.writestr(f"all/{name}", encoded(name))
        archive.writestr("__MACOSX/all/a/._00.png", b"")
    return place / "set.zip"


def tarred(place: Path) -> Path:
    place.mkdir()
    with tarfile.open(place / "set.tar.gz", "w:gz") as archive:
        for name in sorted(PICTURES, key=lambda n: n[::-1]):
            member = tarfile.TarInfo(f"all/{name}")
            member.size = len(encoded(name))
            archive.addfile(member, io.BytesIO(encoded(name)))
    return place / "set.tar.gz"


def database(place: Path) -> Path:
    with lmdb.open(str(place), map_size=2**26) as env, env.begin(write=True) as transaction:
        for name in PICTURES:
            transaction.put(name.encode(), encoded(name))
    return place


def exported(place: Path) -> Path:
    """Two parquet files, as the hub's exports are cut."""
    place.mkdir()
    for part, table in enumerate(tables()):
        pq.write_table(table, place / f"train-{part}.parquet")
    return place


def saved(place: Path) -> Path:
    """Two Arrow files, as `save_to_disk` cuts them, in batches; and a cache of the library's."""
    place.mkdir()
    for part, table in enumerate(tables()):
        with pa.ipc.new_stream(place / f"data-{part:05d}-of-00002.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    with pa.ipc.new_file(place / "cache-1.arrow", tables()[0].schema) as writer:
        writer.write_table(tables()[0])
    (place / "state.json").write_text("{}")
    return place


def tables() -> list[pa.Table]:
    found = []
    names = sorted(PICTURES)
    about = {"info": {"features": {"label": {"names": ["a", "b"]}}}}
    for chosen in (names[:3], names[3:]):
        images = [{"bytes": encoded(n), "path": n} for n in chosen]
        labels = ["ab".index(n[0]) for n in chosen]
        table = pa.table({"image": images, "label": labels})
        found.append(table.replace_schema_metadata({"huggingface": json.dumps(about)}))
    return found


SOURCES: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "zip": zipped,
    "tar": tarred,
    "lmdb": database,
    "parquet": exported,
    "arrow": saved,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_data_set(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](tmp_path / "source")
    made = prepare("set", source, 32, tmp_path)
    assert made == tmp_path / "set-32px" and open_source(source).kind == kind
    found = open_dataset(Data(name="set", resolution=32), tmp_path)
    wanted = [image_source.fit(Image.fromarray(PICTURES[n]), 32) for n in sorted(PICTURES)]
    assert np.array_equal(found.images, wanted)
    # An LMDB has keys, which are no folders.
    labels = ["ab".index(name[0]) for name in sorted(PICTURES)]
    assert found.labels is None if kind == "lmdb" else found.labels.tolist() == labels  # type: ignore[union-attr]
    assert sorted(f.name for f in made.iterdir()) == sorted(
        ["images.npy", "meta.json", "order.npy", *([] if kind == "lmdb" else ["labels.npy"])]
    )
    again = open_dataset(Data(name="x", path=str(made), resolution=32), tmp_path)
    assert again.fingerprint == found.fingerprint


@pytest.mark.parametrize("kind", SOURCES)
def test_an_interrupted_call_goes_on(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES[kind](tmp_path / "source")
    whole = prepare("whole", source, 32, tmp_path)
    monkeypatch.setattr(preparing, "CHUNK", 2)
    monkeypatch.setattr(image_source, "AT_ONCE", 2)
    read: list[str] = []
    decode = image_source.decode_image

    def counted(content: bytes, name: str) -> Image.Image:
        read.append(name)
        return decode(content, name)

    def stop(what: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(image_source, "decode_image", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare("cut", source, 32, tmp_path, stop)
    assert not (tmp_path / "cut-32px" / "meta.json").exists() and len(read) == 4
    cut = prepare("cut", source, 32, tmp_path)
    assert len(read) == COUNT  # none twice
    for file in whole.iterdir():
        assert (cut / file.name).read_bytes() == file.read_bytes()
    assert prepare("cut", source, 32, tmp_path) == cut and len(read) == COUNT  # nothing to do


MANY = 3000


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_a_killed_command_goes_on(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 at any moment, again and again, until a call comes to its end."""
    pictures = {
        f"{'ab'[i % 2]}/{i:04d}.png": RNG.integers(0, 256, (40, 50, 3), np.uint8)
        for i in range(MANY)
    }
    monkeypatch.setitem(globals(), "PICTURES", pictures)
    source = SOURCES[kind](tmp_path / "source")
    words = [sys.executable, str(paths.ROOT / "run_bench.py"), "do=prepare", "data=cut",
             f"source={source}", "data.resolution=32", f"data_dir={tmp_path}"]  # fmt: skip
    noted, begun = tmp_path / "cut-32px" / "progress.json", []
    for _ in range(3):
        before = noted.read_bytes() if noted.exists() else b""
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
            while call.poll() is None and (noted.read_bytes() if noted.exists() else b"") == before:
                time.sleep(0.001)
            call.kill()
        if not noted.exists():
            break
        begun.append(json.loads(noted.read_text())["done"])
    assert begun and begun == sorted(set(begun)) and begun[0] < MANY
    assert not (tmp_path / "cut-32px" / "meta.json").exists()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"cut: {MANY} images" in done.stdout
    whole = prepare("whole", source, 32, tmp_path)
    names = sorted(file.name for file in whole.iterdir())
    assert sorted(file.name for file in (tmp_path / "cut-32px").iterdir()) == names
    for name in names:
        assert (tmp_path / "cut-32px" / name).read_bytes() == (whole / name).read_bytes()


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    place = folder(tmp_path / "source")
    (place / "b" / "03.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b/03\.png of .*source"):
        prepare("set", place, 32, tmp_path)
    with pytest.raises(DataError, match="neither rendered here"):
        open_dataset(Data(name="set", resolution=32), tmp_path)
    (place / "b" / "03.png").write_bytes(encoded("b/03.png"))
    assert prepare("set", place, 32, tmp_path).is_dir()
    other = zipped(tmp_path / "other")
    with pytest.raises(DataError, match="from another source"):
        prepare("set", other, 32, tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_text("text"), "neither a folder nor a zip"),
        (lambda p: p.mkdir(), "without a PNG"),
        (lambda p: p.with_name("x").mkdir() or p.write_bytes(b"PK\x05\x06" + bytes(18)), "zip"),
    ],
)
def test_no_source(make: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    make(tmp_path / "s")
    with pytest.raises(DataError, match=words):
        open_source(tmp_path / "s")


def test_a_damaged_data_set_is_refused(tmp_path: Path) -> None:
    made = prepare("set", folder(tmp_path / "source"), 32, tmp_path)
    pixels = bytearray((made / "images.npy").read_bytes())
    pixels[-1] ^= 1
    (made / "images.npy").write_bytes(pixels)
    with pytest.raises(DataError, match="damaged; delete"):
        open_dataset(Data(name="set", resolution=32), tmp_path)
    with pytest.raises(DataError, match=r"data\.resolution=64"):
        open_dataset(Data(name="x", path=str(made), resolution=64), tmp_path)


def test_subsets_are_nested_and_of_the_same_images_whatever_the_order(tmp_path: Path) -> None:
    one = folder(tmp_path / "source")
    prepare("one", one, 32, tmp_path)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, file in enumerate(sorted(one.rglob("*.png"), reverse=True)):
        (renamed / f"{number}.png").write_bytes(file.read_bytes())
    prepare("two", renamed, 32, tmp_path)
    found = {}
    for name in ("one", "two"):
        held = open_dataset(Data(name=name, resolution=32), tmp_path)
        for n in (2, 4):
            chosen = training_indices(Data(name=name, subset=n), COUNT, held.order)
            found[name, n] = {held.images[i].tobytes() for i in chosen}
            found[name, n, "hash"] = {subset_fingerprint(held, chosen)}
    assert found["one", 2] < found["one", 4]
    for n in (2, 4):
        assert found["one", n] == found["two", n]
        assert found["one", n, "hash"] == found["two", n, "hash"]
    assert found["one", 2, "hash"] != found["one", 4, "hash"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = zipped(tmp_path / "source")
    words = ["do=prepare", f"source={source}", f"data_dir={tmp_path}", "data.resolution=64"]
    assert main([*words, "data=mine"]) == 0
    assert "mine: 7 images, 2 classes of zip set.zip" in capsys.readouterr().out
    for more, said in (
        (["data=lsun_church"], "source holds 7 images, but lsun_church"),
        (["data=clevr"], "rendered here"),
        (["data=other", "train.batch=3"], "do=prepare does not use train.batch="),
        ([], "needs data=NAME source=PATH"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert main([*words, "data=pokemon"]) == 0  # its count is from memory: told, not refused
    assert "listed with 833" in capsys.readouterr().out


def test_the_papers_data_sets_are_listed() -> None:
    from bench.config import grid as grids

    wanted: dict[str, set[int]] = {}
    for name in ("sota", "sota-high"):
        for run in grids.load(name, "paper").runs:
            wanted.setdefault(run.config.data.name, set()).add(run.config.data.resolution)
    assert {name: set(entry.resolutions) for name, entry in known().items()} == wanted


def test_every_data_set_says_what_a_user_must_know() -> None:
    text = paths.DATASETS.read_text()
    for name, entry in known().items():
        assert entry.get.startswith("https://") and entry.title and entry.licence, name
        assert entry.size_gb is None or 0 < entry.size_gb < 200, name
    assert text.count("size_gb:") == len(known())  # null where it is not known
    with (paths.PAPER / "supplement_dataset_sizes.csv").open() as file:
        listed = {line["dataset"]: int(line["images"]) for line in csv.DictReader(file)}
    counts = {name.lower(): entry.images for name, entry in known().items()}
    assert {re.sub("[- ]", "_", name.lower()): n for name, n in listed.items()} == counts


def test_likenesses_are_what_is_rendered_here() -> None:
    """A prepared data set of the paper's name is the paper's, and verdicts may compare it."""
    assert set(LIKENESSES) == datasets.RENDERED.keys()
    assert not known().keys() & datasets.RENDERED.keys()


def test_box_is_the_mean_of_a_block_and_lies_beside_lanczos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two data sets of one source, which no run takes for each other."""
    place = tmp_path / "source"
    place.mkdir()
    pictures = [RNG.integers(0, 256, (128, 160, 3), np.uint8) for _ in range(2)]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(place / f"{i}.png")
    words = ["do=prepare", "data=set", f"source={place}", f"data_dir={tmp_path}", "data.resolution=32"]  # fmt: skip  # noqa: E501
    assert main([*words, "data.filter=box"]) == 0
    assert "data.name=set data.resolution=32 data.filter=box" in capsys.readouterr().out
    config = Data(name="set", resolution=32, filter="box")
    with pytest.raises(
        DataError, match=r"do=prepare data=set source=PATH data.resolution=32 makes"
    ):
        open_dataset(replace(config, filter="lanczos"), tmp_path)
    boxed = open_dataset(config, tmp_path)
    for image, picture in zip(boxed.images, pictures, strict=True):
        blocks = picture[:, 16:144].reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.abs(image.transpose(1, 2, 0) - blocks).max() <= 1  # Pillow rounds each direction
    assert main(words) == 0
    smooth = open_dataset(replace(config, filter="lanczos"), tmp_path)
    assert smooth.fingerprint != boxed.fingerprint
    again = open_dataset(Data(name="x", path=str(place), resolution=32, filter="box"), tmp_path)
    assert np.array_equal(again.images, boxed.images)  # packed from the path, apart from the other
    plain = open_dataset(Data(name="x", path=str(place), resolution=32), tmp_path)
    assert np.array_equal(plain.images, smooth.images)
    with pytest.raises(DataError, match=r"data\.filter=lanczos: .* was resized by box"):
        open_dataset(Data(name="x", path=str(tmp_path / "set-32px-box"), resolution=32), tmp_path)
    with pytest.raises(ConfigError, match=r"data\.filter=box: data\.name=clevr is rendered"):
        Data(name="clevr", resolution=32, filter="box")
    assert main([*words, "data.filter=cubic"]) == 2
    assert "data.filter" in capsys.readouterr().err
