"""docs/reproducing.md names every grid, its commands plan, and its numbers are the plans'."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.cli import main
from bench.cli.options import parse
from bench.config import grid as grids
from bench.config import paths

TEXT = (paths.ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
ROWS = {
    m["name"]: (int(m["runs"]), float(m["images"].replace(",", "")), m["hours"])
    for m in re.finditer(
        r"\| `GRID (?P<name>[\w-]+)[^|]*` \| (?P<runs>\d+) \| (?P<images>[\d,.]+) \| "
        r"(?P<hours>[\d,]+) \|",
        TEXT,
    )
}
HOURS_PER_MILLION = 4 * 10 / 3.6  # four GPUs, 10 s for 1,000 images: as the text says
NOT_THE_PAPERS = {"smoke", "throughput"}  # no budget of the paper's


# `GRID name words`, which stands for `python run_bench.py grid=name words scale=paper`.
COMMANDS = sorted(set(re.findall(r"`GRID ([^`]+)`", TEXT)))
# Rows that the lab has under other names: its only set at twice its usual size.
OF_THE_PAPER_ALONE = "AFHQ-Dog 512"


@pytest.mark.parametrize("scale", ["lab", "paper"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_plans(
    command: str,
    scale: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *words = shlex.split(command)
    words = [f"grid={name}", *words, f"scale={scale}"]
    parse(words)  # as it stands
    planned = [word for word in words if not word.startswith(("do=", "target="))]
    monkeypatch.chdir(tmp_path)
    status = main.main([*planned, "do=plan"])
    out, error = capsys.readouterr()
    if scale == "lab" and OF_THE_PAPER_ALONE in command:
        assert status == 2 and "Unknown row" in error
    else:
        assert status == 0 and f"kimg left, scale {scale}" in out, error
    assert not list(tmp_path.iterdir())


def test_every_grid_is_there() -> None:
    assert {name.split()[0] for name in COMMANDS} == {f.stem for f in paths.GRIDS.glob("*.yaml")}
    assert ROWS.keys() == {f.stem for f in paths.GRIDS.glob("*.yaml")} - NOT_THE_PAPERS


@pytest.mark.parametrize("name", ROWS)
def test_runs_images_and_hours_are_those_of_the_plan(name: str) -> None:
    runs, millions, hours = ROWS[name]
    grid = grids.load(name, "paper")
    assert len(grid.runs) == runs
    assert sum(run.total_images for run in grid.runs) / 1e6 == pytest.approx(millions, abs=0.06)
    cost = sum(
        run.total_images / 1e6 * max(1, run.config.data.resolution / 256) ** 2 for run in grid.runs
    )
    told = float(hours.replace(",", ""))
    assert told == pytest.approx(cost * HOURS_PER_MILLION, rel=0.02, abs=6)


def test_every_claim_is_there_with_its_grid() -> None:
    for claim in grids.load_claims("paper"):
        assert re.search(rf"\|.*`{claim.id}`.*\| `{claim.grid}` \|", TEXT), claim.id
