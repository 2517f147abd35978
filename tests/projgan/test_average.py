"""Averages of several half-lives from one run: as computed by hand, resumed, and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_config import SMALL

from bench.cli import main
from bench.config.paths import RunPaths
from bench.store import record as records
from projgan import standing_statistics
from projgan.checkpoint import read_checkpoint
from projgan.config import AVERAGES, Train
from projgan.train import train
from projgan.trainer import Trainer

CFG = replace(SMALL, train=Train(batch=8, total_kimg=0.064, ema_kimg=0.02, averages=True))


@pytest.mark.parametrize("rampup", [0.05, None])
def test_each_average_has_its_half_life(rampup: float | None) -> None:
    """The sum of the raw generators, each halved as often as half-lives have gone since."""
    short = replace(CFG.train, ema_kimg=0.02, ema_rampup=rampup)
    trainer = Trainer(replace(CFG, train=short), torch.device("cpu"))
    weight = next(trainer.generator.parameters())
    assert set(trainer.averages) == {"quarter", "half", "double", "fourfold"}
    seen = [weight.detach().double().clone()]
    for step in range(1, 6):
        with torch.no_grad():
            weight.add_(torch.sin(torch.arange(weight.numel()) + step).view_as(weight))
        seen.append(weight.detach().double().clone())
        trainer.update_average(8 * step)
    for factor, average in ((1.0, trainer.average),
                            *((AVERAGES[n], a) for n, a in trainer.averages.items())):  # fmt: skip
        expected = seen[0]
        for step, raw in enumerate(seen[1:], 1):
            half_life = 20.0 if rampup is None else min(20.0, 8 * step * rampup)
            kept = 0.5 ** (8 / (factor * half_life))
            expected = expected * kept + raw * (1 - kept)
        assert torch.allclose(next(average.parameters()).double(), expected, atol=1e-5), factor


def test_they_change_nothing_else_and_resume_to_the_bit(tmp_path: Path) -> None:
    plain = replace(CFG, train=replace(CFG.train, averages=False))
    ends = {}
    for name, cfg in (("whole", CFG), ("cut", CFG), ("plain", plain)):
        running = train(cfg, tmp_path / name, tmp_path / "data", (32,))
        if name == "cut":
            assert next(running).nimg == 32
            running.close()
            running = train(cfg, tmp_path / name, tmp_path / "data", (32,))
        *_, last = running
        assert set(last.other_generators) == {"raw", *(AVERAGES if cfg is CFG else ())}
        ends[name] = read_checkpoint(tmp_path / name / "checkpoint.pt")["trainer"]
    for part in ("generator", "heads", "average"):
        for key, value in ends["whole"][part].items():
            assert torch.equal(value, ends["plain"][part][key]), key
            assert torch.equal(value, ends["cut"][part][key]), key
    for name in AVERAGES:
        for key, value in ends["whole"]["averages"][name].items():
            assert torch.equal(value, ends["cut"]["averages"][name][key]), (name, key)
    assert ends["plain"]["averages"] == {}


GRID = """
name: made
about: one run of a grid of the tests
base: {train.total_kimg: 0.032, train.batch: 16, generator.width: 4, data.images: 64,
       discriminator.kind: rgb, discriminator.width: 16, optim.lr_g: 5e-3}
rows: [{label: All, set: {train.averages: true}}, {label: One}]
eval: {metrics: ["standing:swd", "copied:swd", "quarter:swd", "fourfold:swd"], every_kimg: 0.032,
       also_at_kimg: [], fake: 16, beside: []}
report: {rank_by: swd, columns: ["quarter:swd", "standing:swd", "fourfold:swd", "copied:swd"]}
"""


def test_one_run_is_measured_with_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(standing_statistics, "LATENTS", 128)
    monkeypatch.setattr("bench.report.build._pictures", lambda *args: {})
    Path("made.yaml").write_text(GRID)
    assert main.main(["grid=made.yaml", "dispatch=inprocess"]) == 0, capsys.readouterr().err
    for folder in Path("runs").iterdir():
        found = records.load(RunPaths(folder).record)
        assert found is not None
        snapshot = found["snapshots"][-1]
        names = [f"{name}:swd" for name in ("quarter", "fourfold")]
        measured = {"standing:swd", "copied:swd"}
        if found["config"]["train"]["averages"]:
            assert set(snapshot["metrics"]) == measured | {*names}
            values = [snapshot["metrics"][name] for name in (*names, "standing:swd")]
            assert len(set(values)) == 3
        else:
            assert set(snapshot["metrics"]) == measured
            assert all("train.averages=true" in snapshot["missing"][name] for name in names)
