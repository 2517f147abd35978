"""Processes that train together equal one alone, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from norm_together import GROUPS, normalised
from torch import nn
from train_together import CFG

from projgan.checkpoint import read_checkpoint
from projgan.errors import ConfigError
from projgan.parallel import GroupedBatchNorm, World, group_batch_norm, world
from projgan.standing_statistics import standing_statistics
from projgan.train import train
from projgan.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run of one process and that of two, by their number."""
    top = tmp_path_factory.mktemp("together")
    for snapshot in train(CFG, top / "1", top / "data", (8,)):
        if snapshot.nimg == 8:
            (top / "1" / "first.pt").write_bytes((top / "1" / "checkpoint.pt").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(ROOT / "tests" / "train_together.py"), str(top / "2"), str(top / "data")],
        capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {1: top / "1", 2: top / "2"}


def flat(part: Any) -> torch.Tensor:
    """All tensors of floating type, one after the other."""
    if isinstance(part, torch.Tensor):
        return part.flatten() if part.is_floating_point() else part.new_empty(0).float()
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
    return torch.cat([torch.empty(0), *(flat(v).float() for v in values)])


def test_the_first_step_has_the_same_gradients_and_statistics(folders: dict[int, Path]) -> None:
    """Adam's first moment is the gradient, as its decay is 0."""
    one, two = (read_checkpoint(folders[n] / "first.pt")["trainer"] for n in (1, 2))
    for name in ("optim_d", "optim_g"):
        states = [part[name]["state"] for part in (one, two)]
        gradients = [torch.cat([s["exp_avg"].flatten() for s in p.values()]) for p in states]
        assert gradients[0].norm() > 0
        assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
    for name in ("generator", "heads"):
        for key, tensor in one[name].items():
            if "running_" in key:
                assert torch.allclose(tensor, two[name][key], rtol=1e-4, atol=1e-6), key


def test_training_stays_together(folders: dict[int, Path]) -> None:
    """Adam turns the rounding of a tiny gradient into a step of full length: a few weights part."""
    first, last = (
        [read_checkpoint(folders[n] / f"{name}.pt")["trainer"] for n in (1, 2)]
        for name in ("first", "checkpoint")
    )
    for name in ("generator", "heads", "average"):
        start, one, two = flat(first[0][name]), *(flat(part[name]) for part in last)
        assert (one - two).norm() < 0.02 * (one - start).norm(), name


def test_standing_statistics_do_not_depend_on_how_many_trained(folders: dict[int, Path]) -> None:
    """The first of two processes computes what one alone makes of the same averaged weights."""
    average = read_checkpoint(folders[2] / "checkpoint.pt")["trainer"]["average"]
    alone = Trainer(CFG, torch.device("cpu")).average
    alone.load_state_dict(average)
    expected = standing_statistics(alone).state_dict()
    got = torch.load(folders[2] / "standing.pt", weights_only=True)
    assert list(got) == list(expected)
    for key, tensor in got.items():
        assert torch.equal(tensor, expected[key]), key
    assert not torch.equal(got["start_norm.running_var"], average["start_norm.running_var"])


def test_a_share_is_a_part_of_the_batch() -> None:
    parts = [list(range(12))[World(rank, 3).share(12)] for rank in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(ConfigError, match=r"train\.batch=8 cannot be shared by 3 processes"):
        World(0, 3).share(8)


def test_alone_nothing_is_exchanged() -> None:
    assert world() == World() and world().is_first
    loss = torch.tensor(2.0)
    assert world().average(loss, []) is loss and world().broadcast({"due": [1]}) == {"due": [1]}


def test_grouped_batch_norm_keeps_names_weights_and_evaluation() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    x = torch.linspace(-1, 1, 2 * 3 * 5 * 5).view(2, 3, 5, 5)
    network(x)
    network.eval()
    before, names = network(x), list(network.state_dict())
    group_batch_norm(network, None)
    assert not any(isinstance(m, GroupedBatchNorm) for m in network.modules())
    for group, together in ((2, World()), (None, World(0, 2)), (2, World(0, 2))):
        group_batch_norm(network, group, together)
        (norm,) = (m for m in network.modules() if isinstance(m, GroupedBatchNorm))
        assert (norm.group, norm.world) == (group, together) and not norm.training
        assert torch.equal(network(x), before) and list(network.state_dict()) == names


def test_groups_that_lie_in_several_processes(tmp_path: Path) -> None:
    """24 samples: two or three processes with whole groups, parts of groups, or the batch."""
    for size in (2, 3):
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             f"--nproc-per-node={size}", str(ROOT / "tests" / "norm_together.py"), str(tmp_path)],
            capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for group in GROUPS:
            alone = normalised(group, World())
            parts = [torch.load(tmp_path / f"{size}-{group}-{rank}.pt") for rank in range(size)]
            for name in ("out", "into", "again"):
                whole = torch.cat([part[name] for part in parts])
                assert torch.allclose(whole, alone[name], atol=1e-5), (size, group, name)
            weights = torch.stack([part["weights"] for part in parts]).sum(0)
            assert torch.allclose(weights, alone["weights"], rtol=1e-4), (size, group)
            for part in parts:
                assert torch.allclose(part["running"], alone["running"], atol=1e-5), (size, group)
