"""The Fréchet distance against closed forms, an exact route and two other implementations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from frechet_of_features import features_to_frechet
from numpy.typing import NDArray

from bench.metrics import frechet
from bench.metrics.frechet import (
    GAP_TOLERANCE,
    certify_frechet,
    frechet_by_eigenvectors,
    frechet_distance,
)
from bench.metrics.statistics import features_to_statistics, statistics_to_frechet

Array = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]


def features(seed: int, n: int, d: int, decay: float = 20.0, shift: float = 0.0) -> Array:
    """Samples whose covariance has a falling spectrum in a random basis, as real features have."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * np.exp(-np.arange(d) / decay)) @ basis + shift


def moments(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    return x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    a, b = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.0])
    mu = np.array([1.0, -2.0, 0.5])
    wanted = np.sum(mu**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(mu, np.diag(a), np.zeros(3), np.diag(b)) == pytest.approx(wanted)


def test_commuting_gaussians_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    a, b = rng.uniform(0.01, 5, 30), rng.uniform(0.01, 5, 30)
    got = frechet_distance(np.zeros(30), basis * a @ basis.T, np.zeros(30), basis * b @ basis.T)
    assert got == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-11)


def test_one_dimension() -> None:
    assert frechet_distance(1.0, 4.0, 3.0, 9.0) == pytest.approx(4.0 + 1.0)


@pytest.mark.parametrize(
    ("n", "m"), [(400, 400), (40, 400), (400, 40), (40, 30), (65, 64)], ids=str
)
@pytest.mark.parametrize("decay", [3.0, 30.0])
def test_the_routes_are_exact_whatever_the_rank(n: int, m: int, decay: float) -> None:
    x, y = features(0, n, 64, decay), features(1, m, 64, decay, shift=0.1)
    wanted = features_to_frechet(x, y)
    assert frechet_distance(*moments(x, y)) == pytest.approx(wanted, rel=1e-9)


def test_singular_covariances_with_different_null_spaces() -> None:
    # S1 lives in the first two axes, S2 in the last two: only the shared axis can be saved.
    s1, s2 = np.diag([2.0, 3.0, 0.0]), np.diag([0.0, 12.0, 5.0])
    wanted = 2 + (np.sqrt(12) - np.sqrt(3)) ** 2 + 5
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    got = frechet_distance(
        np.zeros(3), rotation @ s1 @ rotation.T, np.zeros(3), rotation @ s2 @ rotation.T
    )
    assert got == pytest.approx(wanted, rel=1e-12)


def test_a_collapsed_generator_is_at_the_real_variance_and_offset() -> None:
    x = features(0, 300, 16)
    y = np.tile(x.mean(0) + 1.0, (50, 1))
    wanted = 16 + np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(*moments(x, y)) == pytest.approx(wanted)


@pytest.mark.parametrize("n", [50, 500])
def test_distance_to_oneself_vanishes(n: int) -> None:
    x = features(0, n, 128)
    scale = np.trace(np.cov(x, rowvar=False))
    assert abs(frechet_distance(*moments(x, x))) < 1e-10 * scale


def test_symmetric_in_its_arguments_and_blind_to_rotation() -> None:
    x, y = features(0, 200, 32), features(1, 25, 32, shift=0.2)
    mu1, s1, mu2, s2 = moments(x, y)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(32, 32)))[0]
    there = frechet_distance(mu1, s1, mu2, s2)
    assert frechet_distance(mu2, s2, mu1, s1) == pytest.approx(there, rel=1e-10)
    assert frechet_distance(*moments(x @ turn, y @ turn)) == pytest.approx(there, rel=1e-10)


@pytest.mark.parametrize("n", [40, 400])
def test_nvlabs_divides_by_n(n: int) -> None:
    x, y = features(0, n, 64), features(1, n, 64, shift=0.1)
    ours, theirs = features_to_frechet(x, y, ddof=1), features_to_frechet(x, y, ddof=0)
    assert abs(ours / theirs - 1) > 1e-4
    a, b = features_to_statistics(x), features_to_statistics(y)
    assert statistics_to_frechet(a.by_n(), b.by_n()) == pytest.approx(theirs, rel=1e-9)
    assert statistics_to_frechet(a, b) == pytest.approx(ours, rel=1e-9)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_agrees_with_torch_fidelity_and_clean_fid() -> None:
    from cleanfid.fid import frechet_distance as clean_fid
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = features(0, 2000, 96, 60), features(1, 1500, 96, 60, shift=0.05)
    mu1, s1, mu2, s2 = moments(x, y)
    got = frechet_distance(mu1, s1, mu2, s2)
    theirs = fid_statistics_to_metric(
        {"mu": mu1, "sigma": s1}, {"mu": mu2, "sigma": s2}, verbose=False
    )
    assert got == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    try:
        other = clean_fid(mu1, s1, mu2, s2)
    except TypeError:  # SciPy 1.18 and later took away an argument that clean-fid passes
        return
    assert got == pytest.approx(other, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("decay", [60.0, 1e9], ids=["falling", "even"])
def test_equals_clean_fid_to_a_millionth_at_full_rank(decay: float) -> None:
    from cleanfid.fid import frechet_distance as clean_fid

    given = moments(features(0, 900, 256, decay), features(1, 900, 256, decay, shift=0.01))
    try:
        theirs = clean_fid(*given)
    except TypeError:
        pytest.skip("SciPy 1.18 and later took away an argument that clean-fid passes")
    assert frechet_distance(*given) == pytest.approx(theirs, rel=1e-6)


# The fast route of full rank, and its check.


def steep(kind: str, decades: float, d: int = 192) -> tuple[Array, Array]:
    """Covariances of full rank whose variances span so many decades."""
    if kind == "falling":
        scale = 10.0 ** (-decades / 2 * np.arange(d) / d)
    else:  # twenty large ones, the others all alike: nothing to sort small eigenvalues by
        scale = np.where(np.arange(d) < 20, 1.0, 10.0 ** (-decades / 2))
    basis = np.linalg.qr(np.random.default_rng(9).normal(size=(d, d)))[0]
    one, two = (
        np.cov((np.random.default_rng(seed).normal(size=(4 * d, d)) * scale) @ basis, rowvar=False)
        for seed in (0, 1)
    )
    return one, two


def svd_trace(s1: Array, s2: Array) -> float:
    """Tr sqrt of the product by Cholesky factors and numpy's SVD."""
    cross = np.linalg.cholesky(s1).T @ np.linalg.cholesky(s2)
    return float(np.linalg.svd(cross, compute_uv=False).sum())


@pytest.mark.parametrize("kind", ["falling", "step"])
@pytest.mark.parametrize("decades", [2, 6, 8, 10, 12])
def test_steep_spectra_cost_no_digits(kind: str, decades: float) -> None:
    s1, s2 = steep(kind, decades)
    assert frechet._trace_of_root(s1, s2) == pytest.approx(svd_trace(s1, s2), rel=1e-10)


def test_the_fast_route_serves_spectra_as_features_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(frechet, "_nuclear_norm")
    for decades in (2, 6, 10):
        frechet._trace_of_root(*steep("falling", decades))


def test_its_check_sees_spoilt_eigenvalues() -> None:
    s1, s2 = steep("step", 10)
    lower1, order1, _ = frechet._pivoted(s1)
    pivots2 = np.diagonal(frechet._pivoted(s2)[0])
    assert frechet._full_rank_trace(lower1, order1, s2, pivots2) is None
    # What it would have given: too far off for a distance that is a small rest of the traces.
    factor = np.linalg.cholesky(s1)
    squares = np.linalg.eigvalsh(factor.T @ s2 @ factor)
    wrong = np.sqrt(squares.clip(min=0.0)).sum()
    assert abs(wrong / svd_trace(s1, s2) - 1) > 1e-10
    # And a determinant that does not fit is noticed as such.
    s1, s2 = steep("falling", 4)
    lower1, order1, _ = frechet._pivoted(s1)
    pivots2 = np.diagonal(frechet._pivoted(s2)[0])
    assert frechet._full_rank_trace(lower1, order1, s2, pivots2) is not None
    assert frechet._full_rank_trace(lower1, order1, s2, pivots2 * 1.001) is None


# Never a root of the product.


def test_no_module_calls_a_matrix_square_root() -> None:
    # scipy.linalg.sqrtm: finite and wrong for singular products in some versions, another
    # signature in others.
    for path in [*(ROOT / "bench").rglob("*.py"), *(ROOT / "projgan").rglob("*.py")]:
        words = re.findall(r"\w+", path.read_text(encoding="utf-8"))
        assert "sqrtm" not in words, path


# The independent route.


@pytest.mark.parametrize(("n", "m"), [(400, 400), (40, 400), (40, 30)], ids=str)
def test_the_second_route_agrees_at_every_rank(n: int, m: int) -> None:
    given = moments(features(0, n, 64), features(1, m, 64, shift=0.1))
    wanted = features_to_frechet(features(0, n, 64), features(1, m, 64, shift=0.1))
    assert frechet_by_eigenvectors(*given) == pytest.approx(wanted, rel=1e-9)
    assert certify_frechet(frechet_distance(*given), *given) < 1e-9


def test_the_second_route_shares_nothing_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    given = moments(features(0, 90, 32), features(1, 20, 32, shift=0.1))
    wanted = frechet_distance(*given)
    for name in ("_trace_of_root", "_pivoted", "_full_rank_trace", "_nuclear_norm"):
        monkeypatch.delattr(frechet, name)
    assert frechet_by_eigenvectors(*given) == pytest.approx(wanted, rel=1e-9)


def test_a_certificate_is_the_relative_gap() -> None:
    given = moments(features(0, 400, 64), features(1, 400, 64, shift=0.1))
    distance = frechet_distance(*given)
    assert certify_frechet(distance * (1 + 1e-3), *given) == pytest.approx(1e-3, rel=1e-3)
    assert certify_frechet(distance * (1 + 1e-5), *given) > GAP_TOLERANCE
    assert certify_frechet(float("nan"), *given) != certify_frechet(distance, *given)


def test_a_distance_next_to_nothing_is_certified_too() -> None:
    mu1, s1, _, _ = moments(features(0, 400, 64), features(1, 9, 64))
    assert certify_frechet(frechet_distance(mu1, s1, mu1, s1), mu1, s1, mu1, s1) < GAP_TOLERANCE
    zero = np.zeros((2, 2))
    assert certify_frechet(0.0, np.zeros(2), zero, np.zeros(2), zero) == 0.0


@pytest.mark.parametrize(
    ("mu", "sigma", "words"),
    [
        (np.zeros(3), np.eye(2), "do not fit"),
        (np.zeros(2), np.eye(2), "cannot be compared"),
        (np.array([0, 0, np.nan]), np.eye(3), "not finite"),
        (np.zeros(3), np.diag([1, np.inf, 1]), "not finite"),
    ],
)
def test_bad_statistics_are_refused(mu: Array, sigma: Array, words: str) -> None:
    for function in (frechet_distance, frechet_by_eigenvectors):
        with pytest.raises(ValueError, match=words):
            function(mu, sigma, np.zeros(3), np.eye(3))
