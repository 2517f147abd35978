"""CCM and CSM: shapes, rank, linearity, what is frozen, and the accounts that differ."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from projgan.config import Projection as Settings
from projgan.discriminators.projection import Projection

CHANNELS = (24, 40, 112, 320)  # EfficientNet-Lite1 at strides 4/8/16/32


def maps(size: int = 64, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, c, size >> (2 + level), size >> (2 + level), generator=generator)
        for level, c in enumerate(CHANNELS)
    ]


@pytest.mark.parametrize("csm", ["text", "author", "released"])
def test_csm_doubles_the_maps_and_hands_on_half_the_channels(csm: str) -> None:
    projection = Projection(Settings(csm=csm), CHANNELS)  # type: ignore[arg-type]
    shapes = [tuple(m.shape[1:]) for m in projection(maps())]
    assert shapes == [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert projection.channels == (64, 64, 128, 256) and projection.scale == 2


def test_ccm_alone_keeps_the_maps_size() -> None:
    projection = Projection(Settings(kind="ccm"), CHANNELS)
    shapes = [tuple(m.shape[1:]) for m in projection(maps())]
    assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]


def test_no_projection_passes_the_maps_on() -> None:
    given = maps()
    assert Projection(Settings(kind="none"), CHANNELS)(given) is given


@pytest.mark.parametrize("init", ["kaiming", "torch", "rotation"])
def test_ccm_keeps_full_column_rank(init: str) -> None:
    """Section 3.2: the mixing must not lose information, which needs as many outputs as inputs."""
    for conv in Projection(Settings(init=init), CHANNELS).ccm:  # type: ignore[arg-type]
        matrix = conv.weight.double().flatten(1)
        assert torch.linalg.matrix_rank(matrix) == matrix.shape[1]


def test_rotation_preserves_distances_between_pixels() -> None:
    projection = Projection(Settings(kind="ccm", init="rotation"), CHANNELS)
    for before, after in zip(maps(), projection(maps()), strict=True):
        assert torch.allclose(before.norm(dim=1), after.norm(dim=1), rtol=1e-4)


def test_kaiming_weights_have_their_variance() -> None:
    weights = Projection(Settings(), CHANNELS).ccm[3].weight
    assert weights.var().item() == pytest.approx(2 / 320, rel=0.05)


@pytest.mark.parametrize("csm", ["text", "author", "released"])
def test_the_projection_is_affine_and_frozen(csm: str) -> None:
    """P(a + b) - P(b) - P(a) + P(0) = 0: no activation hides in it."""
    projection = Projection(Settings(csm=csm, init="torch"), CHANNELS)  # type: ignore[arg-type]
    a, b = maps(seed=1), maps(seed=2)
    zero = [torch.zeros_like(x) for x in a]
    both = projection([x + y for x, y in zip(a, b, strict=True)])
    for ab, pa, pb, p0 in zip(both, projection(a), projection(b), projection(zero), strict=True):
        assert torch.allclose(ab + p0, pa + pb, atol=1e-3 * float(ab.abs().max()))
    assert not any(p.requires_grad for p in projection.parameters())


def test_released_csm_equals_its_formula() -> None:
    projection = Projection(Settings(csm="released"), CHANNELS)
    mixed = projection.mix_channels(maps())
    up = lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)  # noqa: E731
    fourth = projection.csm[3].out(up(mixed[3]))
    third = projection.csm[2].out(up(mixed[2] + fourth))
    result = projection(maps())
    assert torch.allclose(result[3], fourth) and torch.allclose(result[2], third)


def test_text_csm_mixes_neighbouring_pixels_and_released_does_not() -> None:
    """One changed pixel of the deepest map: only a 3x3 kernel carries it past bilinear's reach."""
    given = maps(size=256)
    changed = [m.clone() for m in given]
    changed[3][:, :, 4, 4] += 1
    reach = {}
    for csm in ("text", "released"):
        projection = Projection(Settings(csm=csm), CHANNELS)  # type: ignore[arg-type]
        difference = projection(changed)[3] - projection(given)[3]
        reach[csm] = int((difference.abs().amax(dim=(0, 1)) > 1e-6).sum())
    assert reach["text"] > reach["released"] > 0


def test_gradients_pass_through() -> None:
    given = [m.requires_grad_() for m in maps()]
    sum(m.sum() for m in Projection(Settings(), CHANNELS)(given)[:1]).backward()
    assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in given)
