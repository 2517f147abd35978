"""The page of gains: made by its command from figures that were measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import performance
import pytest
import torch

from bench.run.throughput import roofline
from projgan.config import Backbone, Config, Data, Discriminator, Generator, Projection, Train
from projgan.speed import fast

TINY = Config(
    data=Data(name="clevr", resolution=32),
    backbone=Backbone(zoo="lab", name="efficientnet_lite0", weights="random"),
    projection=Projection(channels=4),
    discriminator=Discriminator(base=4, width=16),
    generator=Generator(width=4, z_dim=4),
    train=Train(batch=2),
)


def test_a_page_is_made_from_a_real_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = performance.Scene("Tiny", TINY, 1.8)
    monkeypatch.setattr(performance, "scenes", lambda: {"lab": scene})
    monkeypatch.setattr(performance, "FIGURES", tmp_path)
    monkeypatch.setattr(performance, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(fast, "SWITCHES", {"upsampling": "what it does"})
    mine = f"Before.\n{performance.BEGIN}\nold\n{performance.END}\nAfter.\n"
    (tmp_path / "page.md").write_text(mine)
    threads = torch.get_num_threads()
    try:
        assert performance.main(["--rounds", "1"]) == 0
        first = json.loads((tmp_path / "cpu.json").read_text())["scenes"]["lab"]["variants"]
        assert performance.main(["--rounds", "2", "--only", "all"]) == 0
        with pytest.raises(SystemExit):
            performance.main(["--only", "al"])
    finally:
        torch.set_num_threads(threads)
    text = (tmp_path / "page.md").read_text()
    figures = json.loads((tmp_path / "cpu.json").read_text())
    assert text.startswith("Before.") and text.endswith("After.\n") and "old" not in text
    again = figures["scenes"]["lab"]["variants"]
    assert len(again["all"]["gains"]) == 2 and "2 steps of each" in text
    assert again.keys() == first.keys() and again["plain"] == first["plain"]
    gain = figures["scenes"]["lab"]["variants"]["only upsampling"]["gain"]
    assert f"| upsampling | {gain:.2f}× |" in text and "| what it does |" in text
    assert "all, and compiled | not measured" in text and "GPU | not measured" in text
    shares = figures["scenes"]["lab"]["profile"]["all"]
    assert sum(shares.values()) == pytest.approx(1) and shares["convolutions"] > 0
    assert performance.from_file(tmp_path / "cpu.json") in text


def test_the_page_of_the_project_is_what_its_command_wrote() -> None:
    figures = performance.FIGURES / "cpu.json"
    assert performance.from_file(figures) in performance.PAGE.read_text(encoding="utf-8")


def test_steps_in_turn_are_timed_and_go_on() -> None:
    cpu = torch.device("cpu")
    plain, quick = (performance.Stepper(TINY, s, cpu) for s in (fast.NONE, fast.ALL))
    found = performance.side_by_side(plain, quick, rounds=2)
    assert plain.number == 2 and quick.number == 3 and len(found["gains"]) == 2
    assert found["gain"] > 0 and found["seconds"] > 0
    half = replace(TINY, train=replace(TINY.train, precision="bf16"))
    performance.Stepper(half, fast.ALL, cpu).step()


def test_a_peak_is_one_of_this_machine() -> None:
    found = roofline(torch.device("cpu"))
    assert 1e8 < found.flops < 1e14 and 1e8 < found.copy_bytes < 1e13
