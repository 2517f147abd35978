"""What a user may have overlooked: rows that are one run in effect, runs with other settings."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_config import SMALL
from typed_commands import ONE, Bench, bench, engine  # noqa: F401 - fixtures

from projgan.config import Config, Discriminator, Generator, from_dict, unused
from projgan.trainer import Trainer

OTHER = {
    "backbone.name": "resnet18", "backbone.weights": "pretrained", "backbone.pretrain_seed": 1,
    "backbone.input_size": 96, "projection.kind": "ccm", "projection.csm": "author",
    "projection.init": "torch", "projection.channels": 8, "discriminator.layers": (1,),
    "discriminator.depth": "by_map", "discriminator.reduce": "mean", "discriminator.base": 8,
    "discriminator.logits": "native", "discriminator.separable": True,
    "discriminator.r1_every": 3, "generator.w_dim": 24, "generator.mapping_layers": 1,
    "generator.path_length_every": 3, "generator.embed": 8, "discriminator.cmap": 8,
}  # fmt: skip


def trained(cfg: Config) -> list[torch.Tensor]:
    """Weights of generator and discriminator after a step on the same images."""
    trainer = Trainer(cfg, torch.device("cpu"))
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trainer.step(images, torch.arange(8))
    return [*trainer.generator.state_dict().values(),
            *trainer.discriminator.heads.state_dict().values()]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "projection"),
    [("projected", "none"), ("projected", "ccm"), ("perceptual", "ccm_csm"), ("rgb", "ccm_csm"),
     ("stylegan2", "ccm_csm"), ("fastgan", "ccm_csm")],
)  # fmt: skip
def test_what_is_called_unused_changes_no_bit(kind: Any, projection: Any) -> None:
    discriminator = Discriminator(base=4, width=32, kind=kind, r1=float(kind == "stylegan2"))
    generator = Generator(
        name="stylegan2" if discriminator.kind == "stylegan2" else "fastgan_lite",
        width=4, z_dim=16, preset="released",
    )  # fmt: skip
    cfg = dataclasses.replace(
        SMALL,
        discriminator=discriminator,
        projection=dataclasses.replace(SMALL.projection, kind=projection),
        generator=generator,
    )
    values = dataclasses.asdict(cfg)
    for key in unused(cfg):
        group, name = key.split(".")
        assert values[group][name] != OTHER[key], key
        values[group][name] = OTHER[key]
    assert unused(cfg)
    pairs = zip(trained(cfg), trained(from_dict(values)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grid=backbones do=plan discriminator.kind=rgb",
         ("note: 10 rows (EfficientNet-lite0, EfficientNet-lite1, …, ViT) differ only in "
         "backbone.name, which nothing uses with discriminator.kind=rgb")),
        ("grid=init do=plan projection.kind=none", "differ only in projection.init, which nothing"),
        ("grid=layers do=plan discriminator.kind=fastgan", "differ only in discriminator.layers"),
        ("grid=smoke do=plan 'generator.w_dim=[8,16]'", "w_dim, which nothing uses with gen"),
        ("grid=smoke do=plan 'data.images=[512,256]' data.path=. data.name=mine",
         "differ only in data.images, which nothing uses with data.path="),
    ],
)  # fmt: skip
def test_rows_that_are_one_run_in_effect_are_named(
    bench: Bench, command: str, words: str
) -> None:  # fmt: skip
    status, out, error = bench(command)
    assert status == 0 and words in out, out + error


@pytest.mark.parametrize("grid", ["smoke", "backbones", "projections", "diffaug", "generators"])
def test_grids_that_ship_have_no_such_rows(bench: Bench, grid: str) -> None:
    assert "note: " not in bench(f"grid={grid} do=plan")[1]


@pytest.mark.usefixtures("engine")
def test_the_override_that_the_runs_had_is_named(bench: Bench) -> None:
    command = f"grid=made.yaml only=Three {ONE}"
    assert "nothing to report" in bench(f"{command} do=report")[1]
    ran = f"{command} dispatch=inprocess train.batch=16 'projection.noise=0.5' 'seeds=[3,4]'"
    assert bench(ran)[0] == 0
    for verb in ("report", "plan", "status"):
        out = bench(f"{command} do={verb}")[1]
        assert (
            "2 of its runs are in runs with projection.noise=0.5 train.batch=16 'seeds=[3,4]': "
            "give that too" in out
        ), out
    told = out.split(" with ")[1].split(": give")[0]
    assert bench(f"{command} do=report {told}")[0] == 0
    assert "with seeds=3" in bench(f"{command} do=plan train.batch=16 projection.noise=0.5")[1].replace("'seeds=[3,4]'", "seeds=3")  # fmt: skip  # noqa: E501
    assert "train.batch=16" in bench(f"{command} train.batch=64 do=report")[1]
    shutil.rmtree("runs")
    assert "give that too" not in bench(f"{command} do=report")[1]


@pytest.mark.parametrize("weights", ["randm", "pretraind", "Random"])
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_weights_that_are_no_file_are_refused_at_once(
    bench: Bench, weights: str, verb: str
) -> None:  # fmt: skip
    status, _, error = bench(f"grid=made.yaml do={verb} backbone.weights={weights}")
    assert status == 2 and "Did you mean" in error and error.count("\n") == 1
    assert not Path("runs").exists()
