"""Decisions of each kind of check on records: a claim and its cells in, a finding out.

The tests are exact and count what the claim is about (seeds, or rows where it is about networks in
general), so that a claim that few runs cannot settle stays undecided. Each is tested alone, at 5 %:
of twenty claims that say nothing, one would be decided by chance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from bench.analysis import people, time_to_target
from bench.analysis.cells import Cell
from bench.analysis.signal_to_noise import components, smallest_effect
from bench.analysis.stats import (
    ALPHA,
    Interval,
    groups_p,
    mean_interval,
    pairs_needed,
    sign_flip_p,
    sign_test_p,
    smallest_p,
    spearman,
    spearman_interval,
    spearman_p,
)
from bench.analysis.verdicts import ClaimWord
from bench.config import columns as vocabulary
from bench.config.metrics import METRICS
from bench.config.spec import Claim, Grid, value_name


@dataclass(frozen=True)
class Finding:
    """Verdict of the records on a claim, with what it rests on."""

    verdict: ClaimWord = "undecided"
    reason: str = ""  # why it is undecided or not run
    leans: bool | None = None  # whether what was seen is as claimed. None = it is neither
    n: int = 0  # of what was counted
    unit: str = "seeds"  # or rows, data sets
    effect: str = ""  # in words, with its interval
    p: float | None = None
    test: str = ""
    smallest_effect: float | None = None  # ratio of means that the test would find. None = no test
    evidence: tuple[str, ...] = ()  # one line per row
    flags: tuple[str, ...] = ()  # leakage

    @property
    def counted(self) -> str:
        """`3 seeds`."""
        return counted(self.n, self.unit)


@dataclass(frozen=True)
class Evidence:
    """The cells of a claim's grid, and how its metric is read."""

    claim: Claim
    grid: Grid
    cells: Mapping[str, Cell]  # by name

    @property
    def sign(self) -> int:
        return 1 if METRICS[self.claim.metric].lower_is_better else -1

    def values(self, names: Sequence[str]) -> list[float]:
        """Means over all runs, turned so that lower is better."""
        stats = [self.cells[name].stat(self.claim.metric) for name in names]
        return [self.sign * stat.mean for stat in stats if stat]

    def by_seed(self, metric: str | None = None) -> pd.DataFrame:
        """Values of all cells, turned so that lower is better: [seeds, cells], NaN = no such run.

        Of several pretrainings with one seed the mean.
        """
        runs = [(name, run) for name, cell in self.cells.items() for run in cell.finished]
        lines = [
            (name, run.spec.config.train.seed, run.value(metric or self.claim.metric))
            for name, run in runs
        ]
        frame = pd.DataFrame(lines, columns=["cell", "seed", "value"]).astype({"value": float})
        wide = frame.pivot_table("value", "seed", "cell").reindex(columns=list(self.cells))
        return self.sign * wide

    def group(self, names: Sequence[str], metric: str | None = None) -> pd.Series:
        """Mean over rows by seed, for the seeds that all of them have."""
        return self.by_seed(metric)[list(names)].dropna().mean(axis=1)

    def deviation(self) -> float:
        """Standard deviation over seeds of the logarithm of a row's value; NaN = not known."""
        points = [stat.points for c in self.cells.values() if (stat := c.stat(self.claim.metric))]
        spread = components(points)
        replicates = sum(map(len, points)) / int(self.by_seed().count().sum())
        return math.sqrt(spread.within / replicates) if spread else math.nan

    def effect(self, difference: float, interval: Interval | None, base: float) -> str:
        """A difference of values that were turned, in words and the right way round."""
        seen, over = self.sign * difference, self.sign * base
        share = f" ({seen / abs(over):+.0%})" if over else ""
        span = ""
        if interval:
            low, high = sorted((self.sign * interval.low, self.sign * interval.high))
            span = f" [{low:+.3g}, {high:+.3g}]"
        return f"{METRICS[self.claim.metric].header} {seen:+.3g}{share}{span}"


def counted(n: int, unit: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {unit.removesuffix('s') if n == 1 else unit}"


def named(key: str) -> str:
    """A measured value by the name that its column has."""
    return vocabulary.column(key).header


def _way(difference: float) -> bool | None:
    """Below 0 = as claimed."""
    return bool(difference < 0) if difference else None


def _too_few(n: int, unit: str) -> str:
    """Why so few pairs decide nothing; empty = they may."""
    never = f"{counted(n, unit)}: it can never reject; it needs {pairs_needed()}"
    return never if smallest_p(n) > ALPHA else ""


def _by_p(found: Finding, doubt: str = "") -> Finding:
    """Decide by the p-value, unless there is a doubt."""
    reason = doubt or (f"p above {ALPHA:g}" if (found.p or 0) > ALPHA else "")
    word: ClaimWord = "supported" if found.leans else "contradicted"
    return replace(found, verdict="undecided" if reason else word, reason=reason)


def _nothing(unit: str, reason: str, test: str) -> Finding:
    return Finding("not run", reason, unit=unit, test=test)


def _detected(pairs: int, deviation: float) -> float | None:
    return None if math.isnan(deviation) else smallest_effect(pairs, deviation)


def _pairs(e: Evidence, d: Sequence[float], base: float, unit: str, deviation: float) -> Finding:
    """Paired differences by the exact sign-flip test; below 0 = as claimed."""
    n, test = len(d), "exact sign-flip test"
    if n == 0:
        return _nothing(unit, f"no common {unit.removesuffix('s')}", test)
    mean, interval, below = float(np.mean(d)), mean_interval(d), sum(v < 0 for v in d)
    found = Finding(
        leans=_way(mean),
        n=n,
        unit=unit,
        effect=f"{e.effect(mean, interval, base)}, as claimed in {below} of {counted(n, unit)}",
        p=sign_flip_p(d),
        test=test,
        smallest_effect=_detected(n, deviation),
    )
    unsure = interval is not None and interval.low <= 0 <= interval.high
    return _by_p(found, _too_few(n, unit) or ("the interval includes 0" if unsure else ""))


def _below(e: Evidence) -> Finding:
    ours, theirs = e.group(e.claim.these), e.group(e.claim.than)
    d = (ours - theirs).dropna()
    rows = 1 / len(e.claim.these) + 1 / len(e.claim.than)
    return _pairs(e, list(d), theirs[d.index].mean(), "seeds", e.deviation() * math.sqrt(rows))


def _axis(e: Evidence) -> Finding:
    """Each row at one value of an axis against itself at another."""
    assert e.claim.axis is not None
    pairs: dict[str, dict[str, str]] = {}
    for name, cell in e.cells.items():
        rest = {k: v for k, v in cell.axes.items() if k != e.claim.axis}
        at = value_name(e.claim.axis, cell.axes[e.claim.axis])
        pairs.setdefault(repr((cell.row, sorted(rest.items()))), {})[at] = name
    (low,), (high,) = e.claim.these, e.claim.than
    ours = np.array(e.values([pair[low] for pair in pairs.values()]))
    theirs = np.array(e.values([pair[high] for pair in pairs.values()]))
    return _pairs(e, list(ours - theirs), theirs.mean(), "rows", _log_deviation(ours, theirs))


def _measures(e: Evidence) -> Finding:
    """One measure of the rows below another measure of the same rows and seeds."""
    ours, theirs = e.group(e.claim.these), e.group(e.claim.these, e.claim.x)
    d = (ours - theirs).dropna()
    base, deviation = theirs[d.index].mean(), _log_deviation(ours[d.index], theirs[d.index])
    return _pairs(e, list(d), base, "seeds", deviation)


def _log_deviation(ours: np.ndarray | pd.Series, theirs: np.ndarray | pd.Series) -> float:
    """Standard deviation of the differences of logarithms; NaN where they have none."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    return float(np.std(np.log(ratios), ddof=1)) if len(ratios) > 1 and min(ratios) > 0 else np.nan


def _alike(e: Evidence) -> Finding:
    """Equivalence: the interval of the mean difference lies within a share of the others' mean."""
    ours, theirs = e.group(e.claim.these), e.group(e.claim.than)
    d = (ours - theirs).dropna()
    n, test = len(d), "interval of paired differences"
    if n == 0:
        return _nothing("seeds", "no common seed", test)
    interval, base = mean_interval(list(d)), abs(theirs[d.index].mean())
    bound = (e.claim.within or 0.0) * base
    found = Finding(n=n, effect=e.effect(d.mean(), interval, base), test=test)
    if smallest_p(n) > ALPHA or interval is None:
        few = f"{counted(n, 'seeds')}: too few to decide; it needs {pairs_needed()}"
        return replace(found, reason=few)
    if -bound < interval.low and interval.high < bound:
        return replace(found, verdict="supported", leans=True)
    if interval.low > bound or interval.high < -bound:
        return replace(found, verdict="contradicted", leans=False)
    reason = f"the interval reaches across ±{bound:.3g}, which counts as no difference"
    return replace(found, reason=reason)


def _groups(e: Evidence) -> Finding:
    """A class of rows against another: is so large a difference one of chance?"""
    these, than = e.values(e.claim.these), e.values(e.claim.than)
    seen, n = float(np.mean(these) - np.mean(than)), len(these) + len(than)
    p, test = groups_p(these, than)
    effect = e.effect(seen, None, float(np.mean(than)))
    found = Finding(leans=_way(seen), n=n, unit="rows", effect=effect, p=p, test=test)
    at_best = (2 if len(these) == len(than) else 1) / math.comb(n, len(these))
    return _by_p(found, f"{n} rows can never decide it" if at_best > ALPHA else "")


def _best(e: Evidence) -> Finding:
    """Better than every rival, each by a test of its own at 5 %.

    So is the chance 5 % at most that a row is called the best which is not: it would have to pass
    against the row that is better, too.
    """
    (name,) = e.claim.these
    seeds = e.by_seed().dropna()
    n, test = len(seeds), "exact sign-flip test against each rival"
    if n == 0:
        return _nothing("seeds", "no common seed", test)
    means = seeds.mean().sort_values(kind="stable")
    rivals = [c for c in means.index if c != name]
    p = {c: sign_flip_p(seeds[name] - seeds[c]) for c in rivals}
    below = [c for c in rivals if means[name] < means[c] and p[c] <= ALPHA]
    above = [c for c in rivals if means[name] > means[c] and p[c] <= ALPHA]
    open_ = [c for c in rivals if p[c] > ALPHA]
    # The rival that is shown: one that beats it, else the one that is hardest to beat.
    rival = min(above, key=p.__getitem__) if above else max(rivals, key=p.__getitem__)
    against = e.effect(means[name] - means[rival], None, means[rival])
    found = Finding(
        leans=_way(means[name] - means[rivals[0]]),
        n=n,
        effect=f"beats {len(below)} of {len(rivals)} rivals; {against} against {rival}",
        p=p[rival],
        test=test,
        smallest_effect=_detected(n, e.deviation() * math.sqrt(2)),
    )
    if few := _too_few(n, "seeds"):
        return replace(found, reason=few)
    if above:
        return replace(found, verdict="contradicted", leans=False)
    if not open_:
        return replace(found, verdict="supported", leans=True)
    more = f" and {len(open_) - 1} more" if len(open_) > 1 else ""
    return replace(found, reason=f"not told apart from {open_[0]}{more}")


def _correlation(e: Evidence) -> Finding:
    assert e.claim.x is not None
    xs = {name: stat.mean for name in e.claim.these if (stat := e.cells[name].stat(e.claim.x))}
    x, y, n = list(xs.values()), e.values([*xs]), len(xs)
    test = "Spearman's rank correlation over rows, permutation test"
    rho = spearman(x, y)
    if n < 4 or rho is None:
        return Finding("undecided", "fewer than 4 rows that differ", n=n, unit="rows", test=test)
    low, high = spearman_interval(rho, n)
    way = "worse" if rho > 0 else "better"
    found = Finding(
        n=n,
        unit="rows",
        effect=f"rho {rho:+.2f} [{low:+.2f}, {high:+.2f}], more {named(e.claim.x)} goes with {way}",
        p=spearman_p(x, y),
        test=test,
    )
    if e.claim.expects == "none":
        return _no_correlation(found, low, high, e.claim.within or 0.0)
    found = replace(found, leans=(rho > 0) == (e.claim.expects == "positive"))
    return _by_p(found, f"{n} rows can never decide it" if 2 / math.factorial(n) > ALPHA else "")


def _no_correlation(found: Finding, low: float, high: float, bound: float) -> Finding:
    """Decide the claim that a correlation is within the bound."""
    if -bound < low and high < bound:
        return replace(found, verdict="supported")
    if (found.p or 0) <= ALPHA:
        return replace(found, verdict="contradicted")
    at_best = spearman_interval(0.0, found.n)[1]
    if at_best < bound:
        return replace(
            found, reason=f"no correlation is seen, but one beyond ±{bound:g} is not ruled out"
        )
    enough = (m for m in itertools.count(found.n) if spearman_interval(0.0, m)[1] < bound)
    reason = (
        f"{found.n} rows can never support it: even of no correlation at all the interval is "
        f"±{at_best:.2f}, and the bound is ±{bound:g}; it needs {next(enough)}"
    )
    return replace(found, reason=reason)


def _sooner(e: Evidence) -> Finding:
    """Fewer images, or less training time, to the best of another row, seed by seed."""
    (these,), (than,) = e.claim.these, e.claim.than
    ours, theirs = e.cells[these], e.cells[than]
    report = replace(e.grid.report, target=f"row:{theirs.row}", rank_by=e.claim.metric)
    found = time_to_target.measure(replace(e.grid, report=report), [ours, theirs])
    test = "exact sign test"
    if found is None or len(found.lines) < 2:
        return _nothing("seeds", "no curve of images", test)
    mine, other = (found.times(name).by_replicate() for name in (these, than))
    pairs = [(reach, other[replicate]) for replicate, reach in mine.items() if replicate in other]
    if not pairs:
        return _nothing("seeds", "no common seed", test)
    by_time = e.claim.x == "train_s"
    looks = [(a, *((a.seconds, b.seconds) if by_time else (a.images, b.images))) for a, b in pairs]
    more = sum(a.reached and cost < its for a, cost, its in looks)
    # Who has not reached it when the other had is later; where noise leaves that open, neither is.
    less = sum(
        cost > its if a.reached else not a.undecided and cost >= its for a, cost, its in looks
    )
    middle = float(np.median([its / cost if a.reached else 0.0 for a, cost, its in looks]))
    effect = f"{middle:.3g} times {'less training time' if by_time else 'fewer images'}"
    effect = effect if middle else "not reached within the budget"
    how = "surely reached" if found.sure else "first snapshot below"
    n = len(pairs)
    return _by_p(
        Finding(
            leans=_way(less - more),
            n=n,
            effect=f"{effect} (median, {how}), sooner in {more}, later in {less} of "
            f"{counted(n, 'seeds')}",
            p=sign_test_p(more, less),
            test=test,
        ),
        _too_few(n, "seeds"),
    )


def _people(e: Evidence) -> Finding:
    """Judgements of people that others published; no run decides it."""
    (ours,), (theirs,) = e.claim.these, e.claim.than
    both, test = people.pairs(ours, theirs), "95 % intervals over people"
    if not both:
        return _nothing("data sets", "no data set on which both were judged", test)
    effect = "; ".join(
        f"{a.dataset}: {a.share:g} % [{a.low:g}, {a.high:g}] taken for real at FID {a.fid:g}, "
        f"{b.share:g} % [{b.low:g}, {b.high:g}] at FID {b.fid:g}"
        for a, b in both
    )
    found = Finding(n=len(both), unit="data sets", effect=effect, test=test)
    if all((a.fid or 0) < (b.fid or 0) and a.high < b.low for a, b in both):
        return replace(found, verdict="supported")
    if any(a.low > b.high for a, b in both):
        return replace(found, verdict="contradicted")
    return replace(found, reason="the intervals overlap")


@dataclass(frozen=True)
class Check:
    """A kind of check: how it decides, and which fields of a claim it needs."""

    decide: Callable[[Evidence], Finding]
    needs: frozenset[str]
    one: frozenset[str] = field(default_factory=frozenset)  # of these, exactly one entry
    of_rows: bool = True  # what is named is all that is looked at; else the whole grid
    of_records: bool = True  # else what is named is in a published table


BOTH = frozenset({"these", "than"})
CHECKS: dict[str, Check] = {
    "below": Check(_below, BOTH),
    "groups": Check(_groups, BOTH),
    "axis": Check(_axis, BOTH | {"axis"}, BOTH, of_rows=False),
    "best": Check(_best, frozenset({"these"}), frozenset({"these"}), of_rows=False),
    "correlation": Check(_correlation, frozenset({"these", "x", "expects"})),
    "sooner": Check(_sooner, BOTH, BOTH),
    "alike": Check(_alike, BOTH | {"within"}),
    "measures": Check(_measures, frozenset({"these", "x"})),
    "people": Check(_people, BOTH, BOTH, of_records=False),
}
