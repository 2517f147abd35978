"""scale=photo, through the command line: real ImageNet features train and measure."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from bench.cli.main import main
from projgan import weights
from projgan.scenes import render

SHORT = (
    "grid=features scale=photo data.path=FOLDER data.name=mine seeds=[100] dispatch=inprocess "
    "only='Pretrained features' "
    "train.total_kimg=0.032 eval.every_kimg=0.032 eval.also_at_kimg=[] eval.fake=16 "
    "generator.width=4"
)


def test_a_folder_and_the_packages_are_all_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    for i, pixels in enumerate(render("clevr", 0, range(48), 64)):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(f"FOLDER/{i}.png")

    assert main(shlex.split(SHORT)) == 0
    said = capsys.readouterr().out
    assert "FD-MobileNet" in said and "Floor, " in said and "(not searched for)" in said
    (path,) = Path("runs").glob("*/record.json")
    record = json.loads(path.read_text())
    package = weights.PACKAGES["tf_efficientnet_lite1.in1k"]
    network = record["backbone"]
    assert network["weights_from"] == package.origin
    assert network["weights_sha256"] == package.sha256
    (last,) = record["snapshots"]
    wanted = {"fd_mobilenet", "kid_mobilenet", "swd", "fd_l1", "fd_l2", "fd_l3", "fd_l4"}
    assert {f"standing:{key}" for key in wanted} <= last["metrics"].keys()
    assert last["eval"]["levels"] == "tf_efficientnet_lite1.in1k at 64 px"
    assert record["floor"]["metrics"].keys() == wanted
    assert package.origin in Path("results/features/index.html").read_text(encoding="utf-8")
