"""Commands as a user types them, beside a grid file of three rows; training takes milliseconds."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import fake_training
import pytest
from fake_training import Engine

from bench.cli import main

GRID = """
name: made
about: a grid of the tests
base: {train.total_kimg: 0.128, train.batch: 32, generator.width: 4, data.images: 64}
rows:
  - {label: One, set: {backbone.name: resnet18}}
  - {label: Two, set: {backbone.name: vit}}
  - {label: Three, set: {discriminator.kind: rgb}}
eval: {metrics: [fd], every_kimg: 0.064, also_at_kimg: [], fake: 8}
report: {rank_by: fd, columns: [fd]}
"""
Bench = Callable[[str], tuple[int, str, str]]
ONE = "train.total_kimg=0.128 generator.width=4 data.images=64"


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """Types a command, as a shell splits it, beside a grid file of three rows."""
    monkeypatch.chdir(tmp_path)
    Path("made.yaml").write_text(GRID)

    def typed(command: str) -> tuple[int, str, str]:
        status = main.main(shlex.split(command))
        return (status, *capsys.readouterr())

    return typed


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr("bench.report.build._pictures", lambda *args: {})
    for check in ("_check_networks", "_check_extractors"):
        monkeypatch.setattr(f"bench.run.preflight.{check}", lambda *args: None)
    return fake_training.install(monkeypatch)
