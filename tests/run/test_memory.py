"""Peak memory: sees what was allocated since, forgets what was before, and says what it is."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from bench.run import memory
from bench.run.memory import PeakMemory

LARGE = 200  # MB


def allocate() -> None:
    """Takes fresh pages and gives them back; malloc's may be some that the process has already."""
    with mmap.mmap(-1, LARGE * 10**6) as pages:
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1


needs_reset = pytest.mark.skipif(
    not memory._reset_peak(), reason="this system cannot set its high-water mark back"
)


@needs_reset
def test_sees_memory_that_was_given_back() -> None:
    peak = PeakMemory()
    before = peak.read()
    allocate()
    after = peak.read()
    assert after["kind"] == "rss"
    assert after["scope"] == "run"
    assert after["peak_mb"] - before["peak_mb"] > 0.8 * LARGE


@needs_reset
def test_a_new_run_forgets_the_last_ones_peak() -> None:
    first = PeakMemory()
    allocate()
    assert first.read()["peak_mb"] - PeakMemory().read()["peak_mb"] > 0.8 * LARGE


@pytest.mark.parametrize("name", ["_CLEAR", "_STATUS"])
def test_says_when_it_is_the_whole_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(memory, name, tmp_path / "absent" / "file")
    got = PeakMemory().read()
    assert got["scope"] == "process"
    assert got["kind"] == "rss"
    # kB on Linux and bytes on macOS: a wrong unit is out by a factor of a thousand.
    assert 20 < got["peak_mb"] < 200_000


@pytest.mark.gpu
def test_counts_what_torch_allocated_on_the_gpu() -> None:
    device = torch.device("cuda")
    peak = PeakMemory(device)
    before = peak.read()["peak_mb"]
    torch.ones(LARGE * 10**6, dtype=torch.uint8, device=device)
    assert peak.read() == {
        "peak_mb": pytest.approx(before + LARGE, rel=0.05),
        "kind": "cuda",
        "scope": "run",
    }
