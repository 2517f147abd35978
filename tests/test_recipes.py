"""The README's recipes, followed to the letter in a copy of the project, and run."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SECTION = (ROOT / "README.md").read_text().partition("## Add something")[2].partition("\n## ")[0]
PYTHON = re.findall(r"```python\n# (\S+?)(?:, a row of (\w+))?\n(.*?)```", SECTION, re.DOTALL)
GRIDS = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
# Little training on few small images, and random weights where others would be downloaded.
TINY = ["dispatch=inprocess", "seeds=[0]", "train.total_kimg=0.016", "train.batch=8",
        "data.images=32", "generator.width=4", "eval.fake=64", "eval.real=32", "eval.beside=[]",
        "eval.also_at_kimg=[]", "eval.norms=copied", "backbone.weights=random"]  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with what the README's blocks of Python add."""
    place = tmp_path_factory.mktemp("copy")
    for part in ("bench", "projgan", "experiments"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_bench.py", place)
    assert len(PYTHON) == 3
    for name, table, text in PYTHON:
        file = place / name
        if not table:
            assert not file.exists()
            file.write_text(text)
            continue
        code = file.read_text()
        opening = re.search(rf"^{table}\b.* = [({{]\n", code, re.MULTILINE)
        assert opening is not None, f"{name} has no table {table}"
        file.write_text(code[: opening.end()] + text + code[opening.end() :])
    return place


def run(place: Path, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "run_bench.py", *words], cwd=place, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def table(place: Path, grid: str) -> list[dict[str, str]]:
    with (place / "results" / grid / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_backbone_and_a_metric_that_are_added_are_run_and_shown(copy: Path) -> None:
    """The grid of timm's networks, with a row for the one that was added, and the new metric."""
    text = next(grid for grid in GRIDS if "timm/" in grid)
    head, rows, rest = text.partition("rows:\n")
    rows += "  - {label: added, set: {backbone.name: mobilenetv3_small}}\n"
    rest = rest.replace("[fd]", "[fd, means_lab]").replace("fd, images", "fd, means_lab, images")
    (copy / "experiments" / "grids" / "small-networks.yaml").write_text(head + rows + rest)
    run(copy, "grid=small-networks", *TINY)

    found = {row["label"]: row for row in table(copy, "small-networks")}
    assert found.keys() == {"GhostNet", "RegNetY-200MF", "added"}
    for row in found.values():
        assert float(row["fd_lab"]) > float(row["means_lab"]) ** 2 > 0
    page = (copy / "results" / "small-networks" / "index.html").read_text()
    assert "mean distance" in page and "distance of the mean features" in page
    records = [json.loads(path.read_text()) for path in copy.glob("runs/*/record.json")]
    assert "MobileNetV3-S" in {record["backbone"]["label"] for record in records}


def test_a_grid_that_is_added_is_run_and_shown(copy: Path) -> None:
    text = next(grid for grid in GRIDS if "widths" in grid)
    (copy / "experiments" / "grids" / "widths.yaml").write_text(text)
    run(copy, "grid=widths", "only=narrow", *TINY)
    status = {row["label"]: row["status"] for row in table(copy, "widths")}
    assert status == {"narrow": "finished", "wide": "missing"}


def test_a_metric_that_is_added_scores_folders(copy: Path) -> None:
    rng = np.random.default_rng(0)
    for side, mean in (("real", 100), ("fake", 150)):
        (copy / side).mkdir()
        for i, image in enumerate(rng.normal(mean, 30, (8, 32, 32, 3))):
            pixels = image.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(copy / side / f"{i}.png")
    run(copy, "do=score", "real=real", "fake=fake", "metrics=[means_lab]", "out=scores.json")
    scores = json.loads((copy / "scores.json").read_text())
    assert scores["metrics"]["means_lab"]["value"] > 0


def test_a_metric_that_is_added_is_in_the_docs(copy: Path) -> None:
    for part in ("docs/metrics.md", "tests/metrics_docs.py"):
        (copy / part).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / part, copy / part)
    environment = os.environ | {"PYTHONPATH": str(copy)}
    subprocess.run([sys.executable, "tests/metrics_docs.py"], cwd=copy, env=environment, check=True)
    assert "| `means_lab` | mean distance |" in (copy / "docs" / "metrics.md").read_text()
