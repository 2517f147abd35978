"""do=score and torch-fidelity on the same files, and the table of docs/metrics.md that says so."""

from __future__ import annotations

import re
from pathlib import Path

import oracles
import pytest

from bench.config.metrics import METRICS
from bench.metrics import weights

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@pytest.mark.filterwarnings("ignore")
def test_do_score_agrees_with_torch_fidelity(tmp_path: Path) -> None:
    lines = list(oracles.through_the_lab_extractor(tmp_path, 64))
    assert [line.metric for line in lines] == ["fd_lab", "kid_lab", "precision_lab", "recall_lab"]
    for line in lines:
        assert line.difference <= line.tolerance, line
        assert line.ours > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inceptions_numbers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FILES", dict(weights.FILES))  # as before, afterwards
    for line in oracles.through_inception(tmp_path, 16):
        assert line.difference <= line.tolerance, line


def test_the_documented_differences_are_within_their_tolerances() -> None:
    found = re.findall(r"^\| .* \| .* \| .* \| .* \| (\d[\d.e+-]*) \| (\d[\d.e+-]*) \|$",
                       DOCS.read_text(encoding="utf-8"), re.MULTILINE)  # fmt: skip
    assert len(found) >= 8
    for difference, tolerance in found:
        assert float(difference) <= float(tolerance)


def test_every_metric_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for metric in (m for m in METRICS.values() if not m.norms):  # the page explains the prefixes
        assert f"`{metric.key}`" in text or f"`{metric.group}`" in text, metric.key


def test_the_tests_that_the_pitfalls_name_are_there() -> None:
    text = DOCS.read_text(encoding="utf-8").partition("## Pitfalls")[2]
    named = set(re.findall(r"`(test_\w+)`", text))
    files = [
        path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].glob("**/test_*.py")
    ]
    there = set(re.findall(r"^def (test_\w+)", "\n".join(files), re.MULTILINE))
    assert len(named) > 20 and named <= there
