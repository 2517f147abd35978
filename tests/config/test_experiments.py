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
from bench.metrics import weights
from projgan.config import Config, Discriminator
from projgan.errors import UserError
from projgan.weights import PACKAGES

NAMES = sorted(file.stem for file in paths.GRIDS.glob("*.yaml"))
SHIPPED = {"smoke", "backbones", "pretraining", "projections", "layers", "subsets",
           "convergence", "csm", "init", "sota", "sota-high", "generators", "logits", "losses",
           "diffaug", "batch", "discriminators", "separable", "extra-rgb", "metrics",
           "features", "tuning", "beyond", "norm-group", "penalties", "resize", "average",
           "small-data"}  # fmt: skip
load = cache(grids.load)  # most tests look at the same ones


OF_TABLE_3 = {"sota", "sota-high"}  # of data sets that no machine without a GPU trains on


def lines(table: str) -> list[dict[str, str]]:
    with (paths.PAPER / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def varied(grid: Grid) -> set[str]:
    return {key for row in grid.rows for key in row.set} | set(grid.axes)


def test_the_grids_of_the_plan_ship() -> None:
    assert set(NAMES) >= SHIPPED


@pytest.mark.parametrize("scale", ["lab", "paper", "photo"])
@pytest.mark.parametrize("name", NAMES)
def test_a_grid_loads_at_every_scale(name: str, scale: str) -> None:
    if scale == "photo" and name in OF_TABLE_3:
        with pytest.raises(UserError, match="has no row at scale photo"):
            grids.load(name, scale)
        return
    grid = load(name, scale)
    assert grid.name == name  # its results folder is found by the name that was typed
    assert grid.report.rank_by in METRICS
    zoo = "lab" if scale == "lab" else "imagenet"
    assert {run.config.backbone.zoo for run in grid.runs} == {zoo}
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


def test_the_photo_scale_is_the_papers_network_on_photographs() -> None:
    """Everything that pip brings and no more: no hub is asked, whatever of these grids runs."""
    names = ("projections", "backbones", "pretraining", "layers", "csm", "init", "logits", "losses",
             "diffaug", "subsets", "convergence", "small-data", "features", "tuning")  # fmt: skip
    for name in names:
        grid = grids.load(name, "photo", ["data.path=FOLDER"])
        assert {need.name for need in weights.needs(grid)} <= PACKAGES.keys(), name
        assert grid.report.rank_by == "fd_mobilenet" and "swd" in grid.report.columns
        assert {"fd_mobilenet", "swd"} <= set(grid.eval.metrics)
        assert any(note.startswith("Learning rates") for note in grid.report.notes)
        for run in grid.runs:
            assert run.config.backbone.input_size == run.levels_backbone.input_size == 64
    table1 = load("projections", "photo")
    assert len(table1.rows) == 19 and table1.runs[0].levels_backbone.name == "efficientnet_lite1"
    backbones = {run.config.backbone.name for run in load("backbones", "photo").runs}
    assert backbones == {"tf_efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}
    assert load("subsets", "photo").axes == {"data.subset": (100, 1000, None)}


@pytest.mark.parametrize("scale", ["lab", "paper", "photo"])
def test_every_kind_of_discriminator_has_the_same_search_over_its_rates(scale: str) -> None:
    grid = load("tuning", scale)
    tried: dict[str, set[tuple[float, float]]] = {}
    for run in grid.runs:
        optim, kind = run.config.optim, run.config.discriminator.kind
        tenth = 10 if kind == "stylegan2" else 1
        pair = (round(optim.lr_g / tenth, 9), round(optim.lr_d / tenth, 9))
        tried.setdefault(kind, set()).add(pair)
    own = {"stylegan2"} if scale != "paper" else set()
    assert tried.keys() == {"projected", "perceptual", "rgb", "fastgan"} | own
    assert len({frozenset(pairs) for pairs in tried.values()}) == 1 and len(tried["rgb"]) == 5
    assert min(grid.seeds) >= 100
    others = {seed for name in NAMES if name != "tuning" for seed in load(name).seeds}
    assert max(others) < 10


def test_rates_that_a_search_found_hold_where_a_row_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "rates.yaml"
    searched, not_searched = "{lr_g: 3e-4, lr_d: 1e-4, tried: 5}", "{lr_g: 7e-4, lr_d: 8e-4}"
    found.write_text(
        f"scales: {{photo: {{projected: {searched}, rgb: {not_searched}, fastgan: {searched}}}}}"
    )
    monkeypatch.setattr(paths, "RATES", found)
    grid = grids.load("features", "photo", seeds=[0])
    rates = {r.row: (r.config.optim.lr_g, r.config.optim.lr_d) for r in grid.runs}
    assert rates == {
        "Pretrained features": (3e-4, 1e-4),
        "Random features": (3e-4, 1e-4),
        "RGB discriminator": (7e-4, 8e-4),
    }
    assert grid.report.notes[-1] == (
        "Learning rates of generator and discriminator: projected 0.0003 and 0.0001 "
        "(best of 5 tried alike); rgb 0.0007 and 0.0008 (not searched for)."
    )
    # The command line and rows have the last word; another scale has rates of its own.
    assert grids.load("features", "photo", ["optim.lr_g=1e-5"]).runs[0].config.optim.lr_g == 1e-5
    four = grids.load("convergence", "photo")
    rates = {r.row: (r.config.optim.lr_g, r.config.optim.lr_d) for r in four.runs}
    assert rates["FastGAN"] == (3e-4, 1e-4) and "fastgan 0.0003" in four.report.notes[-1]
    assert rates["Projected StyleGAN2"] == (2e-3, 2e-3), "a preset that was not searched for"
    small = {r.row: r.config.optim.lr_d for r in grids.load("small-data", "photo").runs}
    assert small["Discriminator rate, a quarter"] == 5e-5
    lab = grids.load("features")
    assert lab.runs[0].config.optim.lr_d == 6e-4 and not lab.report.notes


def test_a_quarter_of_the_discriminators_rate_is_that() -> None:
    for scale in ("lab", "paper", "photo"):
        rates = {r.row: r.config.optim.lr_d for r in grids.load("small-data", scale).runs}
        quarter = rates["Discriminator rate, a quarter"]
        assert quarter == pytest.approx(rates["Projected GAN"] / 4)


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
