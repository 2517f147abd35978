"""do=verify finds what was changed after the report was written: by hand, or in the records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis.facts import Facts
from bench.analysis.target import with_target
from bench.config import grid as grids
from bench.config.paths import ROOT
from bench.config.spec import Grid, ReportSpec
from bench.report import manifest
from bench.report.build import write_report
from bench.report.verify import Checked, verify
from projgan.errors import DataError
from projgan.files import sha256_of

REPORT = ReportSpec(
    paper="table2", rank_by="fd_lab", columns=("params_m", "fd_lab", "kid_lab", "paper_fid")
)
ROWS = {
    "EfficientNet-lite1": {"backbone.name": "efficientnet_lite1"},
    "ResNet18": {"backbone.name": "resnet18"},
    "ResNet50": {"backbone.name": "resnet50"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, Path]:
    """A grid with two seeds, and the folder of its report and runs."""
    folder = tmp_path_factory.mktemp("made")
    grid, runs = make_grid(ROWS, REPORT, seeds=(0, 1)), folder / "runs"
    for i, spec in enumerate(grid.runs):
        curve = {n: {"fd_lab": (5 + i) * 4000 / n, "kid_lab": 50.0 + i} for n in (1000, 4000)}
        write_record(runs, spec, make_record(spec, curve))
    write_report(Facts.read(grid, runs), folder / "results", lambda text: None, width=120)
    return grid, folder


@pytest.fixture
def published(made: tuple[Grid, Path], tmp_path: Path) -> tuple[Grid, Path, Path]:
    """A copy of it: the grid, the folder of its report, and that of its runs."""
    shutil.copytree(made[1], tmp_path, dirs_exist_ok=True)
    return made[0], tmp_path / "results" / "made", tmp_path / "runs"


def rehash(folder: Path) -> None:
    """Gives every file its present hash in the manifest, as a careful forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: sha256_of(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_not_touched_agrees(published: tuple[Grid, Path, Path]) -> None:
    found = verify(*published)
    assert found.faults == []
    assert found.cells > 300 and found.files > 10 and found.runs == 6


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("table.csv", ",5.5,", ",5.4,", "table.csv: EfficientNet-lite1, fd_lab: published '5.4'"),
        ("seeds.csv", "5.5,5,6", "5.5,5,7", "seeds.csv: EfficientNet-lite1, high: published '7'"),
        ("table.md", "5.50 ± 0.71", "4.50 ± 0.71", "table.md: line 5"),
        ("index.html", 'data-value="5.5"', 'data-value="4.5"', "index.html: EfficientNet-lite1"),
        ("index.html", ">5.50 ± 0.71<", ">4.50 ± 0.71<", "index.html: EfficientNet-lite1"),
        ("index.html", "has the lowest", "has the highest", "index.html: Which wins?"),
        ("curves/fd_lab.csv", ",20.0", ",21.0", "curves/fd_lab.csv: line 1: EfficientNet-lite1"),
    ],
)
def test_a_forged_number_is_named_even_where_the_hashes_were_mended(
    name: str, old: str, new: str, says: str, published: tuple[Grid, Path, Path]
) -> None:
    folder = published[1]
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    by_hash = verify(*published).faults
    assert any(f.startswith(f"{name}: was changed after") for f in by_hash)
    rehash(folder)
    faults = verify(*published).faults
    assert faults and all(fault.startswith(name) for fault in faults)
    assert any(says in fault for fault in faults)


def change(record: Path, edit: Callable[[dict], None]) -> None:
    found = json.loads(record.read_text())
    edit(found)
    record.write_text(json.dumps(found))


def test_a_changed_record_is_named(published: tuple[Grid, Path, Path]) -> None:
    grid, _, runs = published
    record = runs / grid.runs[2].run_id / "record.json"
    change(record, lambda r: r["snapshots"][-1]["metrics"].update(fd_lab=7.25))
    faults = verify(*published).faults
    assert any("table.csv: ResNet18, fd_lab: published '7.5'" in fault for fault in faults)
    where = f"ResNet18, run {grid.runs[2].run_id}, metrics.fd_lab"
    assert f"manifest.json: {where}: published 7.0, recomputed 7.25" in faults


def test_a_changed_environment_is_named(published: tuple[Grid, Path, Path]) -> None:
    grid, _, runs = published
    record = runs / grid.runs[0].run_id / "record.json"
    change(record, lambda r: r["environment"].update(commit="other"))
    assert any("environment.commit" in fault for fault in verify(*published).faults)


def test_a_missing_record_is_named_and_nothing_is_guessed(
    published: tuple[Grid, Path, Path],
) -> None:
    grid, _, runs = published
    (runs / grid.runs[3].run_id / "record.json").unlink()
    (fault,) = verify(*published).faults
    assert (
        fault
        == f"run {grid.runs[3].run_id} of ResNet18: finished in the report, missing here (not run)"
    )


def test_a_missing_file_is_named(published: tuple[Grid, Path, Path]) -> None:
    (published[1] / "curves" / "fd_lab.svg").unlink()
    (fault,) = verify(*published).faults
    assert fault.startswith("curves/fd_lab.svg: is in manifest.json and not in")


def test_no_manifest_no_verdict(published: tuple[Grid, Path, Path]) -> None:
    grid, folder, runs = published
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="do=report writes it"):
        verify(grid, folder, runs)
    assert Checked().faults == []


PUBLISHED = ROOT / "results" / "reference"


@pytest.mark.skipif(not (PUBLISHED / "records").is_dir(), reason="no records are published")
@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in PUBLISHED.glob("*/manifest.json"))
)
def test_what_the_project_publishes_is_what_its_records_say(name: str) -> None:
    folder = PUBLISHED / name
    told = manifest.read(folder)
    given = manifest.as_overrides(told), told["seeds"], None, told.get("norms", "copied")
    own = folder / "grid.yaml"  # of rows that the shipped grid has no more
    grid = grids.load(str(own) if own.is_file() else name, told["scale"], *given)
    if told["target"]:
        grid = with_target(grid, told["target"])
    found = verify(grid, folder, PUBLISHED / "records")
    # How a number is written may change with the code that writes; the number may not.
    form = (".tex", ".md")
    assert not [fault for fault in found.faults if not fault.partition(":")[0].endswith(form)]
    assert found.runs > 1 and found.cells > 100
