"""Progress: what is shown where, and the remaining time by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.config.spec import EvalSpec, RunSpec
from bench.run.progress import PLAIN_SECONDS, PlainProgress, Progress, duration
from projgan.config import Config, Train

CONFIG = replace(Config(), train=Train(total_kimg=1, batch=50))
RUNS = [RunSpec("g", name, {}, "lab", CONFIG, EvalSpec()) for name in ("One", "Two", "Three")]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_remaining_time_of_run_and_grid() -> None:
    clock = Clock()
    progress = Progress(RUNS, clock)
    progress.begin(RUNS[0])
    assert progress.remaining() == (None, None)
    progress.train(100)  # the first step warms up: its time is unknown
    clock.now += 40  # 400 images in 40 s
    progress.train(500)
    assert progress.remaining() == pytest.approx((50, 50 + 200))
    clock.now += 50
    progress.train(1000)
    progress.end("finished")
    progress.begin(RUNS[1])
    assert progress.remaining() == pytest.approx((100, 200))  # as the first one went
    progress.train(500)  # resumed in the middle: only what it does itself counts
    clock.now += 10
    progress.train(550)
    run, grid = progress.remaining()
    assert run == pytest.approx(90) and grid == pytest.approx(90 + 1000 * 100 / 950)


def test_plain_lines_are_few() -> None:
    clock, lines = Clock(), list[str]()
    progress = PlainProgress(RUNS, lines.append, clock)
    progress.begin(RUNS[0])
    for step in range(1, 21):
        clock.now += PLAIN_SECONDS / 5
        progress.train(50 * step)
    progress.end("finished in 0:40")
    assert len(lines) == 1 + 4 + 1
    assert lines[0] == "[1/3] One: starts"
    assert "kimg, 0:30 left (grid" in lines[1], lines
    assert lines[-1] == "[1/3] One: finished in 0:40"


def test_seeds_are_told_apart() -> None:
    other = replace(RUNS[0], config=replace(CONFIG, train=Train(seed=1)))
    lines = list[str]()
    progress = PlainProgress([RUNS[0], other], lines.append)
    progress.begin(other)
    assert lines == ["[1/2] One · seed=1: starts"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0:00"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
