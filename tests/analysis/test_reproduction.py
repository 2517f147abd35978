"""When a number of the paper counts as reproduced, and every way in which it cannot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_records import facts_of, make_grid, make_record, write_record

from bench.analysis import cells as aggregate
from bench.analysis import paper_numbers, reproduction
from bench.analysis.facts import Facts
from bench.analysis.reproduction import differences, verdict
from bench.config import grid as grids
from bench.config import paths
from bench.config.spec import Grid, ReportSpec
from bench.report import main_table, side_tables
from bench.report.build import write_report
from bench.report.tables import to_csv

ALIKE = {"scale": "paper", "data": "x", "fake": 50000}


def word(*points: float, paper: float | None = 2.0) -> str:
    return verdict(points, paper, ALIKE, ALIKE).word


def lines_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# The rule on values, protocols being equal; the margin is 5 %.


def test_an_interval_within_the_margin_is_reproduced() -> None:
    assert word(1.95, 2.0, 2.08) == "reproduced"
    assert word(2.01, 2.05, 2.09) == "reproduced"  # beside the number, but near enough
    five = (1.96, 1.98, 2.0, 2.02, 2.04)  # by Student's t, no longer the range
    assert word(*five) == "reproduced"


def test_an_interval_that_covers_and_is_wider_is_seed_noise() -> None:
    assert word(1.5, 2.0, 2.6) == "within seed noise"
    assert word(1.0, 1.5, 2.0, 2.5, 3.0) == "within seed noise"


def test_an_interval_that_misses_is_not_reproduced() -> None:
    assert word(2.2, 2.3, 2.4) == "not reproduced"
    assert word(2.05, 2.06, 2.2) == "not reproduced"  # reaches out of the margin, misses the number
    assert word(0.9, 1.0, 1.1) == "not reproduced"  # better than the paper is another number too
    assert "2.2 to 2.4" in verdict((2.2, 2.4), 2.0, ALIKE, ALIKE).reason


def test_what_gives_no_verdict_on_values() -> None:
    assert word() == "not run"
    assert word(2.0) == "too few seeds"
    assert word(2.0, 2.0, paper=None) == "paper's number unknown"


# The rule on protocols.


@pytest.mark.parametrize("name", ALIKE)
def test_a_field_that_differs_or_is_missing_rules_out_agreement(name: str) -> None:
    good = (1.99, 2.0, 2.01)
    assert verdict(good, 2.0, ALIKE, ALIKE).word == "reproduced"
    for ours, theirs in (
        ({**ALIKE, name: "other"}, ALIKE),
        ({**ALIKE, name: None}, ALIKE),
        ({k: v for k, v in ALIKE.items() if k != name}, ALIKE),
        (ALIKE, {**ALIKE, name: None}),
    ):
        for points in (good, (1.0, 2.0, 3.0), (9.0, 9.1)):
            assert verdict(points, 2.0, ours, theirs).word == "protocol differs"


def test_differences_are_told_in_words() -> None:
    ours = {"data": "LSUN Church", "fake": 10000, "real": None}
    theirs = {"data": "lsun_church", "fake": "50000", "real": 5, "images": None}
    assert differences(ours, theirs) == [
        "fake 10000 instead of 50000",
        "real not recorded",
        "images of the paper unknown",
    ]
    assert differences({"fake": 50000.0}, {"fake": "50000"}) == []
    (line,) = differences({**ALIKE, "scale": "lab", "fake": 2000}, ALIKE)
    assert line == "scale lab instead of paper (and with it fake)"


# From records: Table 2 at paper scale, measured as the paper did.

CHURCH = ["data.path=/photos", "data.name=lsun_church"]
Change = Callable[[dict[str, Any]], object]


def church(
    tmp_path: Path,
    fids: Sequence[float],
    change: Change = lambda record: None,
    overrides: Sequence[str] = (),
    metric: str = "fid_nvlabs",
) -> tuple[Grid, list[aggregate.Cell]]:
    """EfficientNet-lite1's line with one value per seed."""
    grid = grids.load(
        "backbones", "paper", [*CHURCH, *overrides], range(len(fids)), only="EfficientNet-lite1"
    )
    for spec, fid in zip(grid.runs, fids, strict=True):
        curve = {n: {metric: fid + (spec.total_images - n) / 1e7} for n in spec.snapshot_at[-3:]}
        record = make_record(spec, curve, scale=grid.scale)
        record["data"] = {"name": "lsun_church", "fingerprint": "f", "images": 126227}
        for snapshot in record["snapshots"]:
            snapshot["eval"]["real"] = 126227
        change(record)
        write_record(tmp_path, spec, record)
    return grid, aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))


def said(grid: Grid, cells: Sequence[aggregate.Cell], column: str = "paper_fid") -> str:
    paper = paper_numbers.paper_row("table2", cells[0].spec)
    (found,) = [j for j in reproduction.judge(grid, cells[0], paper) if j.column == column]
    return found.verdict.text


SEEDS = (1.62, 1.65, 1.68)  # the paper has 1.65


def test_a_number_measured_as_the_paper_did_can_be_reproduced(tmp_path: Path) -> None:
    # The budget of this table and how many images a batch norm saw are not confirmed.
    assert said(*church(tmp_path, SEEDS)) == (
        "reproduced: the paper's images from memory and norm_group inferred, not confirmed"
    )
    assert said(*church(tmp_path, (1.3, 1.65, 2.0))).startswith("within seed noise")
    assert said(*church(tmp_path, (3.0, 3.1, 3.2))).startswith("not reproduced")


def set_eval(name: str, value: object) -> Change:
    def change(record: dict[str, Any]) -> None:
        for snapshot in record["snapshots"]:
            snapshot["eval"][name] = value
            if value is None:
                del snapshot["eval"][name]

    return change


@pytest.mark.parametrize(
    ("change", "overrides", "metric", "told"),
    [
        (set_eval("fake", 10000), [], "fid_nvlabs", "fake 10000 instead of 50000"),
        (set_eval("fake", None), [], "fid_nvlabs", "fake not recorded"),
        (set_eval("real", 50000), [], "fid_nvlabs", "real 50000 instead of 126227"),
        (None, [], "fid", "extractor inception instead of inception_graph"),
        (lambda r: r["data"].update(name="bedroom"), [], "fid_nvlabs", "data bedroom instead"),
        (lambda r: r.update(data={}), [], "fid_nvlabs", "data not recorded"),
        (lambda r: r.update(scale="lab"), [], "fid_nvlabs", "scale lab instead of paper"),
        (None, ["data.resolution=128"], "fid_nvlabs", "resolution 128 instead of 256"),
        (None, ["train.total_kimg=1000"], "fid_nvlabs", "images 1000000 instead of 10000000"),
        (None, ["train.batch=32"], "fid_nvlabs", "recipe train.batch=32 instead of none"),
        (None, ["generator.width=128"], "fid_nvlabs", "recipe generator.width=128"),
        (
            lambda r: r["backbone"].update(note="protocol differs: other weights"),
            [],
            "fid_nvlabs",
            "weights others instead of the paper's",
        ),
    ],
)
def test_every_field_of_the_protocol_is_looked_at(
    tmp_path: Path, change: Change | None, overrides: list[str], metric: str, told: str
) -> None:
    grid, cells = church(tmp_path, SEEDS, change or (lambda record: None), overrides, metric)
    assert said(grid, cells).startswith("protocol differs: ") and told in said(grid, cells)


def test_scenes_rendered_here_are_not_the_data_set_of_that_name(tmp_path: Path) -> None:
    grid = grids.load("subsets", "paper", seeds=[0, 1], only="Projected GAN")
    for spec in grid.runs:
        curve = {spec.total_images: {"fid_nvlabs": 0.9}}
        write_record(tmp_path, spec, make_record(spec, curve, scale="paper"))
    cells = aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))
    paper = paper_numbers.paper_row("figure4", cells[2].spec)
    (found,) = reproduction.judge(grid, cells[2], paper)
    assert "data clevr as rendered here instead of CLEVR" in found.verdict.text
    assert "images of the paper unknown" in found.verdict.text


def test_params_need_no_images(tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["backbone"]["params_m"] = 3.724

    found = said(*church(tmp_path, SEEDS, change, ["train.batch=32"]), column="paper_params_m")
    assert found == "reproduced"


def test_a_number_is_flagged_if_any_pretraining_of_the_row_is(tmp_path: Path) -> None:
    rows = {"lite1": {"backbone.zoo": "lab", "backbone.name": "efficientnet_lite1"}}
    grid = make_grid(rows, ReportSpec(paper="table1"), axes={"backbone.pretrain_seed": (0, 1)})
    for spec in grid.runs:
        write_record(tmp_path, spec, make_record(spec, {4000: {"fd_l1": 2.0}}))
    (cell,) = aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))
    paper = {"paper_rel_fd_l1": paper_numbers.PaperValue(0.5, "verified")}
    (found,) = reproduction.judge(grid, cell, paper, baseline=cell)
    assert "the row's own network" in found.leakage and "in some of its runs" in found.leakage


# In the report.


def test_the_verdict_stands_beside_the_number(tmp_path: Path) -> None:
    grid, cells = church(tmp_path, SEEDS)
    table = main_table.build(facts_of(grid, cells))
    (line,) = csv.DictReader(io.StringIO(to_csv(table)))
    assert line["verdict"] == "reproduced" and "images from memory" in line["verdict_reason"]
    assert line["paper_fid"] == "1.65"
    assert side_tables.VERDICT_NOTE in table.notes and side_tables.LAB_NOTE not in table.notes
    judged = reproduction.judge(grid, cells[0], paper_numbers.paper_row("table2", cells[0].spec))
    of_fid = to_csv(side_tables.verdicts(grid, {"row": judged}))
    assert "learned from ImageNet-1k" in of_fid


def test_at_lab_scale_every_verdict_says_that_the_protocol_differs(tmp_path: Path) -> None:
    grid = grids.load("backbones", "lab", seeds=[0, 1])
    for spec in grid.runs[:4]:
        write_record(tmp_path / "runs", spec, make_record(spec, {6000: {"fd_lab": 1.65}}))
    write_report(Facts.read(grid, tmp_path / "runs"), tmp_path, lambda text: None)
    lines = lines_of(tmp_path / "backbones" / "table.csv")
    assert [line["verdict"] for line in lines] == ["protocol differs"] * 2 + ["not run"] * 8
    assert "scale lab instead of paper" in lines[0]["verdict_reason"]
    lines = lines_of(tmp_path / "backbones" / "verdicts.csv")
    assert {line["number"] for line in lines} == {"FID", "params", "top-1"}
    assert {line["verdict"] for line in lines} == {"protocol differs", "not run"}
    text = (tmp_path / "backbones" / "verdicts.md").read_text()
    assert "from memory, not confirmed" in text and side_tables.LAB_NOTE in text


def test_relative_numbers_divide_by_the_baselines_best(tmp_path: Path) -> None:
    grid = grids.load("projections", "paper", CHURCH, [0, 1])
    values = {"RGB discriminator": 10.0, "CCM + CSM, L1-L4": 2.4}
    for spec in grid.runs:
        if spec.row in values:
            curve = {spec.total_images: {"fid_nvlabs": values[spec.row], "fd_l1": 4.0}}
            record = make_record(spec, curve, scale="paper")
            record["data"] = {"name": "lsun_church", "images": 126227}
            for snapshot in record["snapshots"]:
                snapshot["eval"]["real"] = 126227
            write_record(tmp_path / "runs", spec, record)
    write_report(Facts.read(grid, tmp_path / "runs"), tmp_path, lambda text: None)
    lines = lines_of(tmp_path / "projections" / "verdicts.csv")
    found = {(line["row"], line["number"]): line for line in lines}
    best = found["CCM + CSM, L1-L4", "rel. FID"]
    assert (best["paper"], best["ours"], best["verdict"]) == ("0.24", "0.24", "reproduced")
    level = found["CCM + CSM, L1-L4", "rel. FD-L1"]
    assert (level["ours"], level["verdict"]) == ("1", "not reproduced")
    assert not any(line["row"] == "RGB discriminator" for line in lines)  # 1 by definition


# The files of the paper.


def test_protocols_name_known_tables_and_their_confidence() -> None:
    with (paths.PAPER / "protocols.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    fields = {"data", "resolution", "extractor", "fake", "real", "images", "norm_group"}
    for line in lines:
        assert line["paper"] in paper_numbers.PAPERS and line["field"] in fields
        assert line["source"] and line["confidence"]
        assert (line["value"] == "") == (line["confidence"] == "missing")
    keys = [(line["paper"], line["field"]) for line in lines]
    assert len(set(keys)) == len(keys)


def test_tables_by_data_set_find_their_line() -> None:
    (spec,) = grids.load("convergence", "paper", CHURCH, only="Projected GAN").runs
    table3 = paper_numbers.paper_row("table3", spec)
    assert (table3["paper_fid"].value, table3["paper_imgs_m"].value) == (1.59, 9.2)
    assert paper_numbers.protocol("table3", spec)["real"] == "126227"
    recall = paper_numbers.paper_row("supplement_precision_recall", spec)["paper_recall"]
    assert recall.value == 0.44 and "quotes" in recall.note
    assert paper_numbers.paper_row("supplement_extra_metrics", spec)["paper_kid"].value is None
    (spec,) = grids.load(
        "convergence", "paper", ["data.path=/p", "data.name=Pokemon", "data.resolution=1024"],
        only="Projected GAN",
    ).runs  # fmt: skip
    assert paper_numbers.paper_row("table4", spec)["paper_fid"].value == 33.96
    assert paper_numbers.paper_row("table3", spec)["paper_fid"].value == 33.96
    (rgb,) = grids.load("convergence", "paper", CHURCH, only="RGB discriminator").runs
    assert paper_numbers.paper_row("table3", rgb) == {}
