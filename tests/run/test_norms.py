"""Standing or copied batch-norm statistics, and stale values: as a user types it, end to end."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.cli import main
from bench.config.metrics import METRICS
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.metrics.evaluate import evaluate
from bench.metrics.reference import Reference
from bench.store import record as records
from projgan import standing_statistics
from projgan.data.dataset import open_dataset
from projgan.sample import generate, load_generator

GRID = """
name: made
about: one run of a grid of the tests
base: {train.total_kimg: 0.128, train.batch: 16, generator.width: 4, data.images: 64,
       discriminator.kind: rgb, discriminator.width: 16, optim.lr_g: 5e-3}
rows: [{label: One}]
eval: {metrics: [swd], every_kimg: 0.064, also_at_kimg: [], fake: 16, beside: ["raw:swd"]}
report: {rank_by: swd, columns: [swd, "raw:swd"]}
"""
Typed = Callable[[str], tuple[int, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run, measured as the lab scale has it."""
    folder = tmp_path_factory.mktemp("norms")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(standing_statistics, "LATENTS", 128)
        patch.setattr("bench.report.build._pictures", lambda *args: {})
        Path("made.yaml").write_text(GRID)
        assert main.main(["grid=made.yaml", "dispatch=inprocess"]) == 0
    return folder


@pytest.fixture
def typed(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    """Types a command where a copy of the run lies; nothing is trained again."""

    def no_training(*args: Any, **options: Any) -> None:
        raise AssertionError("this trains")

    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(standing_statistics, "LATENTS", 128)
    monkeypatch.setattr("bench.report.build._pictures", lambda *args: {})
    monkeypatch.setattr("projgan.trainer.Trainer.step", no_training)

    def command(text: str) -> tuple[int, str]:
        here = [] if "do=" in text else ["dispatch=inprocess"]
        status = main.main([*text.split(), *here])
        return status, "".join(capsys.readouterr())

    return command


def the_run() -> RunPaths:
    (folder,) = Path("runs").iterdir()
    return RunPaths(folder)


def last() -> dict[str, Any]:
    """The last snapshot as its record has it."""
    found = records.load(the_run().record)
    assert found is not None
    snapshot: dict[str, Any] = found["snapshots"][-1]
    return snapshot


def shown() -> dict[str, str]:
    """The row of the table, by column."""
    (row,) = csv.DictReader(Path("results/made/table.csv").read_text().splitlines())
    return row


def by_hand(norms: str) -> float:
    """The distance of the kept generator with these norms."""
    generator, cfg, _ = load_generator(the_run().snapshot(128), norms)
    dataset = open_dataset(cfg.data, Path("data"))
    device = next(generator.parameters()).device
    real = Reference(dataset.images, dataset.fingerprint, Path("data"), device)
    return evaluate(generate(generator, 0, range(16)), real, ["swd"])["swd"]


def recompute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of code that gives swd another value, with the version that says so."""
    for key in ("swd", "standing:swd", "copied:swd", "raw:swd"):
        changed = replace(METRICS[key], version=METRICS[key].version + 1)
        monkeypatch.setitem(METRICS, key, changed)


def test_the_averaged_generator_is_measured_with_statistics_of_its_own(typed: Typed) -> None:
    values = last()["metrics"]
    assert set(values) == {"standing:swd", "raw:swd"}
    assert values["standing:swd"] == pytest.approx(by_hand("standing"), rel=1e-5)
    assert abs(by_hand("copied") / by_hand("standing") - 1) > 1e-3  # these are not those
    assert abs(values["raw:swd"] / values["standing:swd"] - 1) > 1e-3
    assert float(shown()["swd"]) == pytest.approx(values["standing:swd"], rel=1e-3)
    assert float(shown()["raw:swd"]) == pytest.approx(values["raw:swd"], rel=1e-3)


def test_the_other_norms_are_measured_of_what_was_kept(typed: Typed) -> None:
    before, identity = last()["metrics"], the_run().dir.name
    status, said = typed("grid=made.yaml do=plan eval.norms=copied")
    assert status == 0 and "incomplete" in said and "to measure: copied:swd" in said
    assert typed("grid=made.yaml eval.norms=copied")[0] == 0
    values = last()["metrics"]
    assert values == {**before, "copied:swd": pytest.approx(by_hand("copied"), rel=1e-5)}
    assert the_run().dir.name == identity
    assert float(shown()["swd"]) == pytest.approx(values["copied:swd"], rel=1e-3)
    # Each table has its own again, and nothing is left to measure.
    assert "1 finished" in typed("grid=made.yaml do=plan eval.norms=copied")[1]
    assert "1 finished" in typed("grid=made.yaml do=plan")[1]
    assert typed("grid=made.yaml do=report")[0] == 0
    assert float(shown()["swd"]) == pytest.approx(values["standing:swd"], rel=1e-3)


def test_both_stand_in_one_table(typed: Typed) -> None:
    Path("made.yaml").write_text(GRID.replace('[swd, "raw:swd"]', '[swd, "copied:swd", "raw:swd"]'))
    assert typed("grid=made.yaml")[0] == 0
    values = last()["metrics"]
    for column, key in (("swd", "standing:swd"), ("copied:swd", "copied:swd")):
        assert float(shown()[column]) == pytest.approx(values[key], rel=1e-3)
    assert "copied SWD" in Path("results/made/table.md").read_text()
    assert typed("grid=made.yaml do=verify")[0] == 0


def test_pictures_and_exports_have_the_norms_that_are_measured(typed: Typed) -> None:
    assert typed("grid=made.yaml eval.norms=copied")[0] == 0
    tiles = {}
    for norms in ("standing", "copied"):
        generator, _, _ = load_generator(the_run().snapshot(128), norms)
        tiles[norms] = next(generate(generator, 0, range(1))).numpy()[0]
        with Image.open(the_run().dir / last()["samples"][norms]) as picture:
            tile = np.asarray(picture).transpose(2, 0, 1)[:, :32, :32]
        assert np.abs(tile.astype(int) - tiles[norms]).max() <= 1
    assert np.abs(tiles["standing"].astype(int) - tiles["copied"]).max() > 1
    run = the_run().dir.name
    for asked, norms in (("", "copied"), ("eval.norms=standing", "standing")):
        status, said = typed(f"do=sample run={run} n=1 out=drawn {asked}")
        assert status == 0 and f"{norms} batch-norm statistics" in said
        drawn = np.asarray(Image.open("drawn/00000.png")).transpose(2, 0, 1)
        assert np.abs(drawn.astype(int) - tiles[norms]).max() <= 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grid=made.yaml eval.norms=own", "Unknown eval.norms 'own'"),
        ("grid=made.yaml eval.norms=raw", "Unknown eval.norms 'raw'"),
        ("grid=made.yaml eval.beside=[own:swd]", "own:swd"),
    ],
)
def test_other_norms_are_refused_in_one_line(typed: Typed, text: str, words: str) -> None:
    status, said = typed(text)
    assert status == 2 and words in said and said.count("\n") == 1


def test_a_stale_value_is_no_value_and_is_measured_again(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    was, version = last()["metrics"], METRICS["standing:swd"].version
    recompute(monkeypatch)
    monkeypatch.setattr("bench.metrics.patches.patches_to_distance", lambda *_, seed: 0.125)
    said = typed("grid=made.yaml do=plan")[1]
    again = f"stale, to measure again: standing:swd (version {version}, now {version + 1})"
    assert "incomplete" in said and again in said
    assert typed("grid=made.yaml do=report")[0] == 0
    assert shown()["swd"] == "" and "stale: of version" in Path("results/made/table.md").read_text()

    assert typed("grid=made.yaml")[0] == 0
    assert last()["metrics"]["standing:swd"] == 125.0
    assert float(shown()["swd"]) == 125.0
    # The raw generator is gone: its old value stays, and is shown as none.
    assert last()["metrics"]["raw:swd"] == was["raw:swd"] and shown()["raw:swd"] == ""
    assert "1 finished" in typed("grid=made.yaml do=plan")[1]


def test_a_report_is_verified_by_the_versions_that_it_records(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    recompute(monkeypatch)
    status, said = typed("grid=made.yaml do=verify")
    assert status == 0 and "all match" in said
    assert "standing:swd: published by version" in said
    # The records move on; what was published by another version matches nothing any more.
    assert typed("grid=made.yaml force=measure results_dir=elsewhere")[0] == 0
    status, said = typed("grid=made.yaml do=verify")
    assert status == 1 and "published" in said
    status, said = typed("grid=made.yaml do=verify results_dir=elsewhere")
    assert status == 0 and "all match" in said and "published by" not in said


def test_force_measure_measures_again_and_trains_nothing(typed: Typed) -> None:
    record = json.loads(the_run().record.read_text())
    honest = record["snapshots"][-1]["metrics"]["standing:swd"]
    record["snapshots"][-1]["metrics"]["standing:swd"] = 1.0
    the_run().record.write_text(json.dumps(record))
    assert typed("grid=made.yaml")[0] == 0 and last()["metrics"]["standing:swd"] == 1.0
    assert typed("grid=made.yaml force=measure")[0] == 0
    assert last()["metrics"]["standing:swd"] == pytest.approx(honest, rel=1e-5)
    assert "raw:swd" in last()["metrics"]


def test_real_images_that_the_order_of_files_chose_make_a_value_stale(typed: Typed) -> None:
    assert typed("grid=made.yaml eval.real=32")[0] == 0
    assert last()["eval"]["real_chosen"] == "by content" and shown()["swd"]
    record = json.loads(the_run().record.read_text())
    for snapshot in record["snapshots"]:  # as it was written before content decided
        del snapshot["eval"]["real_chosen"]
    the_run().record.write_text(json.dumps(record))
    assert "to measure: raw:swd, standing:swd" in typed("grid=made.yaml do=plan eval.real=32")[1]
    assert typed("grid=made.yaml do=report eval.real=32")[0] == 0
    assert shown()["swd"] == "" and "order of files" in Path("results/made/table.md").read_text()
    assert typed("grid=made.yaml eval.real=32")[0] == 0
    assert float(shown()["swd"]) == pytest.approx(
        record["snapshots"][-1]["metrics"]["standing:swd"], rel=1e-3
    )


def test_a_record_of_before_has_copied_statistics_of_the_first_version(typed: Typed) -> None:
    was = last()["metrics"]
    record = json.loads(the_run().record.read_text())
    for snapshot in record["snapshots"]:
        snapshot |= {"metrics": {"swd": 3.5}, "samples": "samples/one.png", "missing": {}}
        snapshot |= {"intervals": {}, "certificates": {}}
        del snapshot["versions"]
    the_run().record.write_text(json.dumps(record | {"schema": 1}))
    old = last()
    assert old["metrics"] == {"copied:swd": 3.5} and old["samples"] == {"copied": "samples/one.png"}
    said = typed("grid=made.yaml do=plan eval.norms=copied")[1]
    assert "stale, to measure again: copied:swd (version 1, now 2)" in said
    assert "to measure: raw:swd, standing:swd" in typed("grid=made.yaml do=plan")[1]
    assert typed("grid=made.yaml do=report")[0] == 0
    assert "eval.norms=copied shows it" in Path("results/made/table.md").read_text()
    assert typed("grid=made.yaml")[0] == 0
    assert last()["metrics"]["copied:swd"] == 3.5  # stays for who looks at it by its version
    # The raw generator of the last snapshot is in the checkpoint, that of the first is gone.
    assert last()["metrics"]["raw:swd"] == was["raw:swd"]
    assert json.loads(the_run().record.read_text())["snapshots"][0]["missing"][
        "raw:swd"
    ].startswith("the raw generator")
    spec = json.loads(the_run().spec.read_text())
    del spec["eval"]["norms"]  # as it was written before there were two
    assert RunSpec.from_json(spec).eval.norms == "copied"
