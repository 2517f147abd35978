"""Signal to noise and smallest effects, against simulations in which the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_records import make_grid, make_record, write_record
from scipy import stats

from bench.analysis.facts import Facts
from bench.analysis.signal_to_noise import POWER, components, signal, smallest_effect
from bench.analysis.stats import ALPHA, sign_flip_p_values
from bench.analysis.validation import validate
from bench.config import grid as grids
from bench.config.spec import Claim, Grid, ReportSpec
from bench.report import main_table, side_tables
from bench.report.build import write_report
from projgan.errors import UserError


def simulated(
    between: float, within: float, seeds: list[int], rng: np.random.Generator
) -> list[list[float]]:
    """Distances with these standard deviations of their logarithms, so many seeds in each row."""
    rows = 2 + between * rng.standard_normal(len(seeds))
    return [
        list(np.exp(m + within * rng.standard_normal(n))) for m, n in zip(rows, seeds, strict=True)
    ]


def test_components_by_hand() -> None:
    # Logarithms 0 2, 4 6: each row has variance 2; the means 1, 5 have 8, of which 2 / 2 is noise.
    found = components([[1.0, math.exp(2)], [math.exp(4), math.exp(6)]])
    assert found is not None
    assert (found.within, found.between) == pytest.approx((2.0, 7.0))
    assert found.ratio == pytest.approx(math.sqrt(3.5))
    # With one value more, 5, in the second row: squares 2 + 2 over three degrees of freedom; the
    # rows' means 1 and 5 about 3.4; (5 - 13 / 5) seeds in a row.
    found = components([[1.0, math.exp(2)], [math.exp(4), math.exp(6), math.exp(5)]])
    assert found is not None
    squares = 2 * 2.4**2 + 3 * 1.6**2
    assert (found.within, found.between) == pytest.approx((4 / 3, (squares - 4 / 3) / 2.4))


def test_pure_noise_is_no_signal() -> None:
    rng = np.random.default_rng(0)
    found = [components(simulated(0, 0.2, [6] * 19, rng)) for _ in range(300)]
    ratios = [one.ratio for one in found if one]
    assert len(ratios) == 300 and np.median(ratios) < 0.15 and np.quantile(ratios, 0.95) < 0.4
    # The plain ratio of deviations would be 1 / sqrt(6).
    assert np.mean([one.between / one.within for one in found if one]) < 0.05


@pytest.mark.parametrize("seeds", [[6] * 40, [3, 9] * 20, [2] * 39 + [30]])
def test_known_components_are_recovered(seeds: list[int]) -> None:
    rng = np.random.default_rng(1)
    found = [components(simulated(0.6, 0.2, seeds, rng)) for _ in range(200)]
    between = float(np.mean([one.between for one in found if one]))
    within = float(np.mean([one.within for one in found if one]))
    assert (between, within) == pytest.approx((0.36, 0.04), rel=0.05)
    one = found[0]
    assert one is not None and one.variation == pytest.approx(0.2, rel=0.15)


def test_one_bad_row_is_not_the_signal() -> None:
    rng = np.random.default_rng(2)
    rows = simulated(0, 0.1, [4] * 6, rng)
    values = {f"row {i}": row for i, row in enumerate(rows)} | {"failed": [90.0, 80.0, 99.0]}
    found = signal(values)
    assert found is not None and found.worst == "failed" and found.others is not None
    assert found.rows.ratio > 5 > 1 > found.others.ratio
    turned = signal({row: [1 / v for v in points] for row, points in values.items()}, False)
    assert turned is not None and turned.worst == "failed"


def test_what_has_no_spread_has_no_signal() -> None:
    assert components([[1.0, 2.0]]) is None  # one row
    assert components([[1.0], [2.0]]) is None  # one seed
    assert components([[1.0, 0.0], [2.0, 3.0]]) is None  # no logarithm
    assert signal({"A": [1.0, 2.0], "B": []}) is None
    same = components([[1.0, 1.0], [2.0, 2.0]])
    assert same is not None and same.ratio == math.inf and same.variation == 0


def test_six_pairs_reject_only_if_all_have_one_sign() -> None:
    """So the smallest shift is exact: the chance of six positive differences is 80 %."""
    shift = stats.norm.ppf(POWER ** (1 / 6))
    assert math.log(smallest_effect(6, 0.1)) == pytest.approx(0.1 * shift, rel=0.02)
    assert smallest_effect(5, 0.1) == math.inf


@pytest.mark.parametrize("pairs", [7, 9, 12, 14])
def test_the_smallest_effect_is_found_as_often_as_it_says(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    shift = math.log(smallest_effect(pairs, 0.2))
    d = shift + 0.2 * rng.standard_normal((1000, pairs))
    found = np.concatenate([sign_flip_p_values(part) for part in np.split(d, 20)])
    assert np.mean(found <= ALPHA) == pytest.approx(POWER, abs=0.04)


# In a report.

ROWS = {name: {"train.ema_kimg": 1.0 + i} for i, name in enumerate("ABC")}
REPORT = ReportSpec(rank_by="fd_lab", columns=("fd_lab",))
CLAIM = Claim("a-beats-b", "A beats B.", "Table 0", "made", "below", "fd_lab", ("A",), ("B",))


def made(runs: Path, seeds: int, report: ReportSpec = REPORT) -> Grid:
    """Means 10, 20 and 40 with a spread of 10 %; four snapshots of 1000 images each."""
    grid = make_grid(ROWS, report, seeds=range(seeds))
    rng = np.random.default_rng(3)
    for spec in grid.runs:
        mean = 10 * 2.0 ** "ABC".index(spec.row) * float(np.exp(0.1 * rng.standard_normal()))
        curve = {
            1000 * n: {"fd_lab": mean * f} for n, f in ((1, 9.0), (2, 8.0), (3, 4.0), (4, 1.0))
        }
        write_record(runs, spec, make_record(spec, curve))
    return grid


def test_a_report_says_what_its_seeds_resolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids, "load_claims", lambda scale: [CLAIM])
    grid = made(tmp_path / "runs", seeds=6)
    facts = Facts.read(grid, tmp_path / "runs")
    assert facts.signal is not None and 3 < facts.signal.rows.ratio < 15
    assert facts.signal.worst == "C" and 0.05 < facts.signal.rows.variation < 0.16
    ((_, finding),) = facts.findings
    within = math.sqrt(2 * facts.signal.rows.within)
    assert finding.smallest_effect == pytest.approx(smallest_effect(6, within))
    write_report(facts, tmp_path / "results", lambda line: None)
    ratio, effect = f"{facts.signal.rows.ratio:.2f}", f"a-beats-b {finding.smallest_effect:.2f}."
    for name in ("table.md", "table.tex", "index.html"):
        text = (tmp_path / "results" / "made" / name).read_text()
        assert f"Signal to noise of FD-lab: {ratio} (" in text and effect in text, name
    grid = made(tmp_path / "three", seeds=3)
    note = " ".join(main_table.build(Facts.read(grid, tmp_path / "three")).notes)
    assert "ratio of means: none with so few seeds: a-beats-b." in note
    grid = made(tmp_path / "two", seeds=2)
    assert Facts.read(grid, tmp_path / "two").signal is None


def test_a_run_may_count_by_the_second_half_of_its_budget(tmp_path: Path) -> None:
    """Snapshots after 3000 and 4000 of 4000 images, 4 and 1 times the last: 2 times in the mean."""
    last = Facts.read(made(tmp_path, seeds=3), tmp_path)
    report = replace(REPORT, statistic="second_half", columns=("fd_lab", "best:fd_lab"))
    grid = replace(last.grid, report=report)
    half = Facts.read(grid, tmp_path)
    for one, other in zip(last.runs, half.runs, strict=True):
        assert other.value("fd_lab") == pytest.approx(2 * (one.value("fd_lab") or 0))
        assert other.curve("fd_lab") == one.curve("fd_lab")
        assert other.best("fd_lab") == one.best("fd_lab")
    said = "geometric mean over the snapshots of the second half of the budget"
    assert f"FD-lab: {said}." in main_table.build(half).caption
    table = side_tables.seeds(grid, half.cells)
    assert table is not None and said in table.caption
    assert said not in main_table.build(last).caption
    with pytest.raises(UserError, match="Did you mean 'second_half'"):
        validate(replace(grid, report=replace(report, statistic="second-half")))
