"""Checkpoints: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from projgan import checkpoint
from projgan.checkpoint import load_checkpoint, previous, read_checkpoint, save_checkpoint
from projgan.errors import DataError


def state(n: int) -> dict[str, object]:
    return {"nimg": n, "trainer": {"w": torch.full((3,), float(n))}}


def test_round_trip_keeps_the_last_two(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path) is None
    for n in (1, 2, 3):
        save_checkpoint(path, state(n))
    loaded = load_checkpoint(path)
    assert loaded is not None and loaded["nimg"] == 3
    assert torch.equal(loaded["trainer"]["w"], torch.full((3,), 3.0))
    assert read_checkpoint(previous(path))["nimg"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.prev"]


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "other"])
def test_damage_is_noticed_and_the_state_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state(1))
    save_checkpoint(path, state(2))
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"torn": data[:-7], "empty": b"", "other": b"hello"}.get(damage, bytes(data)))
    with pytest.raises(DataError, match="damaged"):
        read_checkpoint(path)
    loaded = load_checkpoint(path)
    assert loaded is not None and loaded["nimg"] == 1
    assert "damaged" in caplog.text


def test_a_failed_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state(1))

    def full(path: Path, data: bytes, keep: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_bytes_atomic", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, state(2))
    loaded = load_checkpoint(path)
    assert loaded is not None and loaded["nimg"] == 1
