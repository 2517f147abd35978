"""Which backbone must not be judged by which metric, and that every table says so."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_records import facts_of, make_grid, make_record, write_record

from bench.analysis import cells as aggregate
from bench.analysis.facts import Facts
from bench.analysis.feature_overlap import CONTAINS, data_sets, leakage, of_cell, shared_by, verdict
from bench.analysis.validation import validate
from bench.config.extractors import EXTRACTOR_INFO
from bench.config.grid import load
from bench.config.metrics import METRICS
from bench.config.spec import Grid, ReportSpec
from bench.report import main_table
from bench.report.build import write_report
from bench.report.tables import to_csv, to_latex, to_markdown, to_text
from projgan.backbones.registry import BACKBONES, describe
from projgan.config import Backbone
from projgan.errors import UserError

JUDGE = Backbone(name="efficientnet_lite1")
LAB_JUDGE = Backbone(name="efficientnet_lite1", zoo="lab", pretrain_seed=1)


def imagenet(name: str, **settings: Any) -> Backbone:
    return Backbone(name=name, **settings)


def lab(name: str, **settings: Any) -> Backbone:
    return Backbone(name=name, zoo="lab", **settings)


# Every pair of a backbone and a metric.

NETWORKS = [
    *(imagenet(name, weights=w) for name in BACKBONES for w in ("pretrained", "random")),
    *(
        lab(name, weights=w)
        for name, entry in BACKBONES.items()
        if entry.lab
        for w in ("pretrained", "random")
    ),
]


@pytest.mark.parametrize("metric", METRICS)
def test_every_backbone_has_a_verdict_on_every_metric(metric: str) -> None:
    for backbone in NETWORKS:
        judge = LAB_JUDGE if backbone.zoo == "lab" else JUDGE
        found = verdict(backbone, metric, judge)
        assert found.kind in ("clear", "shared")  # "unknown" is for weights from a file
        assert bool(found) == bool(found.reason)
        assert "\n" not in found.reason


def test_every_declared_data_set_is_known_by_name() -> None:
    """A name that is spelt in two ways would hide what two networks share."""
    declared = [info.pretraining for info in EXTRACTOR_INFO.values()]
    declared += [describe(b).pretraining for b in NETWORKS if b.weights == "pretrained"]
    for pretraining in filter(None, declared):
        assert (sets := data_sets(pretraining)), pretraining
        assert sets <= CONTAINS.keys(), pretraining
    assert set().union(*CONTAINS.values()) <= CONTAINS.keys()


def test_data_sets_bring_those_that_they_hold() -> None:
    assert data_sets("ImageNet-1k, labels and a teacher") == {"ImageNet-1k"}
    assert data_sets("ImageNet-21k, labels") == {"ImageNet-21k", "ImageNet-1k"}
    assert data_sets("LVD-142M, then rendered scenes, no labels") == {
        "LVD-142M", "ImageNet-21k", "ImageNet-1k", "rendered scenes",
    }  # fmt: skip
    assert data_sets("none (random weights)") == data_sets("") == frozenset()


def test_imagenet_backbones_share_inceptions_data() -> None:
    for name in ("efficientnet_lite1", "resnet50", "deit", "vit"):
        found = verdict(imagenet(name), "fid", JUDGE)
        assert found.kind == "shared"
        assert "Inception-v3" in found.reason and "ImageNet-1k" in found.reason
        assert verdict(imagenet(name), "kid", JUDGE) == found
    assert not verdict(imagenet("r50_clip"), "fid", JUDGE)
    assert not verdict(imagenet("efficientnet_lite1", weights="random"), "fid", JUDGE)


def test_clip_is_not_judged_by_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    info = EXTRACTOR_INFO["clip"]
    assert verdict(imagenet("r50_clip"), "fd_clip", JUDGE).kind == "shared"
    assert not verdict(imagenet("efficientnet_lite1"), "fd_clip", JUDGE)
    # Another data set, but the same kind of network.
    other = replace(info, pretraining="LAION-2B, captions")
    monkeypatch.setitem(EXTRACTOR_INFO, "clip", other)
    found = verdict(imagenet("r50_clip"), "fd_clip", JUDGE)
    assert "one family (CLIP)" in found.reason and "learned from" not in found.reason


def test_lab_backbones_are_clear_of_the_lab_extractor() -> None:
    for name, entry in BACKBONES.items():
        if entry.lab:
            assert not verdict(lab(name), "fd_lab", LAB_JUDGE)
            assert not verdict(lab(name), "kid_lab", LAB_JUDGE)


def test_the_levels_judge_shares_with_its_kin_and_is_somebodys_own() -> None:
    kin = verdict(lab("efficientnet_lite0"), "fd_l2", LAB_JUDGE)
    assert "rendered scenes" in kin.reason and "EfficientNet-Lite" in kin.reason
    far = verdict(lab("vit"), "fd_l2", LAB_JUDGE)
    assert "rendered scenes" in far.reason and "family" not in far.reason
    # The other pretraining seed is another network; the judge's own seed is the judge.
    twin = verdict(lab("efficientnet_lite1"), "fd_l2", LAB_JUDGE)
    same = verdict(lab("efficientnet_lite1", pretrain_seed=1), "fd_l2", LAB_JUDGE)
    assert "own network" in same.reason and "own network" not in twin.reason and twin
    assert "own network" in verdict(JUDGE, "fd_l2", JUDGE).reason
    assert not verdict(lab("vit", weights="random"), "fd_l2", LAB_JUDGE)


def test_a_rows_own_features_are_always_flagged() -> None:
    assert verdict(lab("vit", weights="random"), "own_l1", LAB_JUDGE).kind == "shared"


def test_weights_from_a_file_cannot_be_cleared() -> None:
    found = verdict(imagenet("vit", weights="/x/net.safetensors"), "fid", JUDGE)
    assert (found.kind, found.reason) == ("unknown", "leakage unknown: (weights from a file)")


def test_an_rgb_discriminator_leaks_nothing() -> None:
    grid = make_grid({"RGB": {"discriminator.kind": "rgb"}, "Projected": {}}, ReportSpec())
    rgb, projected = grid.runs
    assert not leakage(rgb, "fid") and leakage(projected, "fid")


def test_a_row_of_two_pretrainings_has_the_gravest_flag_of_its_runs(tmp_path: Path) -> None:
    rows = {"lite1": {"backbone.name": "efficientnet_lite1"}, "ViT": {"backbone.name": "vit"}}
    settings = {row: {"backbone.zoo": "lab"} | values for row, values in rows.items()}
    both = {"backbone.pretrain_seed": (0, 1)}
    grid = make_grid(settings, ReportSpec(), axes=both)
    lite1, vit = aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))
    assert of_cell(lite1, "fd_l2").own and "in some of its runs" in of_cell(lite1, "fd_l2").reason
    assert not of_cell(vit, "fd_l2").own and "some" not in of_cell(vit, "fd_l2").reason
    assert not of_cell(lite1, "fd_lab")
    assert "own network" in shared_by(grid.runs, "fd_l2")["lite1"]


# Tables.

ROWS = {"lite1": {}, "CLIP": {"backbone.name": "r50_clip"}, "RGB": {"discriminator.kind": "rgb"}}


def made(tmp_path: Path, **report: Any) -> tuple[Grid, list[aggregate.Cell]]:
    spec = ReportSpec(columns=("fid", "rel:fid", "kid"), baseline="RGB", **report)
    grid = make_grid(ROWS, spec, scale="paper")
    for run in grid.runs:
        write_record(tmp_path, run, make_record(run, {4000: {"fid": 2.0, "kid": 3.0}}))
    return grid, aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))


def test_a_flagged_number_is_marked_in_every_table(tmp_path: Path) -> None:
    grid, cells = made(tmp_path)
    table = main_table.build(facts_of(grid, cells))
    note = "Inception-v3, which measured it, and the backbone learned from ImageNet-1k"
    assert to_markdown(table).count("ᵃ") == 1 + 3  # the footnote, and FID, relative, and KID
    assert note in to_markdown(table) and note in to_text(table).replace("\n", " ")
    assert note in to_latex(table) and to_latex(table).count(r"\textsuperscript{a}") == 4
    lines = {line["label"]: line for line in csv.DictReader(io.StringIO(to_csv(table)))}
    for key in ("fid_leakage", "rel:fid_leakage", "kid_leakage"):
        assert note in lines["lite1"][key]
        assert lines["CLIP"][key] == lines["RGB"][key] == ""


def test_so_is_it_in_the_other_tables_of_a_report(tmp_path: Path) -> None:
    spec = ReportSpec(columns=("fid",), rank_by="fid", rank_despite_leakage="a test", target="2")
    grid = make_grid({"lite1": {}, "CLIP": ROWS["CLIP"]}, spec, seeds=(0, 1), scale="paper")
    for run in grid.runs:
        curve = {n: {"fid": 4000 / n, "kid": 1.0} for n in (1000, 2000, 3000, 4000)}
        write_record(tmp_path / "runs", run, make_record(run, curve))
    write_report(Facts.read(grid, tmp_path / "runs"), tmp_path, lambda text: None)
    for name, key in (("seeds", "fid"), ("targets", "first_kimg")):
        text = (tmp_path / "made" / f"{name}.csv").read_text()
        lines = {line["label"]: line for line in csv.DictReader(io.StringIO(text))}
        assert "learned from ImageNet-1k" in lines["lite1"][f"{key}_leakage"]
        assert lines["CLIP"][f"{key}_leakage"] == ""
        for kind in ("md", "tex"):
            assert "leakage: Inception-v3" in (tmp_path / "made" / f"{name}.{kind}").read_text()


def test_without_leakage_a_table_has_no_such_column(tmp_path: Path) -> None:
    grid = make_grid({"A": {}}, ReportSpec(columns=("fd_lab",)))
    write_record(tmp_path, grid.runs[0], make_record(grid.runs[0], {4000: {"fd_lab": 2.0}}))
    cells = aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))
    assert "leakage" not in to_csv(main_table.build(facts_of(grid, cells)))


def test_a_flagged_metric_ranks_only_with_a_reason_that_is_printed(tmp_path: Path) -> None:
    grid, cells = made(tmp_path, rank_by="fid")
    with pytest.raises(UserError, match=r"fid cannot rank row 'lite1' .*rank_despite_leakage"):
        validate(grid)
    why = "only ImageNet networks are at hand"
    grid, cells = made(tmp_path, rank_by="fid", rank_despite_leakage=why)
    validate(grid)
    table = main_table.build(facts_of(grid, cells))
    said = f"Ranked by FID in spite of leakage: {why}"
    assert said in table.notes
    assert all(said in write(table) for write in (to_markdown, to_latex))
    # Where nothing is shared the reason is not needed and not printed.
    clear = replace(grid, runs=grid.runs[1:])
    validate(replace(clear, report=replace(grid.report, rank_despite_leakage=None)))
    assert said not in main_table.build(facts_of(clear, cells)).notes


def test_a_grid_file_without_the_reason_is_refused_in_one_line(tmp_path: Path) -> None:
    text = "name: g\nabout: a\nrows: [{label: A}]\neval: {metrics: [fd]}\nreport: {rank_by: fd}\n"
    path = tmp_path / "g.yaml"
    path.write_text(text)
    validate(load(str(path), "lab"))
    with pytest.raises(UserError, match=r"g.yaml: report: rank_by: fid cannot rank row 'A'"):
        validate(load(str(path), "paper"))


def test_the_rule_is_the_same_for_every_pair() -> None:
    """Sharing is symmetric: what a declared pair shares does not depend on who judges whom."""
    cnn = [b for b in NETWORKS if b.weights == "pretrained" and b.zoo == "imagenet"]
    for one, other in itertools.permutations(cnn, 2):
        assert bool(verdict(one, "fd_l1", other)) == bool(verdict(other, "fd_l1", one))
