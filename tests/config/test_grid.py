"""Grid files: what overrides what, and one clear line for everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.analysis.validation import validate
from bench.config import grid as grids
from bench.config.spec import Grid
from projgan.errors import UserError

GOOD = """
name: made
about: a grid of the tests
base: {train.batch: 16, optim.lr_g: 2.5e-4, train.total_kimg: 3}
rows:
  - {label: One, set: {backbone.name: resnet18}}
  - {label: Two, set: {backbone.name: vit, train.total_kimg: 2}}
  - {label: Big, set: {backbone.name: vit_base}, scales: [paper]}
axes: {}
seeds: [0, 1]
eval: {metrics: [fd], every_kimg: 1}
scales:
  paper: {base: {train.batch: 48}, eval: {every_kimg: 500}, seeds: [7],
          report: {rank_despite_leakage: a grid of the tests}}
report: {rank_by: fd, columns: [fd, "rel:fd", fd_l1], baseline: One}
"""


def write(folder: Path, text: str = GOOD, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "made.yaml").write_text(text)
    return str(folder / "made.yaml")


def load(folder: Path, *changes: tuple[str, str], **options: object) -> Grid:
    grid = grids.load(write(folder, GOOD, *changes), **options)  # type: ignore[arg-type]
    return validate(grid, narrowed="only" in options)


def refused(folder: Path, *changes: tuple[str, str], **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, *changes, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_times_seeds(tmp_path: Path) -> None:
    grid = load(tmp_path)
    assert [(r.row, r.config.train.seed) for r in grid.runs] == [
        ("One", 0), ("One", 1), ("Two", 0), ("Two", 1),
    ]  # fmt: skip


def test_later_settings_win(tmp_path: Path) -> None:
    one, _, two, _ = load(tmp_path).runs
    assert one.config.data.resolution == 32  # the scale over the default
    assert one.config.train.batch == 16  # the grid over the scale
    assert one.config.optim.lr_g == 2.5e-4  # a float in YAML's short form
    assert one.config.train.total_kimg == 3 and two.config.train.total_kimg == 2  # the row
    (other,) = {r.config.train.batch for r in load(tmp_path, overrides=["train.batch=8"]).runs}
    assert other == 8  # the command line over all


def test_the_same_file_at_the_other_scale(tmp_path: Path) -> None:
    grid = load(tmp_path, scale="paper")
    assert [r.row for r in grid.runs] == ["One", "Two", "Big"]
    assert {r.config.train.seed for r in grid.runs} == {7}
    assert grid.runs[0].config.train.batch == 48
    assert grid.runs[0].config.backbone.zoo == "imagenet"
    assert (grid.eval.metrics, grid.eval.every_kimg) == (("fid", "standing:fid", "raw:fid"), 500)
    shown = ("fid", "standing:fid", "rel:fid", "fd_l1")  # the raw generator's is kept, not shown
    assert (grid.report.rank_by, grid.report.columns) == ("fid", shown)


def test_metrics_have_the_names_of_the_scale(tmp_path: Path) -> None:
    grid = load(tmp_path)
    assert grid.eval.metrics == ("fd_lab", "raw:fd_lab")
    assert grid.report.columns == ("fd_lab", "rel:fd_lab", "fd_l1")


def test_an_axis_is_crossed_with_every_row(tmp_path: Path) -> None:
    axis = ("axes: {}", "axes: {data.subset: [100, null], train.batch: [8]}")
    grid = load(tmp_path, axis, seeds=[0])
    assert [r.label for r in grid.runs][:2] == ["One · subset=100 · batch=8",
                                                "One · subset=all · batch=8"]  # fmt: skip
    assert [r.config.data.subset for r in grid.runs] == [100, None, 100, None]
    assert grid.runs[0].axes == {"data.subset": 100, "train.batch": 8}


def test_a_key_that_is_an_axis_replaces_it(tmp_path: Path) -> None:
    axis = ("axes: {}", "axes: {data.subset: [100, null]}")
    grid = load(tmp_path, axis, overrides=["data.subset=50"], seeds=[0])
    assert [r.axes for r in grid.runs] == [{"data.subset": 50}] * 2
    assert {r.config.data.subset for r in grid.runs} == {50}


def test_a_list_on_the_command_line_is_an_axis(tmp_path: Path) -> None:
    axis = ("axes: {}", "axes: {data.subset: [100, null]}")

    def first_row(*overrides: str) -> list[Mapping[str, object]]:
        runs = load(tmp_path, axis, overrides=overrides, seeds=[0]).runs
        return [run.axes for run in runs[: len(runs) // 2]]

    sizes = [{"data.subset": 50, "train.batch": n} for n in (8, 16)]
    assert first_row("data.subset=50", "train.batch=[8, 16]") == sizes
    assert first_row("data.subset=[50, null]") == [{"data.subset": 50}, {"data.subset": None}]
    # One list is one value of a field that takes a list; several are several.
    assert len(first_row("discriminator.layers=[1, 2]")) == 2
    assert len(first_row("discriminator.layers=[[1], [1, 2]]")) == 4
    for wrong in ("train.batch=[8, many]", "train.batch=[]", "train.batch=[8, 8]"):
        assert "command line: " in refused(tmp_path, overrides=[wrong])
        assert "train.batch" in refused(tmp_path, overrides=[wrong])


def test_seed_on_the_command_line_is_the_seeds(tmp_path: Path) -> None:
    assert load(tmp_path, overrides=["train.seed=5"]).seeds == (5,)
    assert load(tmp_path, seeds=[3, 4]).seeds == (3, 4)
    assert "exclude" in refused(tmp_path, overrides=["train.seed=5"], seeds=[1])
    assert "distinct" in refused(tmp_path, seeds=[1, 1])


def test_only_keeps_rows_in_order(tmp_path: Path) -> None:
    assert [r.label for r in load(tmp_path, only=["two", "One"]).rows] == ["One", "Two"]
    assert [r.label for r in load(tmp_path, only="Two").rows] == ["Two"]
    assert "Did you mean 'Two'" in refused(tmp_path, only=["Twoo"])
    assert "Big" in refused(tmp_path, only="Big")  # not at this scale


def test_an_override_may_not_make_a_label_a_lie(tmp_path: Path) -> None:
    message = refused(tmp_path, overrides=["train.total_kimg=3"])
    assert "train.total_kimg=3 contradicts row 'Two'" in message and "only=" in message
    assert len(load(tmp_path, overrides=["train.total_kimg=3"], only="One").runs) == 2
    assert len(load(tmp_path, overrides=["train.total_kimg=2"]).runs) == 4  # agrees with the row


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.bach=3", "Did you mean 'train.batch'"),
        ("trian.batch=3", "Did you mean 'train.batch'"),
        ("axes.data.subset=3", "Unknown key 'axes.data.subset'"),
        ("train.batch=fast", "train.batch=fast: give a whole number"),
        ("train.batch=1.5", "give a whole number"),
        ("train.batch=true", "give a whole number"),
        ("train.batch=", "give a whole number"),
        ("train.batch={a: 1}", "give a whole number"),
        ("train.batch=0,1,2", "give a whole number"),
        ("data.images=[x]", "give a whole number or null"),
        ("data.mirror=3", "give true or false"),
        ("train.total_kimg=fast", "give a number"),
        ("train.total_kimg=.nan", "give a number"),
        ("optim.lr_g=-1", "give a rate between 0 and 1"),
        ("discriminator.layers=1", "a list of whole numbers"),
        ("discriminator.layers=[1,a]", "discriminator.layers[1]=a: give a whole number"),
        ("discriminator.layers=[2,1]", "ascending"),
        ("projection.kind=ccm_cms", "Did you mean 'ccm_csm'"),
        ("backbone.zoo=labs", "Did you mean 'lab'"),
        ("train.batch=[1", "not a value"),
        ("data.name=${nothing}", "data.name='${nothing}' becomes part of a folder's name"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, words: str) -> None:
    assert words in refused(tmp_path, overrides=[override])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("axes: {}", "axis: {}", "Did you mean 'axes'"),
        ("backbone.name: vit,", "backbone.nam: vit,", "Did you mean 'backbone.name'"),
        ("backbone.name: vit,", "backbone.name: vitt,", "row 'Two': Unknown backbone 'vitt'"),
        ("metrics: [fd]", "metrics: [fdd]", "Unknown metric 'fdd'"),
        ("every_kimg: 1}", "every_kimg: often}", "eval.every_kimg"),
        ("every_kimg: 1}", "every_kimg: 0}", "more than 0"),
        ("label: Two", "label: One", "row 'One' is there twice"),
        ("label: Two", "label: ''", "row '': a label is"),
        ("axes: {}", "axes: {backbone.name: [vit]}", "which is an axis"),
        ("axes: {}", "axes: {data.subset: [1, 1]}", "distinct values"),
        ("axes: {}", "axes: {data.subset: []}", "distinct values"),
        ("axes: {}", "axes: {train.seed: [1]}", "seeds"),
        ("train.batch: 16", "train.seed: 16", "seeds"),
        ("train.batch: 16", "train.batch: many", "base: train.batch=many"),
        ("seeds: [0, 1]", "seeds: [0, one]", "seeds[1]"),
        ("paper: {base", "papr: {base", "Unknown scale 'papr'"),
        ("scales: [paper]", "scales: [papr]", "Unknown scale 'papr'"),
        ("baseline: One", "baseline: Onee", "Did you mean 'One'"),
        ("rank_by: fd", "paper: table9, rank_by: fd", "report: Unknown"),
        ("rank_by: fd", "rank_by: fdd", "report: Unknown"),
        ("fd_l1]", "fd_l9]", "report: Unknown"),
        ("every_kimg: 1}", "every_kimg: 1, levels: vitt}", "eval.levels: Unknown backbone 'vitt'"),
        ("name: made", "name: reference", "reference"),
        ("name: made", "name: a/b", "letters, digits"),
        ("name: made", "title: made", "Unknown key 'title'"),
        ("backbone.name: vit, train.total_kimg: 2", "backbone.name: resnet18", "one and the same"),
        ("label: Two", "label: [Two", "not valid YAML"),
        ("rows:", "columns:", "Unknown key 'columns'"),
    ],
)
def test_wrong_grid_files(tmp_path: Path, old: str, new: str, words: str) -> None:
    message = refused(tmp_path, (old, new))
    assert words in message and "made.yaml" in message


@pytest.mark.parametrize("text", ["", "- 1\n", "just words", "name: made\nabout: x\n"])
def test_files_that_are_no_grid(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"made\.yaml"):
        grids.load(write(tmp_path, text))


def test_what_a_grid_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"made\.yaml: rows is missing"):
        grids.load(write(tmp_path, "name: made\nabout: x\n"))


def test_a_binary_file_is_no_grid(tmp_path: Path) -> None:
    (tmp_path / "made.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match=r"made\.yaml"):
        grids.load(str(tmp_path / "made.yaml"))


def test_unknown_grid_and_scale(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'backbones'"):
        grids.load("backbone")
    with pytest.raises(UserError, match="no such file"):
        grids.load(str(tmp_path / "none.yaml"))
    assert "Unknown scale 'labb'. Did you mean 'lab'" in refused(tmp_path, scale="labb")
