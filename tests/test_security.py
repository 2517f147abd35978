"""Files from elsewhere are data: nothing in them is executed, and no name leaves its folder."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_records import make_grid, make_record
from PIL import Image

from bench.analysis import table as table_data
from bench.analysis.cells import cells, read_runs
from bench.config import grid as grids
from bench.config.columns import Column
from bench.config.paths import RunPaths
from bench.config.spec import ReportSpec
from bench.metrics.image_folder import open_images
from bench.metrics.statistics import load_features
from bench.report import tables
from bench.report.sample_sheets import sheets
from projgan.backbones.build import read_weights
from projgan.checkpoint import load_checkpoint, read_checkpoint
from projgan.config import Data
from projgan.data.dataset import open_dataset
from projgan.errors import DataError, UserError
from projgan.sample import load_generator

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("projgan/**/*.py"), *ROOT.glob("bench/**/*.py"), ROOT / "run_bench.py"])


class Trap:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def poisoned(trace: Path) -> dict[str, bytes]:
    """Malicious files by kind: a bare pickle, torch's archive around one, an array of objects."""
    bare = pickle.dumps(Trap(trace))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", bare)
        file.writestr("archive/version", "3")
        file.writestr("archive/byteorder", "little")
    array = io.BytesIO()
    np.save(array, np.array([Trap(trace)], dtype=object), allow_pickle=True)
    arrays = io.BytesIO()
    np.savez(arrays, key=np.array([Trap(trace)], dtype=object))
    return {
        "pickle": bare, "torch": archive.getvalue(), "npy": array.getvalue(),
        "npz": arrays.getvalue(),
    }  # fmt: skip


# Loaders that run what a file holds, as the project never calls them.
UNSAFE: dict[str, Callable[[bytes], Any]] = {
    "pickle": pickle.loads,
    "torch": lambda data: torch.load(io.BytesIO(data), weights_only=False),
    "npy": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
    "npz": lambda data: np.load(io.BytesIO(data), allow_pickle=True)["key"],
}


def packed(path: Path, data_dir: Path) -> None:
    """Opens packed data whose pixels are the file at `path`, with the hash that it should have."""
    folder = data_dir / "clevr-32px-4-v1"
    origin = open_dataset(Data(name="clevr", resolution=32, images=4), data_dir)
    folder = next(data_dir.glob("clevr-32px-4-*"))
    assert origin.images.shape == (4, 3, 32, 32)
    (folder / "images.npy").unlink()
    (folder / "images.npy").write_bytes(path.read_bytes())
    meta = json.loads((folder / "meta.json").read_text())
    meta["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta))
    open_dataset(Data(name="clevr", resolution=32, images=4), data_dir)


@pytest.mark.parametrize("kind", ["pickle", "torch", "npy", "npz"])
def test_no_loader_runs_what_a_file_holds(tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "executed"
    data = poisoned(trace)[kind]
    UNSAFE[kind](data)  # the trap is a real one
    trace.unlink()

    def file(name: str, content: bytes = data) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    # With the checksum that a checkpoint should have, as whoever writes the file can compute it.
    signed = b"PGCKPT1\n" + hashlib.sha256(data).digest() + data
    with pytest.raises(DataError):
        read_checkpoint(file("checkpoint.pt", signed))
    assert load_checkpoint(tmp_path / "checkpoint.pt") is None
    for name in ("weights.pt", "weights.pth", "weights.bin", "weights.safetensors"):
        with pytest.raises(DataError):
            read_weights(file(name), "fetch them again")
    with pytest.raises(DataError):
        load_generator(file("generator.safetensors"))
    for name in ("set.npy", "set.zip"):
        with pytest.raises(UserError):
            open_images(file(name))
    assert load_features(file("features.npz"), "key") is None
    with pytest.raises(UserError):
        packed(file("images"), tmp_path / "data")
    assert not trace.exists()


def test_members_of_an_archive_stay_in_it(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    path = tmp_path / "here" / "images.zip"
    path.parent.mkdir()
    names = ["../escaped.png", "/tmp/escaped.png", "a/../../escaped.png", "good.png"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, picture.getvalue())
    images = open_images(path)
    assert [image.shape for batch in images.batches(2) for image in batch] == [(3, 8, 8)] * 4
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["here", "images.zip"]


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def test_no_line_of_the_project_could_load_a_pickle_or_unsafe_yaml() -> None:
    looked_at = 0
    for path in FILES:
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            where = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
            if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
                looked_at += 1
                assert keywords.get("weights_only") == "True", where
            if name in ("np.load", "numpy.load"):
                looked_at += 1
                assert keywords.get("allow_pickle", "False") == "False", where
            if name.startswith("yaml."):
                looked_at += 1
                safe = "Safe" in keywords.get("Loader", "") or name.startswith("yaml.safe_")
                # An error is raised by its name; it reads nothing.
                assert safe or name in ("yaml.dump", "yaml.constructor.ConstructorError"), where
            forbidden = ("pickle.load", "pickle.loads", "dill.", "joblib.load", "marshal.load",
                         "shelve.", "eval", "exec", "os.system", "cloudpickle.load")  # fmt: skip
            assert not any(name == f or (f.endswith(".") and name.startswith(f))
                           for f in forbidden), where  # fmt: skip
            assert keywords.get("shell") != "True", where
            assert not name.endswith(".extractall") or "filter" in keywords, where
    assert looked_at > 5


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", "..", "a\\b", "reference", "", ".hidden"])
def test_a_grid_name_cannot_leave_results(tmp_path: Path, name: str) -> None:
    text = json.dumps({"name": name, "about": "x", "rows": [{"label": "A"}]})
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(UserError, match="folder of results"):
        grids.load(str(tmp_path / "g.yaml"))


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", "..", "a\\b", "", "x\0y"])
def test_a_name_of_data_cannot_leave_the_data_folder(name: str) -> None:
    with pytest.raises(UserError, match="folder's name"):
        Data(name=name)


def test_a_record_cannot_name_a_file_outside_its_run(tmp_path: Path) -> None:
    grid = make_grid({"A": {}, "../../B <i>": {"train.batch": 16}}, ReportSpec(rank_by="fd_lab"))
    secret = tmp_path / "secret.png"
    Image.new("RGB", (256, 256), "red").save(secret)
    for spec in grid.runs:
        run = RunPaths(tmp_path / "runs" / spec.run_id)
        record = make_record(spec, {1000: {"fd_lab": 1.0}})
        record["snapshots"][-1]["samples"] = "../../secret.png"
        run.dir.mkdir(parents=True)
        run.record.write_text(json.dumps(record))
    told: list[str] = []
    files = sheets(cells(read_runs(grid.runs, tmp_path / "runs")), told.append)
    assert secret.read_bytes() not in files.values()
    assert len(told) == 1 and "A and 1 more row are shown without" in told[0]
    assert all(name.count("/") <= 1 and ".." not in name for name in files)


NASTY = (
    r"\input{/etc/passwd} & % $x$ #1 _a ^b ~ {c} "
    '<script>alert("1")</script> `rm` [a](javascript:1)'
)


def test_names_are_text_in_every_output() -> None:
    label, note = NASTY, f"{NASTY}\nsecond line"
    entry = table_data.Entry(1.0, notes=(note,))
    table = table_data.Table(
        "t", NASTY, (Column("label", "row", text=True), Column("v", NASTY)),
        (table_data.Row((table_data.Entry(text=label), entry)),
         table_data.Row((table_data.Entry(text="B"), table_data.Entry()), "failed", NASTY)),
        notes=(note,),
    )  # fmt: skip
    tex = tables.to_latex(table)
    assert r"\input" not in tex and "<script" not in tex
    body = tex.split(r"\midrule")[1]
    assert body.count("&") - body.count(r"\&") == 2  # one in each of the two rows
    assert "%" not in tex.replace(r"\%", "") and "#" not in tex.replace(r"\#", "")
    md = tables.to_markdown(table)
    assert "<script" not in md.replace(r"\<script", "") and "[a](" not in md
    assert len([line for line in md.splitlines() if line.startswith("|")]) == 4


def test_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    (tmp_path / "self.yaml").write_text("name: &a [*a]")
    for name in ("bomb", "self"):
        with pytest.raises(UserError, match="unfold to more than"):
            grids.load(str(tmp_path / f"{name}.yaml"))


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    tag = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{trace}]]"
    (tmp_path / "g.yaml").write_text(f"name: g\nabout: {tag}\nrows: [{{label: A}}]\n")
    with pytest.raises(UserError, match="not valid YAML"):
        grids.load(str(tmp_path / "g.yaml"))
    assert not trace.exists()
