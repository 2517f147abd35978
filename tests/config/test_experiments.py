"""Every grid that ships loads at both scales, and the paper's rows are all there."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bench.analysis import paper_numbers
from bench.config import grid as grids
from bench.config import paths, yaml_types
from bench.config.metrics import METRICS
from bench.config.schema import GridFile, PresetsFile
from bench.config.spec import Grid
from projgan.config import Config, Discriminator

NAMES = sorted(file.stem for file in paths.GRIDS.glob("*.yaml"))
SHIPPED = {"smoke", "backbones", "pretraining", "projections", "layers", "subsets",
           "convergence", "csm", "init", "sota", "sota-high", "generators", "logits", "losses",
           "diffaug", "batch", "discriminators", "separable", "extra-rgb", "metrics",
           "photos", "beyond", "norm-group", "penalties", "resize", "average",
           "small-data"}  # fmt: skip
load = cache(grids.load)  # most tests look at the same ones


def lines(table: str) -> list[dict[str, str]]:
    with (paths.PAPER / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def varied(grid: Grid) -> set[str]:
    return {key for row in grid.rows for key in row.set} | set(grid.axes)


def test_the_grids_of_the_plan_ship() -> None:
    assert set(NAMES) >= SHIPPED


@pytest.mark.parametrize("scale", ["lab", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_a_grid_loads_at_both_scales(name: str, scale: str) -> None:
    grid = load(name, scale)
    assert grid.name == name  # its results folder is found by the name that was typed
    assert grid.report.rank_by in METRICS
    lab = scale == "lab" and name != "photos"  # a small world, but of real photographs
    assert {run.config.backbone.zoo for run in grid.runs} == ({"lab"} if lab else {"imagenet"})
    assert all(run.snapshot_at[-1] >= run.config.train.total_kimg * 1000 for run in grid.runs)


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_the_lab_is_measured_early_and_late(name: str) -> None:
    for run in load(name).runs:
        assert len(run.snapshot_at) >= 2


def test_table_2_has_the_papers_ten_networks() -> None:
    lab = load("backbones")
    assert [row.label for row in lab.rows] == [line["network"] for line in lines("table2")]
    assert varied(lab) == {"backbone.name"}
    assert lab.report.paper == "table2"


def test_table_2_at_paper_scale_also_has_the_networks_that_the_text_names() -> None:
    labels = {run.config.backbone.name for run in load("backbones", "paper").runs}
    assert len(labels) == 12 and {"vit", "vit_base", "deit", "deit_small"} <= labels


def test_random_weights_are_the_control_of_every_backbone() -> None:
    grid = load("pretraining")
    networks = {run.config.backbone.name for run in load("backbones").runs}
    assert {run.config.backbone.name for run in grid.runs} == networks
    cells = {(run.config.backbone.name, run.config.backbone.weights) for run in grid.runs}
    assert cells == {(name, w) for name in networks for w in ("pretrained", "random")}
    assert len(grid.seeds) == 3 and len(grid.runs) == 60


def test_table_1_has_the_papers_18_rows_and_their_baseline() -> None:
    grid = load("projections")
    words = {"no_projection": "none"}
    wanted = []
    for line in lines("table1"):
        kind = words.get(line["projection"], line["projection"])
        on = line["discriminators_on"]
        layers = (1, 2, 3, 4) if on == "perceptual" else tuple(int(x[1]) for x in on.split(";"))
        wanted.append((kind, line["discriminator_type"] == "perceptual_D", layers))
    rows = [run.config for run in grid.runs if run.row != grid.report.baseline]
    found = [
        (c.projection.kind, c.discriminator.kind == "perceptual", c.discriminator.layers)
        for c in rows
    ]
    assert found == wanted and len(found) == 18
    (baseline,) = [run for run in grid.runs if run.row == grid.report.baseline]
    assert baseline.config.discriminator.kind == "rgb"
    # The confound of the released code: blocks must not change with the projection.
    assert {c.discriminator.depth for c in rows} == {"matched"}
    assert "rel:fd_l1" in grid.report.columns and "paper_rel_fid" in grid.report.columns


def test_layers_are_subsets_with_the_full_projection() -> None:
    grid = load("layers")
    assert varied(grid) == {"discriminator.layers"}
    assert {run.config.projection.kind for run in grid.runs} == {"ccm_csm"}
    assert Discriminator().layers in {run.config.discriminator.layers for run in grid.runs}


@pytest.mark.parametrize("scale", ["lab", "paper"])
def test_subsets_are_1k_10k_and_all(scale: str) -> None:
    for run in (grid := load("subsets", scale)).runs:
        data = run.config.data
        assert data.images is not None and data.images > 10000
    assert grid.axes == {"data.subset": (1000, 10000, None)}


def test_convergence_is_measured_more_finely_than_the_rest() -> None:
    runs = load("convergence").runs
    assert len(runs[0].snapshot_at) > 2 * len(load("backbones").runs[0].snapshot_at)


@pytest.mark.parametrize("scale", ["lab", "paper"])
def test_convergence_compares_real_alternatives(scale: str) -> None:
    """Figure 4: the two generators, each with its own discriminator and with the projected one."""
    grid = load("convergence", scale)
    pairs = {(r.config.generator.name, r.config.discriminator.kind) for r in grid.runs}
    figure = {(g, d) for g in ("fastgan", "stylegan2") for d in (g, "projected")}
    assert pairs == figure | {("fastgan", "rgb")}
    known = [
        paper_numbers.paper_row("figure4", run)
        for run in grid.runs
        if run.row != "RGB discriminator"
    ]
    twice = [3.59] * (2 if scale == "paper" else 1)
    assert [row["paper_fid"].value for row in known] == [1.58, 8.41, *twice, 2.64]


def test_a_method_has_the_same_settings_wherever_it_is_compared() -> None:
    """Presets of other methods; a row adds its data set alone."""
    file: PresetsFile = yaml_types.read(PresetsFile, paths.PRESETS)
    used = set()
    for name in ("convergence", "subsets", "sota", "sota-high", "generators"):
        grid: GridFile = yaml_types.read(GridFile, paths.GRIDS / f"{name}.yaml")
        for row in grid.rows:
            if row.preset is not None:
                used.add(row.preset)
                assert all(key.startswith("data.") for key in row.set), row.label
                label = row.label.replace(",", " ").split()[0]
                assert (label == "StyleGAN2-ADA") == row.preset.startswith("stylegan2_ada")
    assert used == set(file.presets)


# stylegan2-ada-pytorch's train.py: `cfg_specs`, and the rules of `auto` with 8 GPUs.
PUBLISHED = {
    256: {"batch": 64, "group": 8, "fmaps": 0.5, "lr": 0.0025, "gamma": 1, "ema": 20},
    512: {"batch": 64, "group": 8, "fmaps": 1, "lr": 0.0025, "gamma": 0.5, "ema": 20},
    1024: {"batch": 32, "group": 4, "fmaps": 1, "lr": 0.002, "gamma": 2, "ema": 10},
}


@pytest.mark.parametrize("resolution", PUBLISHED)
@pytest.mark.parametrize("name", ["paper", "auto"])
def test_stylegan2_ada_is_as_published(name: str, resolution: int) -> None:
    grid = load("sota" if resolution == 256 else "sota-high", "paper")
    wanted = PUBLISHED[resolution] | {"layers": 8, "ramp": None}
    if name == "auto":
        gpus = 8
        batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
        wanted = {
            "batch": batch,
            "group": min(batch // gpus, 4),
            "fmaps": 1 if resolution >= 512 else 0.5,
            "lr": 0.002 if resolution >= 1024 else 0.0025,
            "gamma": 0.0002 * resolution**2 / batch,
            "ema": batch * 10 / 32,
            "layers": 2,
            "ramp": 0.05,
        }
    label = f"StyleGAN2-ADA {name}{resolution if name == 'paper' else ''}"
    runs = [
        run.config
        for run in grid.runs
        if run.row.split(",")[0] == label and run.config.data.resolution == resolution
    ]
    assert runs
    for c in runs:
        g, d, t, o = c.generator, c.discriminator, c.train, c.optim
        assert {
            "batch": t.batch, "group": d.mbstd_group, "fmaps": g.fmaps, "lr": o.lr_g,
            "gamma": pytest.approx(d.r1), "ema": t.ema_kimg, "layers": g.mapping_layers,
            "ramp": t.ema_rampup,
        } == wanted  # fmt: skip
        assert (d.fmaps, o.lr_d, g.z_dim, g.w_dim, g.width, d.width) == (
            g.fmaps, o.lr_g, 512, 512, 64, 512,
        )  # fmt: skip
        assert (g.style_mixing, g.path_length, c.augment.ada_target) == (0.9, 2, 0.6)
        assert (g.path_length_every, d.r1_every, o.beta1, o.beta2) == (4, 16, 0, 0.99)


def test_table_3_is_there_with_every_number() -> None:
    at_256, high = load("sota", "paper"), load("sota-high", "paper")
    for table, grid in (("table3", at_256), ("table4", high)):
        wanted = {
            float(line["fid"])
            for line in lines(table)
            if line["method"] in ("StyleGAN2-ADA", "FastGAN", "Projected GAN")
            and (table == "table4" or line["section"] != "high-res")
        }
        shown = [paper_numbers.paper_row(table, run)["paper_fid"].value for run in grid.runs]
        assert set(shown) == wanted
        twice = [run.row.startswith("StyleGAN2-ADA auto") for run in grid.runs]
        assert len(shown) - sum(twice) == len(wanted)  # which of the two it ran is not told


def test_csm_and_init_show_every_choice() -> None:
    csm = {run.config.projection.csm for run in load("csm").runs}
    init = {run.config.projection.init for run in load("init").runs}
    assert csm == {"text", "author", "released"} and init == {"kaiming", "torch", "rotation"}


def test_smoke_is_tiny() -> None:
    grid = load("smoke")
    assert len(grid.runs) == 2 and all(run.total_images <= 512 for run in grid.runs)
    assert (grid.runs[0].config.data.images or 0) <= 512


def test_scales_shrink_nothing_but_the_lab() -> None:
    paper = load("csm", "paper").runs[0].config
    assert (paper.data.resolution, paper.train) == (256, replace(Config().train, norm_group=8))


def test_groups_of_batch_norm_are_8_at_paper_scale_unless_a_grid_asks() -> None:
    for name in NAMES:
        found = {run.config.train.norm_group for run in load(name, "paper").runs}
        odd = {"norm-group": {4, 8, 16, None}, "photos": {None}}
        assert found == odd.get(name, {8}), name
        for run in load(name).runs:
            assert (run.config.train.norm_group is None) == (name != "norm-group" or run.row == "whole batch")  # fmt: skip  # noqa: E501


def test_experiments_lie_beside_the_entry_point() -> None:
    assert (paths.ROOT / "run_bench.py").is_file()
    assert Path(grids.__file__).is_relative_to(paths.ROOT)
