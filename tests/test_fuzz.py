"""Whatever the input, a right result or one clear line: no traceback, no hang, no lost file."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import make_grid, make_record
from PIL import Image

from bench.analysis.facts import Facts
from bench.cli import main, options
from bench.config import grid as grids
from bench.config import yaml_types
from bench.config.paths import RunPaths
from bench.config.spec import Grid, ReportSpec, RunSpec
from bench.report import main_table
from bench.report.build import write_report
from bench.report.tables import to_csv, to_latex, to_markdown
from bench.store import record as records
from projgan.checkpoint import load_checkpoint, previous, save_checkpoint
from projgan.data.image_source import decode_image, fit
from projgan.errors import DataError, UserError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
few = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextlib.contextmanager
def silent() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        yield out


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested dicts and lists."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any, delete: bool) -> Any:
    """A copy with another value at a place, or without it."""
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if delete:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return value


# Grid files.
GRID: dict[str, Any] = {
    "name": "fuzz",
    "about": "a grid",
    "base": {"data.images": 64, "train.batch": 8},
    "rows": [
        {"label": "A", "set": {"backbone.name": "resnet18"}},
        {"label": "B", "set": {"backbone.name": "efficientnet_lite1"}, "scales": ["lab"]},
    ],
    "axes": {"data.subset": [16, 32]},
    "seeds": [0, 1],
    "scales": {"lab": {"base": {"train.total_kimg": 1}, "seeds": [3]}},
    "eval": {"metrics": ["fd"], "every_kimg": 0.5, "fake": 64},
    "report": {"rank_by": "fd", "columns": ["fd", "n"], "baseline": "A"},
}


def load(text: str | bytes) -> Grid | None:
    """The grid of a file with this content; None = it was refused in one line."""
    with folder() as here:
        path = here / "fuzz.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
        try:
            return grids.load(str(path))
        except UserError as error:
            assert str(error).strip()
            return None


def test_the_grid_that_is_varied_is_a_good_one() -> None:
    grid = load(json.dumps(GRID))
    assert grid is not None and len(grid.runs) == 4


@few
@given(st.sampled_from(list(places(GRID))), PLAIN, st.booleans())
def test_a_grid_file_with_a_wrong_place(path: tuple[Any, ...], new: Any, delete: bool) -> None:
    grid = load(json.dumps(changed(GRID, path, new, delete)))
    assert grid is None or all(run.total_images > 0 for run in grid.runs)


@few
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_grid_file_of_any_bytes(content: bytes) -> None:
    load(content)


@few
@given(st.data())
def test_a_grid_file_with_damaged_text(data: st.DataObject) -> None:
    text = (grids.paths.GRIDS / "projections.yaml").read_bytes()
    at = data.draw(st.integers(0, len(text)))
    load(text[:at] + data.draw(st.binary(max_size=8)) + text[at + data.draw(st.integers(0, 8)) :])


# Command lines.
WORDS = st.sampled_from([*options.CONVERT, *yaml_types.fields()])
VALUES = st.sampled_from(
    [
        "smoke",
        "plan",
        "status",
        "list",
        "lab",
        "0",
        "-1",
        "1e9",
        "[]",
        "[0,1]",
        "{}",
        "null",
        "???",
        "${oc.env:HOME}",
        "true",
        "nan",
        "",
        "A=B",
        "../..",
        "'",
        "[",
        "\0",
    ]
) | st.text(max_size=10)
ARGUMENT = st.builds("{}={}".format, WORDS, VALUES) | st.text(max_size=12)


@few
@given(st.sampled_from(["plan", "status", "list", "cancel"]), st.lists(ARGUMENT, max_size=4))
def test_any_command_line(verb: str, arguments: list[str]) -> None:
    safe = [a for a in arguments if not a.startswith(("do=", "runs_dir=", "results_dir="))]
    with folder() as here, silent() as told:
        before = sorted(here.rglob("*"))
        status = main.main(["grid=smoke", f"do={verb}", f"runs_dir={here}", *safe])
        assert status in (main.OK, main.SOME_FAILED, main.REFUSED)
        assert "Traceback" not in told.getvalue()
        if status == main.REFUSED:
            assert len(told.getvalue().strip().splitlines()) == 1
        assert sorted(here.rglob("*")) == before


# Records.
MADE = make_grid({"A": {}, "B": {"train.batch": 16}}, ReportSpec(rank_by="fd_lab",
                 columns=("params_m", "fd_lab", "images_per_s", "time_s", "kimg")))  # fmt: skip
RUN = MADE.runs[0]
RECORD = make_record(RUN, {1000: {"fd_lab": 2.0}, 4000: {"fd_lab": 1.0}})


def shown(content: bytes) -> None:
    """Status and report of a grid one of whose records has this content; the file stays."""
    with folder() as here, silent():
        for spec, data in zip(MADE.runs, (content, json.dumps(RECORD).encode()), strict=True):
            path = RunPaths(here / "runs" / spec.run_id).record
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
        at = [records.run_state(spec, here / "runs") for spec in MADE.runs]
        assert all(now.state for now in at)
        if at[0].state == "damaged":
            assert "\n" not in at[0].note
        if EXAMPLES > 100:  # curves and sheets too, which take a second each
            write_report(Facts.read(MADE, here / "runs"), here / "results", lambda text: None)
        table = main_table.build(Facts.read(MADE, here / "runs"))
        assert len(table.rows) == 2 and to_markdown(table) and to_latex(table) and to_csv(table)
        assert RunPaths(here / "runs" / RUN.run_id).record.read_bytes() == content


@few
@given(st.sampled_from(list(places(RECORD))), PLAIN, st.booleans())
def test_a_record_with_a_wrong_place(path: tuple[Any, ...], new: Any, delete: bool) -> None:
    shown(json.dumps(changed(RECORD, path, new, delete)).encode("utf-8", "replace"))


@few
@given(st.integers(0, 10_000), st.binary(max_size=4))
def test_a_torn_record(at: int, tail: bytes) -> None:
    shown(json.dumps(RECORD).encode()[:at] + tail)


def test_a_record_that_is_nested_without_end() -> None:
    shown(b"[" * 100_000)


@few
@given(st.sampled_from(list(places(RUN.to_json()))), PLAIN, st.booleans())
def test_a_description_of_a_run_with_a_wrong_place(
    path: tuple[Any, ...], new: Any, delete: bool
) -> None:
    with folder() as here:
        value = changed(RUN.to_json(), path, new, delete)
        (here / "spec.json").write_text(json.dumps(value), encoding="utf-8", errors="replace")
        try:
            assert isinstance(RunSpec.read(here / "spec.json"), RunSpec)
        except DataError as error:
            assert len(str(error).splitlines()) == 1


# Checkpoints.
@few
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_checkpoint(at: int, patch: bytes, cut: bool) -> None:
    with folder() as here:
        path = here / "checkpoint.pt"
        for nimg in (1, 2):
            save_checkpoint(path, {"nimg": nimg, "w": torch.arange(40.0)})
        whole = path.read_bytes()
        at %= len(whole)
        damaged = whole[:at] if cut else whole[:at] + patch + whole[at + len(patch) :]
        path.write_bytes(damaged)
        state = load_checkpoint(path, ("nimg",))
        assert state is not None and state["nimg"] == (2 if damaged == whole else 1)
        assert previous(path).exists() and path.read_bytes() == damaged


# Images.
def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((40, 48)).convert("RGB").save(out, kind)
    return out.getvalue()


IMAGES = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP")}


@few
@given(st.data(), st.sampled_from(list(IMAGES)))
def test_an_image_of_damaged_bytes(data: st.DataObject, kind: str) -> None:
    content = bytearray(IMAGES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(max_size=4))
        content = content or bytearray(b"x")
    with folder() as here:
        path = here / "image.png"
        path.write_bytes(content)
        try:
            image = fit(decode_image(path.read_bytes(), "image.png"), 32)
        except DataError as error:
            assert "image.png" in str(error)
        else:
            assert image.shape == (3, 32, 32) and image.dtype.name == "uint8"
        assert path.read_bytes() == bytes(content)


@pytest.mark.slow
def test_all_of_it_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with many more examples, in a process of its own."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"FUZZ_EXAMPLES": "400"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
