"""Sliced Wasserstein distance on Laplacian patches: the pyramid, the patches, the distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.metrics import patches
from bench.metrics.extractors import Source
from bench.metrics.patches import laplacian_pyramid, load_patches, patches_to_distance
from projgan.errors import ConfigError

CPU = torch.device("cpu")
Images = NDArray[np.uint8]


def pictures(count: int, seed: int, size: int = 32) -> Images:
    """Smooth colours with fine noise, [N, 3, S, S]."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, 4, 4)).repeat(size // 4, 2).repeat(size // 4, 3)
    fine = rng.normal(size=(count, 3, size, size))
    return np.clip(128 + 40 * coarse + 15 * fine, 0, 255).astype(np.uint8)


def kept(images: Images, size: int = 32) -> dict[str, NDArray[np.float32]]:
    return load_patches(Source(size, CPU, Path("weights")))(images)


def distances(real: Images, fake: Images) -> dict[str, float]:
    x, y = kept(real), kept(fake)
    return {name: patches_to_distance(x[name], y[name], seed=0) for name in x}


@pytest.mark.parametrize("shape", [(32, 32), (64, 32), (33, 47), (16, 16), (8, 8)], ids=str)
def test_the_pyramid_adds_up_to_the_image(shape: tuple[int, int]) -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, *shape)))
    levels = laplacian_pyramid(images)
    assert min(levels[-1].shape[-2:]) < 2 * patches.SMALLEST
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = level + patches._enlarge(whole, level.shape)
    torch.testing.assert_close(whole, images)


def test_a_flat_image_has_nothing_on_the_fine_levels() -> None:
    levels = laplacian_pyramid(torch.full((1, 3, 64, 64), 7.0))
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    # The enlarged border misses a neighbour, as mirrored borders do; inside nothing is left.
    assert levels[0][..., 4:-4, 4:-4].abs().max() < 1e-4
    assert levels[2].mean() == pytest.approx(7.0, rel=1e-5)


def test_patches_are_windows_of_their_level() -> None:
    images = pictures(2, 0, size=16)
    (found,) = kept(images, size=16).values()
    assert found.shape == (2, patches.PER_IMAGE, 3 * 49)
    windows = np.lib.stride_tricks.sliding_window_view(images[1], (7, 7), axis=(1, 2))
    every = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 147).astype(np.float32)
    for patch in found[1]:
        assert (np.abs(every - patch).max(axis=1) < 1e-3).any()
    assert len(np.unique(found[1], axis=0)) > patches.PER_IMAGE // 2


def test_neither_order_nor_batch_moves_a_patch() -> None:
    images = pictures(6, 0)
    whole, turned = kept(images), kept(images[::-1].copy())
    for name, features in whole.items():
        np.testing.assert_array_equal(features[::-1], turned[name])
        alone = kept(images[3:4])[name][0]
        np.testing.assert_allclose(features[3], alone, atol=1e-3)


def test_equal_sets_have_no_distance_and_the_seed_decides() -> None:
    images = pictures(40, 0)
    assert set(distances(images, images).values()) == {0.0}
    x, y = kept(images)["32"], kept(pictures(40, 1))["32"]
    first = patches_to_distance(x, y, seed=0)
    assert patches_to_distance(x, y, seed=0) == first
    assert patches_to_distance(x, y, seed=1) != first
    assert patches_to_distance(x, y, seed=1) == pytest.approx(first, rel=0.1)


def test_equals_scipys_distance_along_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.stats import wasserstein_distance

    monkeypatch.setattr(patches, "DIRECTIONS", 5)
    monkeypatch.setattr(patches, "_AT_ONCE", 2)
    x, y = kept(pictures(20, 0))["16"], kept(pictures(20, 1))["16"]
    directions = np.random.default_rng(0).normal(size=(5, 147))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    a, b = (patches._normalised(side) @ directions.T for side in (x, y))
    wanted = np.mean([wasserstein_distance(a[:, i], b[:, i]) for i in range(5)])
    assert patches_to_distance(x, y, seed=0) == pytest.approx(wanted, rel=1e-4)


def test_each_level_sees_its_own_scale() -> None:
    real, fake = pictures(100, 0), pictures(100, 1)
    alike = distances(real, fake)
    striped = fake.astype(int)
    striped[:, :, ::2] += 60
    fine = distances(real, np.clip(striped, 0, 255).astype(np.uint8))
    assert fine["32"] > 3 * alike["32"]
    assert fine["16"] == pytest.approx(alike["16"], rel=0.2)
    one_colour = fake.mean(axis=1, keepdims=True).repeat(3, axis=1).astype(np.uint8)
    assert distances(real, one_colour)["16"] > 2 * alike["16"]


def test_colours_are_normalised_each_by_itself() -> None:
    kept_patches = np.random.default_rng(0).normal(size=(30, 16, 147)).astype(np.float32)
    kept_patches[..., :49] = 100 * kept_patches[..., :49] + 50
    flat = patches._normalised(kept_patches).reshape(-1, 3, 49)
    np.testing.assert_allclose(flat.mean(axis=(0, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(flat.std(axis=(0, 2)), 1, rtol=1e-4)


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="swd needs images of 7 px"):
        load_patches(Source(6, CPU, Path("weights")))
