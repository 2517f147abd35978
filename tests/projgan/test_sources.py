"""What is an image, and of which class: one rule for do=prepare, do=score and data.path."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.cli.main import main
from projgan.config import Data
from projgan.data import image_source
from projgan.data import prepare as preparing
from projgan.data.dataset import open_dataset
from projgan.errors import DataError

RNG = np.random.default_rng(0)
Capture = pytest.CaptureFixture[str]


def png(kind: str = "PNG", image: Image.Image | None = None) -> bytes:
    file = io.BytesIO()
    made = image or Image.fromarray(RNG.integers(0, 256, (32, 32, 3), np.uint8))
    made.save(file, kind)
    return file.getvalue()


def as_folder(place: Path, members: Mapping[str, bytes]) -> Path:
    for name, content in members.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def as_zip(place: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return place


def as_tar(place: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(place, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return place


KINDS = {"folder": as_folder, "zip": as_zip, "tar": as_tar}
Packer = Callable[[Path, Mapping[str, bytes]], Path]


@pytest.fixture(params=KINDS)
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    return lambda members: KINDS[request.param](tmp_path / "source", members)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(source: Path, *more: str, name: str = "set") -> int:
    words = [f"source={source}", f"data={name}", "data.resolution=32"]
    return main(["do=prepare", *words, *more])


def meta(name: str = "set") -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(f"data/{name}-32px/meta.json").read_text())
    return found


def labels(name: str = "set") -> list[int] | None:
    file = Path(f"data/{name}-32px/labels.npy")
    return np.load(file).tolist() if file.exists() else None


def score(source: Path) -> int:
    return main(["do=score", f"real={source}", f"fake={source}", "metrics=swd"])


def train(source: Path, *more: str) -> int:
    return main(["grid=smoke", f"data.path={source}", "data.images=null", *more])


def taken(source: Path, capsys: Capture) -> tuple[list[int], str]:
    """How many images each of the three takes, and what was said."""
    assert prepare(source) == 0 and score(source) == 0
    said = capsys.readouterr().out
    scored = re.search(r"^(\d+) images of \S+ against (\d+)", said, re.M)
    assert scored and scored[1] == scored[2]
    packed = open_dataset(Data(name="path", path=str(source), resolution=32), Path("other"))
    assert np.unique(packed.images.reshape(len(packed.images), -1), axis=0).shape[0] > 1
    return [int(str(meta()["count"])), int(scored[1]), len(packed.images)], said


def refused(source: Path, capsys: Capture) -> str:
    """The line that all three refuse with."""
    found = set()
    for key, verb in (("source", prepare), ("real", score), ("data.path", train)):
        assert verb(source) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        found.add(line.replace(f"{key}=", "KEY="))
    assert len(found) == 1, found
    return found.pop()


HIDDEN = (
    ".ipynb_checkpoints/0-checkpoint.png", "a/.thumbnails/0.png", ".0.png",
    "__MACOSX/0.png", "a/@eaDir/0.png", "$RECYCLE.BIN/0.png",
)  # fmt: skip


def test_hidden_files_are_no_images_and_what_is_passed_over_is_said(
    packed: Callable[..., Path], place: Path, capsys: Capture
) -> None:
    members = {f"a/{i}.png": png() for i in range(4)}
    others = {name: png() for name in (*HIDDEN, "a/0.gif", "notes.txt", "a/README")}
    counts, said = taken(packed(members | others), capsys)
    assert counts == [4, 4, 4]
    line = r"^note: passed over in \S+source: 1 \.gif, 1 \.txt, 6 hidden, 1 without a suffix$"
    assert len(re.findall(line, said, re.M)) == 2  # of do=prepare, and of do=score


def test_what_training_passes_over_is_said_before_it_begins(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = as_zip(place / "s", {"0.png": png(), "1.png": png(), "2.gif": b""})
    monkeypatch.setattr("bench.run.preflight._check_networks", lambda cfg: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(source)
    assert capsys.readouterr().out == f"note: passed over in {source}: 1 .gif\n"


def test_what_is_empty_but_for_the_hidden_says_so(
    packed: Callable[..., Path], place: Path, capsys: Capture
) -> None:
    assert "2 hidden" in refused(packed({".a/0.png": png(), ".1.png": png()}), capsys)


def test_linked_folders_are_followed_and_loops_end(place: Path, capsys: Capture) -> None:
    as_folder(place / "far" / "deep", {f"{i}.png": png() for i in range(3)})
    source = as_folder(place / "source", {"own.png": png()})
    (source / "far").symlink_to(place / "far")
    (source / "far" / "back").symlink_to(source)
    (source / "one.png").symlink_to(source / "own.png")
    counts, said = taken(source, capsys)
    assert counts == [5, 5, 5] and "1 link that leads back" in said
    links = place / "links"
    links.mkdir()
    for i in range(2):
        (links / f"{i}.png").symlink_to(source / "far" / "deep" / f"{i}.png")
    (links / "deep").symlink_to(place / "far" / "deep")
    assert taken_by_path(links) == 5


def taken_by_path(source: Path) -> int:
    return len(open_dataset(Data(name="x", path=str(source), resolution=32), Path("more")).images)


@pytest.mark.parametrize("name", ["2.png", "folder", "v1.0"])
def test_dead_links_are_named(name: str, place: Path, capsys: Capture) -> None:
    source = as_folder(place / "s", {"a/0.png": png(), "a/1.png": png()})
    (source / "a" / name).symlink_to(place / "gone")
    assert f"a/{name} is a dead link (to {place}/gone)" in refused(source, capsys)


def test_a_folder_that_may_not_be_read_is_named(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = as_folder(place / "s", {"0.png": png(), "1.png": png(), "locked/2.png": png()})
    scandir = os.scandir

    def denied(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", denied)
    assert "cannot be read (Permission denied" in (line := refused(source, capsys))
    assert "s/locked" in line


def test_links_within_an_archive(place: Path, capsys: Capture) -> None:
    source = place / "s.tar"
    with tarfile.open(source, "w") as archive:
        member = tarfile.TarInfo("a/0.png")
        member.size = len(content := png())
        archive.addfile(member, io.BytesIO(content))
        for name, kind, to in (("a/1.png", tarfile.LNKTYPE, "a/0.png"),
                               ("a/2.png", tarfile.SYMTYPE, "0.png")):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, to
            archive.addfile(member)
    assert taken_by_path(source) == 3 and prepare(source) == 0 and score(source) == 0
    link = zipfile.ZipInfo("2.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    source = as_zip(place / "s.zip", {"0.png": png(), "1.png": png()})
    with zipfile.ZipFile(source, "a") as zipped:
        zipped.writestr(link, "0.png")
    assert "2.png is a link" in refused(source, capsys)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("F", (32, 32), 0.5), "TIFF of floating point values"),
        (Image.new("I", (32, 32), 70000), "TIFF of 32-bit values"),
        (Image.new("I;16", (32, 32), 257 * 9), None),
        (Image.new("1", (32, 32)), None),
    ],
)
def test_values_without_a_range_are_refused_by_name(
    image: Image.Image, words: str | None, packed: Callable[..., Path], place: Path, capsys: Capture
) -> None:
    source = packed({"a/0.tif": png("TIFF", image), "a/1.png": png()})
    if words is None:
        assert taken(source, capsys)[0] == [2, 2, 2]
        return
    line = refused_by_name(source, capsys)
    assert "a/0.tif of" in line and words in line and "BytesIO" not in line


def refused_by_name(source: Path, capsys: Capture) -> str:
    for verb in (prepare, score):
        assert verb(source) == 2
    with pytest.raises(DataError) as error:
        taken_by_path(source)
    line = capsys.readouterr().err.splitlines()[0]
    assert line == f"error: {error.value}"
    return line


def test_a_tiff_of_12_bits_is_refused(place: Path, capsys: Capture) -> None:
    content = bytearray(png("TIFF", Image.new("I;16", (32, 32), 4095)))
    at = content.index(b"\x02\x01\x03\x00\x01\x00\x00\x00\x10\x00")  # BitsPerSample: one, 16
    content[at + 8] = 12
    source = as_folder(place / "s", {"0.tif": bytes(content), "1.png": png()})
    assert "0.tif of" in refused_by_name(source, capsys)


@pytest.mark.parametrize("pack", [as_folder, as_tar])
def test_names_that_are_no_utf8(pack: Packer, place: Path, capsys: Capture) -> None:
    bad = os.fsdecode(b"caf\xe9")
    members = {f"{folder}/{i}.png": png() for folder in ("a", bad) for i in range(2)}
    source = pack(place / bad, members)
    assert taken(source, capsys)[0] == [4, 4, 4]
    assert labels() == [0, 0, 1, 1] and prepare(source) == 0
    assert main(["do=score", f"real={source}", f"fake={source}", "metrics=swd", "out=o.json"]) == 0
    assert "caf" in json.loads(Path("o.json").read_text())["real"]["path"]
    pack(source, members | {f"{bad}/0.png": b"no image"})
    assert prepare(source, name="other") == 2
    assert "udce9/0.png of" in capsys.readouterr().err


@pytest.mark.parametrize("pack", [as_zip, as_tar])
@pytest.mark.parametrize("twice", ["a/0.png", "./a/0.png", "a//0.png", "a\\0.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(
    twice: str, pack: Packer, place: Path, capsys: Capture
) -> None:
    class Twice(dict[str, bytes]):
        def items(self) -> list[tuple[str, bytes]]:  # type: ignore[override]
            return [("a/0.png", png()), ("a/1.png", png()), (twice, png())]

    line = refused(pack(place / "source", Twice()), capsys)
    assert "two members of the name a/0.png" in line


FOUR = ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "train/dog/1.png")
PAIRS = [["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1], ["dog/1.png", 1]]


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ({"train/dataset.json": PAIRS}, [0, 0, 1, 1]),
        ({"train/dataset.json": dict(PAIRS)}, [0, 0, 1, 1]),  # type: ignore[dict-item]
        ({"dataset.json": [[f"train\\{n}".replace("/", "\\"), c + 2] for n, c in PAIRS]},  # type: ignore[operator, str-bytes-safe]
         [2, 2, 3, 3]),
        ({"dataset.json": [[f"./train/{n}", c] for n, c in PAIRS]}, [0, 0, 1, 1]),
        ({"dataset.json": None}, None),
        ({"train/cat/dataset.json": [["0.png", 5], ["1.png", 6]],
          "train/dog/dataset.json": [["0.png", 7], ["1.png", 8]]}, [5, 6, 7, 8]),
        ({".hidden/dataset.json": [["0.png", 9]]}, [0, 0, 1, 1]),  # of the folders
        ({"dataset.json": PAIRS}, "dataset.json gives no class to 4 of 4"),
        ({"dataset.json": [["0.png", 1]]}, "dataset.json gives no class to 4 of 4"),
        ({"train/dataset.json": PAIRS[:3]}, "no class to 1 of 4 images, train/dog/1.png first"),
        ({"train/dataset.json": [*PAIRS[:3], ["dog/1.png", 0.5]]}, "gives dog/1.png the label 0.5"),
        ({"train/dataset.json": [*PAIRS[:3], ["dog/1.png", [1, 0]]]}, "the label [1, 0]; a class"),
        ({"train/dataset.json": [*PAIRS[:3], ["dog/1.png", "1"]]}, "the label '1'; a class is a"),
        ({"train/dataset.json": [*PAIRS[:3], ["dog/1.png", True]]}, "the label True"),
        ({"train/dataset.json": [*PAIRS[:3], ["dog/1.png", -1]]}, "the label -1"),
        ({"train/dataset.json": [*PAIRS[:3], ["dog/1.png", None]]}, "the label None"),
        ({"train/dataset.json": [*PAIRS, ["dog/1.png", 0]]}, "gives dog/1.png two classes"),
        ({"train/dataset.json": "x"}, 'is not {"labels": [[name, class], …]}'),
        ({"train/dataset.json": []}, "train/dataset.json lists no image"),
    ],
)  # fmt: skip
def test_classes_by_dataset_json(
    listed: dict[str, object], wanted: list[int] | str | None, packed: Callable[..., Path],
    place: Path, capsys: Capture,
) -> None:  # fmt: skip
    lists = {name: json.dumps({"labels": said}).encode() for name, said in listed.items()}
    source = packed({name: png() for name in FOUR} | lists)
    assert prepare(source) == (2 if isinstance(wanted, str) else 0)
    said = capsys.readouterr()
    if isinstance(wanted, str):
        assert wanted in said.err and said.err.count("\n") == 1 and not Path("data").exists()
    else:
        assert labels() == wanted
    assert taken_by_path(source) == 4  # whoever needs no classes is not refused


def test_a_last_part_decides_where_it_is_unique(place: Path, capsys: Capture) -> None:
    said = json.dumps({"labels": [["x/a.png", 1], ["x/b.png", 0], ["x/c.png", 0]]}).encode()
    members = {"all/a.png": png(), "all/b.png": png(), "dataset.json": said}
    assert prepare(as_zip(place / "s", members)) == 0 and labels() == [1, 0]
    assert "note: entries of dataset.json without an image here: 1" in capsys.readouterr().out


def test_backslashes_part_folders(packed: Callable[..., Path], place: Path) -> None:
    assert prepare(packed({f"{c}\\{i}.png": png() for c in "ab" for i in range(2)})) == 0
    assert labels() == [0, 0, 1, 1] and meta()["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("said", "wanted", "words"),
    [
        ([1, 0], [1, 0], "2 images"),
        ([-1, -1], None, "note: column label gives no image a class"),
        ([0.5, 1.0], None, "note: column label holds double and no numbers"),
        ([0, -1], 2, "column label gives t.parquet:1 the label -1; a class"),
        ([0, None], 2, "the label None"),
    ],
)
def test_classes_of_an_export(
    said: list[object], wanted: list[int] | int | None, words: str, place: Path, capsys: Capture
) -> None:
    pq.write_table(pa.table({"image": [png(), png()], "label": said}), place / "t.parquet")
    assert prepare(place / "t.parquet") == (2 if wanted == 2 else 0)
    assert words in "".join(capsys.readouterr())
    assert wanted == 2 or labels() == wanted


def test_tables_beside_images_are_told_from_tables_of_images(place: Path, capsys: Capture) -> None:
    source = as_folder(place / "s", {"0.png": png(), "1.png": png()})
    pq.write_table(pa.table({"caption": ["x", "y"]}), source / "metadata.parquet")
    counts, said = taken(source, capsys)
    assert counts == [2, 2, 2] and "1 .parquet" in said
    pq.write_table(pa.table({"image": [png()] * 3}), source / "metadata.parquet")
    assert prepare(source, name="export") == 0
    assert "2 image outside its tables" in capsys.readouterr().out


def change(source: Path, kind: str, how: str) -> None:
    """Other content under the same names, with the same dates as far as a tool can give them."""
    members = {f"{c}/{i}.bmp": png("BMP") for c in "ab" for i in range(4)}
    if how == "labels":
        members["dataset.json"] = json.dumps({"labels": [[n, 0] for n in members]}).encode()
    if how == "names":
        members["c/9.bmp"] = png("BMP")
    dates = {file: file.stat() for file in [source, *source.rglob("*")]}
    KINDS[kind](source, members)
    for file, stat in dates.items():
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("how", "kind"),
    [*(("pixels", kind) for kind in KINDS), ("labels", "folder"), ("names", "zip")],
)
def test_a_changed_source_is_never_done(how: str, kind: str, place: Path, capsys: Capture) -> None:
    members = {f"{c}/{i}.bmp": png("BMP") for c in "ab" for i in range(4)}
    source = KINDS[kind](place / "source", members)
    assert prepare(source) == 0
    files = {f.name: f.read_bytes() for f in Path("data/set-32px").iterdir()}
    change(source, kind, how)
    for _ in range(2):
        assert prepare(source) == 2
        line = capsys.readouterr().err
        assert "holds data=set" in line or "other images of data=set" in line
        assert "force=true" in line and "another data=" in line
        assert {f.name: f.read_bytes() for f in Path("data/set-32px").iterdir()} == files
    assert prepare(source, "force=true") == 0
    assert prepare(source, name="anew") == 0
    for file in Path("data/set-32px").iterdir():
        assert file.read_bytes() == Path("data/anew-32px", file.name).read_bytes()
    assert {f.name for f in Path("data/set-32px").iterdir()} == {
        f.name for f in Path("data/anew-32px").iterdir()
    }


def test_a_source_with_other_dates_is_compared_and_not_refused(place: Path) -> None:
    source = as_folder(place / "s", {f"{i}.png": png() for i in range(3)})
    assert prepare(source) == 0
    before, state = Path("data/set-32px/images.npy").read_bytes(), meta()["state"]
    os.utime(source / "0.png", ns=(1, 1))
    assert prepare(source) == 0 and Path("data/set-32px/images.npy").read_bytes() == before
    assert meta()["state"] != state
    # One that an earlier version prepared says nothing of its source's dates.
    old = {key: value for key, value in meta().items() if key != "state"}
    Path("data/set-32px/meta.json").write_text(json.dumps(old))
    assert prepare(source) == 0 and "state" in meta()
    Path("data/set-32px/images.npy").unlink()
    assert prepare(source) == 0 and Path("data/set-32px/images.npy").read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_interrupted_goes_on_with_the_same_source_alone(
    kind: str, place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"{i}.png": png() for i in range(6)}
    source = KINDS[kind](place / "s", members)
    monkeypatch.setattr(preparing, "CHUNK", 2)
    monkeypatch.setattr(image_source, "AT_ONCE", 2)

    def interrupt() -> None:
        def stop(what: str, done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            preparing.prepare("set", source, 32, Path("data"), stop, anew=True)

    interrupt()
    assert prepare(source) == 0
    Path("data/set-32px/meta.json").unlink()
    interrupt()
    members["1.png"] = png()
    KINDS[kind](source, members)
    assert prepare(source) == 2
    assert "holds 4 images that an interrupted do=prepare packed of" in capsys.readouterr().err
    assert prepare(source, "force=true") == 0 and prepare(source, name="anew") == 0
    pixels = [Path(f"data/{name}-32px/images.npy").read_bytes() for name in ("set", "anew")]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("last", "asked", "words"),
    [
        (1, ["data.classes=5"], "has classes 0 to 1; give data.classes=2"),
        (0, ["data.classes=5"], "has classes 0 to 0; leave data.classes out"),
        (2, ["data.classes=3"], "no image of class 1 is in data/set-32px; number"),
        (1, ["data.classes=2", "data.subset=2"], "no image of class 1 is in data.subset=2 of"),
    ],
)
def test_classes_are_held_against_the_labels_before_anything_runs(
    last: int, asked: list[str], words: str, verb: str, place: Path, capsys: Capture
) -> None:
    members = {f"{i}.png": png() for i in range(6)}
    assert prepare(as_folder(place / "s", members)) == 0
    order = np.load("data/set-32px/order.npy").tolist()
    said = {"labels": [[f"{i}.png", last if i == order[-1] else 0] for i in range(6)]}
    (place / "s" / "dataset.json").write_text(json.dumps(said))
    assert prepare(place / "s", "force=true") == 0
    capsys.readouterr()
    ask = ["grid=smoke", f"do={verb}", "data.name=set", "data.resolution=32", "data.images=null"]
    assert main([*ask, *asked]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1 and not Path("runs").exists()


def test_one_image_is_one_line(packed: Callable[..., Path], place: Path, capsys: Capture) -> None:
    source = packed({"0.png": png()})
    assert train(source) == 2
    assert f"data.path={source} is one image: nothing" in (line := capsys.readouterr().err)
    assert line.count("\n") == 1 and not Path("runs").exists()
    assert prepare(source) == 0
    for more in (["data.name=set", "data.resolution=32"], ["data.images=1"]):
        assert main(["grid=smoke", *more]) == 2
        assert "is one image: nothing can be learned" in capsys.readouterr().err
