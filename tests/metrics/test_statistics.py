"""The streaming accumulator against numpy, and its files."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.metrics import statistics
from bench.metrics.statistics import (
    Accumulator,
    Features,
    features_to_statistics,
    load_features,
    save_features,
)


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_equals_numpy_whatever_the_batches(size: int) -> None:
    x = np.random.default_rng(0).normal(size=(500, 12)) @ np.diag(np.arange(1.0, 13))
    accumulator = Accumulator()
    for start in range(0, 500, size):
        accumulator.update(x[start : start + size])
    got = accumulator.statistics()
    assert got.n == 500
    np.testing.assert_allclose(got.mean, x.mean(0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(got.cov, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-12)


def test_large_offset_in_float32_features_loses_no_digits() -> None:
    x = (np.random.default_rng(0).normal(size=(4000, 4)) + 3000.0).astype(np.float32)
    accumulator = Accumulator()
    for batch in np.array_split(x, 50):
        accumulator.update(batch)
    wanted = np.cov(x.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(accumulator.statistics().cov, wanted, rtol=1e-10, atol=1e-10)


def test_takes_torch_and_half_precision() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    wanted = features_to_statistics(x.numpy())
    accumulator = Accumulator()
    accumulator.update(x)
    np.testing.assert_array_equal(accumulator.statistics().cov, wanted.cov)
    halves = features_to_statistics(x.numpy().astype(np.float16))
    assert halves.cov.dtype == np.float64
    np.testing.assert_allclose(halves.cov, wanted.cov, rtol=1e-2, atol=1e-2)


def test_too_little_or_misshapen_is_refused() -> None:
    accumulator = Accumulator()
    accumulator.update(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="two samples"):
        accumulator.statistics()
    with pytest.raises(ValueError, match="4 dimensions after batches of 3"):
        accumulator.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"\[B, D\]"):
        accumulator.update(np.zeros((2, 3, 1)))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_sums_on_a_device_are_those_of_the_host(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same formulas in torch's operators, with features that have a large common offset."""
    x = torch.randn(300, 12, generator=torch.Generator().manual_seed(0)) + 100
    found = []
    for there in (False, True):
        monkeypatch.setattr(statistics, "sums_on", lambda kind, there=there: there)
        accumulator = Accumulator()
        for part in x.split(size):
            accumulator.update(part)
        assert isinstance(accumulator._scatter, torch.Tensor) == there
        found.append(accumulator.statistics())
    host, device = found
    assert device.cov.dtype == np.float64 and device.n == host.n == 300
    np.testing.assert_allclose(device.mean, host.mean, rtol=1e-14)
    np.testing.assert_allclose(device.cov, host.cov, rtol=0, atol=1e-12)


@pytest.mark.gpu
def test_sums_on_a_gpu_are_those_of_the_host() -> None:
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(0)) + 100
    accumulator = Accumulator()
    for part in x.cuda().split(64):
        accumulator.update(part)
    assert accumulator._scatter.is_cuda
    wanted, got = features_to_statistics(x.numpy()), accumulator.statistics()
    np.testing.assert_allclose(got.mean, wanted.mean, rtol=1e-13)
    np.testing.assert_allclose(got.cov, wanted.cov, rtol=0, atol=1e-11)


def test_a_device_without_float64_gives_its_features_to_the_host(
    caplog: pytest.LogCaptureFixture,
) -> None:
    statistics.sums_on.cache_clear()
    assert statistics.sums_on("cuda") and not statistics.sums_on("cpu")
    assert not caplog.messages
    for _ in range(2):
        assert not statistics.sums_on("mps")
    assert caplog.messages == ["mps has no float64: statistics of features are summed on the host"]


def some(seed: int = 0) -> dict[str, Features]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, 5)).astype(np.float32)
    return {
        "": Features(features_to_statistics(x), x[:3]),
        "l1": Features(features_to_statistics(x * 2), x[:0]),
    }


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.npz"
    save_features(path, "key", some())
    got = load_features(path, "key")
    assert got is not None
    assert list(got) == ["", "l1"]
    for name, wanted in some().items():
        np.testing.assert_array_equal(got[name].statistics.mean, wanted.statistics.mean)
        np.testing.assert_array_equal(got[name].statistics.cov, wanted.statistics.cov)
        np.testing.assert_array_equal(got[name].kept, wanted.kept)
        assert got[name].statistics.n == 20
    assert [f.name for f in path.parent.iterdir()] == ["cache.npz"]


def test_absent_file_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_features(tmp_path / "none.npz", "key") is None
    assert not caplog.records


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text", "other key", "nan"])
def test_a_damaged_file_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "cache.npz"
    content = some()
    if damage == "nan":
        content["l1"].statistics.cov[0, 0] = np.nan
    save_features(path, "another" if damage == "other key" else "key", content)
    whole = bytearray(path.read_bytes())
    at = whole.index(np.float64(content["l1"].statistics.cov[1, 1]).tobytes())
    match damage:
        case "truncate":
            path.write_bytes(whole[: len(whole) // 2])
        case "flip":
            whole[at] ^= 1
            path.write_bytes(whole)
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not an archive")
    with caplog.at_level(logging.WARNING):
        assert load_features(path, "key") is None
    assert len(caplog.records) == 1
    assert "cache.npz" in caplog.text
    assert "computing it again" in caplog.text


def test_readers_never_see_half_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.npz"
    save_features(path, "key", some())
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            save_features(path, "key", some())

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all(load_features(path, "key") is not None for _ in range(50))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not caplog.records
