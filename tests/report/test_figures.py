"""Figures: the same bytes each time, the data beside them, and lines that can be told apart."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import matplotlib
import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis.cells import Cell, cells, read_runs
from bench.config.columns import Column
from bench.config.spec import ReportSpec
from bench.report import figures
from bench.report.figures import DASHES, MARKERS, draw, draw_axis
from bench.report.lines import COLOURS, line

COLUMN = Column("fd_lab", "FD-lab")
CURVE = {1024: 30.0, 2048: 12.0, 4000: 4.0}


@pytest.fixture
def made(tmp_path: Path) -> list[Cell]:
    """Row A with two seeds, the second twice as high and without its middle; row B not run."""
    rows = {"A": {"backbone.name": "efficientnet_lite1"}, "B": {"backbone.name": "resnet18"}}
    grid = make_grid(rows, ReportSpec(), seeds=(0, 1))
    first, second, *_ = grid.runs
    write_record(tmp_path, first, make_record(first, {n: {"fd_lab": v} for n, v in CURVE.items()}))
    rest = {n: {"fd_lab": 2 * v} for n, v in CURVE.items() if n != 2048}
    write_record(tmp_path, second, make_record(second, rest))
    return cells(read_runs(grid.runs, tmp_path))


def test_a_line_is_the_mean_where_all_runs_have_a_value(made: list[Cell]) -> None:
    a = line(made[0], "fd_lab", 0)
    assert a is not None
    assert a.images == (1024.0, 4000.0)
    assert a.seconds == (10.24, 40.0)
    assert (a.mean, a.low, a.high) == ((45.0, 6.0), (30.0, 4.0), (60.0, 8.0))
    assert line(made[1], "fd_lab", 1) is None


def test_the_same_bytes_twice(made: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(made, "fd_lab", COLUMN, pdf=True)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    matplotlib.rcParams["lines.linewidth"] = 9.0  # a user's own style must not show
    try:
        second = draw(made, "fd_lab", COLUMN, pdf=True)
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
    finally:
        matplotlib.rcdefaults()
    assert list(first) == [f"curves/fd_lab.{kind}" for kind in ("png", "svg", "pdf", "csv")]
    assert first == second


def test_of_many_rows_the_best_are_drawn_and_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"row {i}": {"optim.lr_d": 1e-4 * (i + 1)} for i in range(4)}
    grid = make_grid(rows, ReportSpec())
    for i, spec in enumerate(grid.runs):
        curve = {n: {"fd_lab": v / (i + 1)} for n, v in CURVE.items()}
        write_record(tmp_path, spec, make_record(spec, curve))
    many = cells(read_runs(grid.runs, tmp_path))
    lines = [found for i, cell in enumerate(many) if (found := line(cell, "fd_lab", (i, None)))]
    monkeypatch.setattr(figures, "MOST", 2)
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["DejaVu Sans"])
    for better, best in ((True, ["row 3", "row 2"]), (False, ["row 0", "row 1"])):
        (legend,) = figures._figure(lines, COLUMN, better, None, ()).legends
        assert [text.get_text().rsplit("  ", 1)[0] for text in legend.get_texts()] == best
        assert "best 2 of 4" in legend.get_title().get_text()
    assert draw(many, "fd_lab", COLUMN)["curves/fd_lab.csv"].decode().count("row 0") == 3


def test_the_files_name_no_date_and_no_font(made: list[Cell]) -> None:
    files = draw(made, "fd_lab", COLUMN)
    svg = files["curves/fd_lab.svg"].decode()
    assert "<dc:date>" not in svg and "<text" not in svg
    assert b"tIME" not in files["curves/fd_lab.png"]
    assert b"Software" not in files["curves/fd_lab.png"]


def test_the_csv_holds_every_point_of_every_run(made: list[Cell]) -> None:
    text = draw(made, "fd_lab", COLUMN)["curves/fd_lab.csv"].decode()
    found = [
        (r["row"], int(r["seed"]), int(r["images"]), float(r["train_seconds"]), float(r["fd_lab"]))
        for r in csv.DictReader(io.StringIO(text))
    ]
    assert found == [
        ("A", 0, 1024, 10.24, 30.0),
        ("A", 0, 2048, 20.48, 12.0),
        ("A", 0, 4000, 40.0, 4.0),
        ("A", 1, 1024, 10.24, 60.0),
        ("A", 1, 4000, 40.0, 8.0),
    ]


def test_nothing_to_draw_is_no_file(made: list[Cell]) -> None:
    assert draw(made, "kid_lab", COLUMN) == {}
    assert draw(made[1:], "fd_lab", COLUMN) == {}


def test_values_below_zero_can_be_drawn(tmp_path: Path) -> None:
    grid = make_grid({"A": {"backbone.name": "resnet18"}}, ReportSpec())
    (spec,) = grid.runs
    points = {1024: {"kid_lab": 30.0}, 2048: {"kid_lab": 0.0}, 4000: {"kid_lab": -0.2}}
    write_record(tmp_path, spec, make_record(spec, points))
    made = cells(read_runs(grid.runs, tmp_path))
    assert draw(made, "kid_lab", Column("kid_lab", "KID-lab", "×1000"))


def test_an_axis_is_drawn_from_the_last_values(tmp_path: Path) -> None:
    axes = {"data.subset": (1000, 8000)}
    grid = make_grid({"A": {}}, ReportSpec(), axes=axes, seeds=(0, 1))
    for spec, final in zip(grid.runs, (9.0, 7.0, 3.0, 1.0), strict=True):
        points = {1024: {"fd_lab": 50.0}, 4000: {"fd_lab": final}}
        write_record(tmp_path, spec, make_record(spec, points))
    made = cells(read_runs(grid.runs, tmp_path))
    files = draw_axis(made, "fd_lab", COLUMN, "data.subset")
    assert files == draw_axis(made, "fd_lab", COLUMN, "data.subset")
    assert list(files) == [f"curves/fd_lab_by_subset.{kind}" for kind in ("png", "svg", "csv")]
    rows = csv.DictReader(io.StringIO(files["curves/fd_lab_by_subset.csv"].decode()))
    found = [(r["subset"], r["seed"], r["fd_lab"]) for r in rows]
    assert found == [
        ("1000", "0", "9.0"),
        ("1000", "1", "7.0"),
        ("8000", "0", "3.0"),
        ("8000", "1", "1.0"),
    ]
    assert draw_axis(made[:1], "fd_lab", COLUMN, "data.subset") == {}


def test_twenty_lines_look_different() -> None:
    looks = {(i % len(COLOURS), i // len(COLOURS) % len(DASHES)) for i in range(20)}
    assert len(looks) == 20
    assert len(set(COLOURS)) == len(COLOURS) and len(set(MARKERS)) == len(MARKERS)


def test_the_pdf_is_vector_and_holds_its_font(made: list[Cell]) -> None:
    pdf = draw(made, "fd_lab", COLUMN, pdf=True)["curves/fd_lab.pdf"]
    assert b"/FontFile2" in pdf and b"DejaVuSans" in pdf
    assert b"/Subtype /Image" not in pdf and b"CreationDate" not in pdf


# Machado, Oliveira and Fernandes (IEEE TVCG 2009): colours as seen without one kind of cone,
# on linear RGB.
SEEN = {
    "protanopia": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deuteranopia": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritanopia": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}


@pytest.mark.parametrize("kind", SEEN)
def test_the_colours_differ_for_all_kinds_of_colour_vision(kind: str) -> None:
    """No two colours come nearer than 12 in CIELAB, where about 2 can just be told apart."""

    def lab(colour: str) -> list[float]:
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        rgb = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        rgb = [max(0.0, sum(m * c for m, c in zip(row, rgb, strict=True))) for row in SEEN[kind]]
        to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
        xyz = [sum(m * c for m, c in zip(row, rgb, strict=True)) for row in to_xyz]
        f = [
            (v / w) ** (1 / 3) if v / w > 0.008856 else 7.787 * v / w + 16 / 116
            for v, w in zip(xyz, (0.9505, 1.0, 1.089), strict=True)
        ]
        return [116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]

    places = [lab(colour) for colour in COLOURS]
    gaps = [math.dist(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert min(gaps) > 12
