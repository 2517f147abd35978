"""What is typed is used, or refused with what to type instead; values are what they look like."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from fake_training import Engine
from typed_commands import GRID, ONE, Bench, bench, engine  # noqa: F401 - fixtures

from bench.cli import main
from bench.cli.options import CONVERT, SETTINGS, USES
from bench.config import grid as grids
from bench.config import paths
from bench.config.yaml_types import settings


def refused(bench: Bench, command: str) -> str:
    """The one line that refuses a command; nothing is left behind."""
    before = sorted(Path().iterdir())
    status, out, error = bench(command)
    assert status == main.REFUSED and not out, command
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    return error


# Keys


def test_the_verbs_and_the_keys_are_those_of_one_table() -> None:
    assert {verb for verb in USES if "=" not in verb} == main.VERBS.keys()
    used = {key for keys in USES.values() for key in keys}
    assert CONVERT.keys() - used == {"do"}
    assert used - CONVERT.keys() == {SETTINGS, "data.resolution", "data.filter", "eval.norms"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grid=made.yaml do=plan fake=200", "for do=score. Did you mean eval.fake=?"),
        ("grid=made.yaml do=plan metrics=[fid]", "Did you mean eval.metrics=?"),
        ("grid=made.yaml metrics=fid", "do=run does not use metrics="),
        ("grid=made.yaml do=plan seeds=1 n=3", "do=plan does not use n=, which is for do=sample"),
        ("grid=made.yaml do=plan class=1", "Did you mean data.classes=?"),
        ("grid=made.yaml do=status force=true", "does not use force=, which is for do=run"),
        ("grid=made.yaml do=report gpus_per_run=2", "which is for do=run"),
        ("grid=made.yaml do=plan dispatch=slurm dispatch.dry_run=true", "dispatch.dry_run="),
        ("grid=made.yaml do=plan export=pdf", "which is for do=report"),
        ("grid=made.yaml runs=A,B", "which is for do=compare"),
        ("real=a fake=b", "which is for do=score"),
        ("do=list grid=made.yaml", "It uses no other key"),
        ("do=score real=a fake=b scale=paper", "do=score does not use scale="),
        ("do=score real=a fake=b train.batch=3", "do=score does not use train.batch="),
        ("do=sample run=abc grid=made.yaml", "do=sample does not use grid="),
        ("do=prepare data=a source=b train.batch=3", "do=prepare does not use train.batch="),
        ("do=prepare data=a source=b seeds=3", "do=prepare does not use seeds="),
        ("do=claims only=ViT", "do=claims does not use only="),
        ("do=compare runs=a,b train.batch=3", "do=compare runs= does not use train.batch="),
        ("do=compare runs=a,b seeds=3", "do=compare runs= does not use seeds="),
    ],
)
def test_a_verb_refuses_what_it_does_not_use(bench: Bench, command: str, words: str) -> None:
    assert words in refused(bench, command)


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("grid backbones", "write grid=backbones\n"),
        ("--grid backbones", "write grid=backbones\n"),
        ("--grid=backbones do=plan", "write grid=backbones\n"),
        ("grid:backbones", "write grid=backbones\n"),
        ("grid = backbones", "write grid=backbones\n"),
        ("backbones do=plan", "write grid=backbones\n"),
        ("grid=backbones plan", "write do=plan\n"),
        ("grid=backbones --seeds '[0, 1]'", "write 'seeds=[0, 1]'\n"),
        ("grid=backbones --train.batch 3", "write train.batch=3\n"),
        ("grid=backbones --verbose", "--help shows how\n"),
        ("grid=made.yaml seeds=0.5", "such as 'seeds=[0,1,2]'\n"),
        ("grid=made.yaml discriminator.layers=1", "'discriminator.layers=[1,2]'\n"),
    ],
)
def test_a_suggestion_can_be_typed_as_it_stands(bench: Bench, command: str, instead: str) -> None:
    assert instead in refused(bench, command)


@pytest.mark.parametrize("key", ["only", "metrics", "runs", "grids", "export", "seeds"])
def test_an_empty_list_is_no_value(bench: Bench, key: str) -> None:
    command = {"runs": "do=compare", "grids": "do=compare", "metrics": "do=score"}.get(
        key, "grid=made.yaml do=report"
    )
    assert f"{key}=" in refused(bench, f"{command} {key}=[]")


@pytest.mark.parametrize("seeds", ["4294967296", "-1", "[1,1]", "[1,2]", "1.5"])
def test_samples_take_a_seed_that_training_takes(bench: Bench, seeds: str) -> None:
    assert "seeds=" in refused(bench, f"do=sample run=abc seeds={seeds}")


# Measuring


def test_what_is_measured_is_set_from_the_command_line(bench: Bench, engine: Engine) -> None:
    command = f"grid=made.yaml only=Three dispatch=inprocess {ONE}"
    assert bench(command)[0] == 0
    (run,) = Path("runs").iterdir()
    asked = "eval.fake=4 eval.metrics='[fd,kid]' eval.every_kimg=0.032"
    status, out, error = bench(f"grid=made.yaml only=Three do=plan {ONE} {asked}")
    assert status == 0 and run.name in out and "to measure:" in out, error
    assert bench(f"{command} {asked}")[0] == 0
    assert list(Path("runs").iterdir()) == [run]  # it is no other run
    with Path("results/made/records.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["run_id"] == run.name]
    assert lines[-1]["fake"] == "4" and lines[-1]["kid_lab"]
    page = Path("results/made/index.html").read_text()
    assert "eval.fake=4" in page and "&#39;eval.metrics=[" in page  # how to write it again


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("eval.fake=many", "eval.fake=many: give a whole number"),
        ("eval.fake=1", "a distance needs 2 images or more"),
        ("eval.fake=null", "eval.fake=null: give a whole number"),
        ("eval.fake=[2,4]", "give a whole number"),
        ("eval.fke=200", "Did you mean 'eval.fake'"),
        ("evl.fake=200", "Did you mean 'eval.fake'"),
        ("eval.metrics=fidd", "Unknown metric 'fidd'"),
        ("eval.metrics=[[fd]]", "give a text"),
        ("eval.best=3", "give true or false"),
        ("eval.levels=vitt", "Unknown backbone 'vitt'"),
    ],
)
def test_measuring_is_checked_like_all_else(bench: Bench, key: str, words: str) -> None:
    assert words in refused(bench, f"grid=made.yaml do=plan {key}")


def test_every_key_of_measuring_can_be_typed() -> None:
    usual = grids.load("smoke").eval
    values = {"metrics": "[kid]", "every_kimg": "0.064", "also_at_kimg": "0.1", "fake": "9",
              "real": "null", "levels": "vit", "levels_size": "64", "norms": "copied",
              "beside": "[swd]", "best": "true"}  # fmt: skip
    known = [key.removeprefix("eval.") for key in settings() if key.startswith("eval.")]
    for key in known:
        # A key that is new here is one whose form this test does not know.
        text = f"eval.{key}={values.get(key, 'true')}"
        assert grids.load("smoke", overrides=[text]).eval != usual, text


# Values


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows:", "seeds: []\nrows:", "made.yaml: seeds=[]: give distinct whole numbers"),
        ("rows:", "seeds: 3\nrows:", "made.yaml: seeds=3: give a list of whole numbers"),
        ("rows:", "seeds: [yes]\nrows:", "seeds[0]=yes: give a whole number"),
        ("rows:", "seeds: [null]\nrows:", "seeds[0]=null: give a whole number"),
        ("rows:", "axes: {data.subset: 3}\nrows:", "axes.data.subset=3: give a list"),
        ("rows:", "axes: [3]\nrows:", "axes=[3]: give keys and values"),
        ("rows:", "scales: {lab: 3}\nrows:", "scales.lab=3: give keys and values"),
        ("metrics: [fd]", "metrics: fd", "eval.metrics=fd: give a list of texts"),
        ("also_at_kimg: []", "also_at_kimg: 1", "eval.also_at_kimg=1: give a list of numbers"),
        ("fake: 8", "best: 3", "eval.best=3: give true or false"),
        ("columns: [fd]", "notes: words", "report.notes=words: give a list of texts"),
        ("{backbone.name: vit}", "[vit]", "rows[1].set=['vit']: give keys and values"),
        ("set: {backbone.name: vit}", "scales: lab", "rows[1].scales=lab: give a list"),
        ("label: Two", "label: null", "rows[1].label=null: give a text"),
        ("rows:", "rows: 3\nnot:", "rows=3: give a list"),
        ("base: {", "base: {eval.fake: 3, ", "write it under `eval:`"),
        ("rows:", "name: twice\nrows:", "'name' is there twice"),
    ],
)
def test_a_grid_file_is_refused_in_plain_words(
    bench: Bench, old: str, new: str, words: str
) -> None:
    assert old in GRID
    Path("made.yaml").write_text(GRID.replace(old, new, 1))
    error = refused(bench, "grid=made.yaml do=plan")
    assert words in error and not re.search("Node|Config|Dict|None: |typing", error)


def test_words_are_words_and_times_are_times(bench: Bench) -> None:
    """YAML 1.1 makes true of yes, 270 of 4:30 and 8 of 010."""
    Path("made.yaml").write_text(GRID.replace("label: Two", "label: yes"))
    assert " yes " in bench("grid=made.yaml do=plan")[1]
    (named,) = grids.load("made.yaml", overrides=["data.name=010"], only="One").runs
    assert named.config.data.name == "010"
    (flipped,) = grids.load("made.yaml", overrides=["data.mirror=off"], only="One").runs
    assert flipped.config.data.mirror is False
    assert "give a whole number" in refused(bench, "grid=made.yaml do=plan train.batch=4:30")


# Names of values


def test_no_augmentation_has_a_name_and_is_one_run(bench: Bench, engine: Engine) -> None:
    def ids(text: str) -> list[str]:
        Path("other.yaml").write_text(GRID.replace("base: {", f"base: {{augment.policy: {text}, "))
        return [run.run_id for run in grids.load("other.yaml").runs]

    assert ids("none") == ids("off") == ids("None") == ids("''") != ids("color")
    for text in ("none", "off", "''", '""'):
        (run,) = grids.load("made.yaml", overrides=[f"augment.policy={text}"], only="One").runs
        assert run.config.augment.policy == "" and run.run_id == ids("''")[0]
    contradicted = GRID.replace("{backbone.name: vit}", "{augment.policy: ''}")
    Path("other.yaml").write_text(contradicted)
    assert bench("grid=other.yaml do=plan augment.policy=none only=Two")[0] == 0

    many = "'augment.policy=[off,color]' data.subset=null 'backbone.input_size=[64,null]'"
    command = f"grid=made.yaml only=Three dispatch=inprocess {ONE} {many}"
    assert bench(command)[0] == 0
    with Path("results/made/records.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["status"] == "finished"]
    shown = {"augment.policy": {"none", "color"}, "backbone.input_size": {"64", "default"}}
    for axis, names in shown.items():
        assert {line[axis] for line in lines} == names, axis
    table = Path("results/made/table.csv").read_text()
    assert "Three · policy=none · input_size=default" in table
    assert " none  " in bench(f"{command} do=plan".replace("dispatch=inprocess ", ""))[1]
    assert "use color, translation, cutout or none" in refused(
        bench, "grid=made.yaml augment.policy=colour do=plan"
    )


def test_a_default_that_is_varied_stands_in_the_evidence(bench: Bench, engine: Engine) -> None:
    Path("other.yaml").write_text(GRID.replace("{backbone.name: vit}", "{optim.beta1: 0.5}"))
    assert bench(f"grid=other.yaml dispatch=inprocess {ONE} 'data.mirror=[true,false]'")[0] == 0
    page = Path("results/made/index.html").read_text()
    assert page.count("data.mirror") >= 6  # true is the default
    assert page.count("optim.beta1") >= 6


def test_commands_on_the_page_can_be_typed(bench: Bench, engine: Engine) -> None:
    command = f"grid=made.yaml only=Three dispatch=inprocess {ONE} 'train.batch=[8, 16]'"
    assert bench(command)[0] == 0
    page = Path("results/made/index.html").read_text()
    assert "&#39;train.batch=[8,16]&#39;" in page


@pytest.mark.parametrize("name", ["backbones", "layers", "projections", "init"])
def test_a_grid_that_ships_has_the_runs_it_had(name: str) -> None:
    published = {path.name for path in (paths.ROOT / "results/reference/records").iterdir()}
    assert {run.run_id for run in grids.load(name).runs} <= published
