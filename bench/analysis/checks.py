"""How each kind of check on records is decided: a claim and its cells in, a verdict with p out.

The tests are exact and count what the claim is about (seeds, or rows where it is about networks in
general), so that a claim that few runs cannot settle stays undecided. Each is tested alone, at 5 %:
of twenty claims that say nothing, one would be decided by chance.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from bench.analysis import cells as aggregate
from bench.analysis import people, time_to_target
from bench.analysis.cells import Cell
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
from bench.config import columns as vocabulary
from bench.config.metrics import METRICS
from bench.config.spec import Claim, Grid, value_name

Word = Literal["supported", "contradicted", "undecided", "not run"]
WORDS: tuple[Word, ...] = get_args(Word)


@dataclass(frozen=True)
class Evidence:
    """The cells of a claim's grid, and how its metric is read."""

    claim: Claim
    grid: Grid
    cells: Mapping[str, Cell]  # by name

    def group(self, names: Sequence[str]) -> list[Cell]:
        return [self.cells[name] for name in names]

    def value(self, cell: Cell) -> float:
        """Mean over seeds, turned so that lower is better."""
        stat = cell.stat(self.claim.metric)
        assert stat is not None
        return self.sign * stat.mean

    @property
    def sign(self) -> int:
        return 1 if METRICS[self.claim.metric].lower_is_better else -1

    def effect(self, difference: float, interval: Interval | None, base: float) -> str:
        """A difference of values that were turned, in words and the right way round."""
        seen, over = self.sign * difference, self.sign * base
        share = f" ({seen / abs(over):+.0%})" if over else ""
        span = ""
        if interval:
            low, high = sorted((self.sign * interval.low, self.sign * interval.high))
            span = f" [{low:+.3g}, {high:+.3g}]"
        return f"{METRICS[self.claim.metric].header} {seen:+.3g}{share}{span}"

    def by_seed(self, cell: Cell) -> dict[int, float]:
        """Seed -> value, turned so that lower is better; the mean over pretraining seeds."""
        found: dict[int, list[float]] = {}
        for run in cell.finished:
            if (value := run.value(self.claim.metric)) is not None:
                found.setdefault(run.spec.config.train.seed, []).append(self.sign * value)
        return {seed: statistics.fmean(values) for seed, values in found.items()}

    def group_by_seed(self, names: Sequence[str]) -> dict[int, float]:
        """Seed -> mean over the rows, for the seeds that all of them have."""
        each = [self.by_seed(cell) for cell in self.group(names)]
        seeds = sorted(set.intersection(*map(set, each)))
        return {seed: statistics.fmean(values[seed] for values in each) for seed in seeds}


@dataclass(frozen=True)
class Outcome:
    """What a check found, before it is put into words for all claims alike."""

    verdict: Word
    n: int
    unit: str
    effect: str
    p: float | None
    test: str
    reason: str = ""
    leans: bool | None = None  # as claimed, the other way, or neither


def _below(e: Evidence) -> Outcome:
    ours, theirs = (e.group_by_seed(names) for names in (e.claim.these, e.claim.than))
    common = [seed for seed in ours if seed in theirs]
    base = statistics.fmean(theirs[s] for s in common) if common else 0.0
    return _signs(e, [ours[s] - theirs[s] for s in common], base, "seeds")


def _axis(e: Evidence) -> Outcome:
    assert e.claim.axis is not None
    pairs: dict[str, dict[str, Cell]] = {}
    for cell in e.cells.values():
        rest = {k: v for k, v in cell.axes.items() if k != e.claim.axis}
        at = value_name(e.claim.axis, cell.axes[e.claim.axis])
        pairs.setdefault(repr((cell.row, sorted(rest.items()))), {})[at] = cell
    (low,), (high,) = e.claim.these, e.claim.than
    values = [(e.value(pair[low]), e.value(pair[high])) for pair in pairs.values()]
    differences = [a - b for a, b in values]
    return _signs(e, differences, statistics.fmean(b for _, b in values), "rows")


def _signs(e: Evidence, d: Sequence[float], base: float, unit: str) -> Outcome:
    """Paired differences by the exact sign-flip test; below 0 = as claimed."""
    n, test = len(d), "exact sign-flip test"
    if n == 0:
        return Outcome("not run", 0, unit, "", None, test, f"no common {unit.rstrip('s')}")
    mean, interval, p = statistics.fmean(d), mean_interval(d), sign_flip_p(d)
    below = sum(value < 0 for value in d)
    effect = f"{e.effect(mean, interval, base)}, as claimed in {below} of {counted(n, unit)}"
    if smallest_p(n) > ALPHA:
        few = f"{counted(n, unit)}: it can never reject; {_needs()}"
        return Outcome("undecided", n, unit, effect, p, test, few, _way(mean))
    if interval and interval.low <= 0 <= interval.high:
        reason = "the interval includes 0"
        return Outcome("undecided", n, unit, effect, p, test, reason, _way(mean))
    return _by_p(p, _way(mean), n, unit, effect, test)


def counted(n: int, unit: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {unit.rstrip('s') if n == 1 else unit}"


def _needs() -> str:
    return f"it needs {pairs_needed()}"


def _way(difference: float) -> bool | None:
    """Below 0 = as claimed."""
    return difference < 0 if difference else None


def _by_p(p: float, leans: bool | None, n: int, unit: str, effect: str, test: str) -> Outcome:
    if p > ALPHA:
        return Outcome("undecided", n, unit, effect, p, test, f"p above {ALPHA:g}", leans)
    return Outcome("supported" if leans else "contradicted", n, unit, effect, p, test, leans=leans)


def _groups(e: Evidence) -> Outcome:
    these, than = ([e.value(c) for c in e.group(g)] for g in (e.claim.these, e.claim.than))
    seen = statistics.fmean(these) - statistics.fmean(than)
    n, p, test = len(these) + len(than), *groups_p(these, than)
    effect = e.effect(seen, None, statistics.fmean(than))
    if (2 if len(these) == len(than) else 1) / math.comb(n, len(these)) > ALPHA:
        few = f"{n} rows can never decide it"
        return Outcome("undecided", n, "rows", effect, p, test, few, _way(seen))
    return _by_p(p, _way(seen), n, "rows", effect, test)


def _best(e: Evidence) -> Outcome:
    """Better than every rival, each by a test of its own at 5 %.

    So is the chance 5 % at most that a row is called the best which is not: it would have to pass
    against the row that is better, too.
    """
    (name,) = e.claim.these
    seeds = {cell: e.by_seed(c) for cell, c in e.cells.items()}
    common = sorted(set.intersection(*map(set, seeds.values())))
    n, test = len(common), "exact sign-flip test against each rival"
    if n == 0:
        return Outcome("not run", 0, "seeds", "", None, test, "no common seed")
    means = {c: statistics.fmean(values[s] for s in common) for c, values in seeds.items()}
    rivals = sorted((c for c in means if c != name), key=means.__getitem__)
    p = {c: sign_flip_p([seeds[name][s] - seeds[c][s] for s in common]) for c in rivals}
    below = [c for c in rivals if means[name] < means[c] and p[c] <= ALPHA]
    above = [c for c in rivals if means[name] > means[c] and p[c] <= ALPHA]
    open_ = [c for c in rivals if p[c] > ALPHA]
    # What it is told against: who beats it, else who is hardest to beat.
    rival = min(above, key=p.__getitem__) if above else max(rivals, key=p.__getitem__)
    effect = (
        f"beats {len(below)} of {len(rivals)} rivals; "
        f"{e.effect(means[name] - means[rival], None, means[rival])} against {rival}"
    )
    leans = _way(means[name] - means[rivals[0]])
    if smallest_p(n) > ALPHA:
        reason = f"{counted(n, 'seeds')}: it can never reject; {_needs()}"
    elif above:
        return Outcome("contradicted", n, "seeds", effect, p[rival], test, leans=False)
    elif not open_:
        return Outcome("supported", n, "seeds", effect, p[rival], test, leans=True)
    else:
        more = f" and {len(open_) - 1} more" if len(open_) > 1 else ""
        reason = f"not told apart from {open_[0]}{more}"
    return Outcome("undecided", n, "seeds", effect, p[rival], test, reason, leans)


def _correlation(e: Evidence) -> Outcome:
    assert e.claim.x is not None
    cells = e.group(e.claim.these)
    xs = [stat.mean if (stat := c.stat(e.claim.x)) else math.nan for c in cells]
    ys = [e.value(c) for c in cells]
    test = "Spearman's rank correlation over rows, permutation test"
    kept = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(x)]
    n = len(kept)
    x, y = [a for a, _ in kept], [b for _, b in kept]
    rho = spearman(x, y)
    if n < 4 or rho is None:
        return Outcome("undecided", n, "rows", "", None, test, "fewer than 4 rows that differ")
    low, high = spearman_interval(rho, n)
    p = spearman_p(x, y)
    way = "worse" if rho > 0 else "better"
    effect = f"rho {rho:+.2f} [{low:+.2f}, {high:+.2f}], more {named(e.claim.x)} goes with {way}"
    if e.claim.expects == "none":
        bound = e.claim.within or 0.0
        if -bound < low and high < bound:
            return Outcome("supported", n, "rows", effect, p, test)
        if p <= ALPHA:
            return Outcome("contradicted", n, "rows", effect, p, test)
        reason = f"no correlation is seen, but one beyond ±{bound:g} is not ruled out"
        if spearman_interval(0.0, n)[1] >= bound:
            reason = (
                f"{n} rows can never support it: even of no correlation at all the interval is "
                f"±{spearman_interval(0.0, n)[1]:.2f}, and the bound is ±{bound:g}; it needs "
                f"{next(m for m in itertools.count(n) if spearman_interval(0.0, m)[1] < bound)}"
            )
        return Outcome("undecided", n, "rows", effect, p, test, reason)
    leans = (rho > 0) == (e.claim.expects == "positive")
    if 2 / math.factorial(n) > ALPHA:
        few = f"{n} rows can never decide it"
        return Outcome("undecided", n, "rows", effect, p, test, few, leans)
    return _by_p(p, leans, n, "rows", effect, test)


def _sooner(e: Evidence) -> Outcome:
    ours, theirs = (e.group(names)[0] for names in (e.claim.these, e.claim.than))
    report = replace(e.grid.report, target=f"row:{theirs.row}", rank_by=e.claim.metric)
    found = time_to_target.lines(replace(e.grid, report=report), [ours, theirs])
    lines = [found.get(cell.name) for cell in (ours, theirs)]
    test = "exact sign test"
    if None in lines:
        return Outcome("not run", 0, "seeds", "", None, test, "no curve of images")
    sound = all(line and line.sound for line in lines)
    reached = []
    for cell, line in zip((ours, theirs), lines, strict=True):
        assert line is not None
        times = line.sound if sound and line.sound else line.paper
        runs = [run for run in cell.finished if run.curve(e.claim.metric)]
        pairs_of = zip(runs, times.runs, strict=True)
        reached.append({_seeds_of(run): at for run, at in pairs_of})
    pairs = [(at, reached[1][seed]) for seed, at in reached[0].items() if seed in reached[1]]
    if not pairs:
        return Outcome("not run", 0, "seeds", "", None, test, "no common seed")
    # Who has not reached it when the other had is later; where noise leaves that open, neither is.
    n, by_time = len(pairs), e.claim.x == "train_s"
    spent = [((a.seconds, b.seconds) if by_time else (a.images, b.images)) for a, b in pairs]
    both = [(a, *cost) for (a, _), cost in zip(pairs, spent, strict=True)]
    more = sum(a.reached and ours < theirs for a, ours, theirs in both)
    less = sum(
        (a.reached and ours > theirs) or (not a.reached and not a.undecided and ours >= theirs)
        for a, ours, theirs in both
    )
    middle = statistics.median(theirs / ours if a.reached else 0.0 for a, ours, theirs in both)
    said = f"{middle:.3g} times " + ("less training time" if by_time else "fewer images")
    said = said if middle else "not reached within the budget"
    how = "surely reached" if sound else "first snapshot below"
    effect = f"{said} (median, {how}), sooner in {more}, later in {less} of {counted(n, 'seeds')}"
    p, leans = sign_test_p(more, less), _way(less - more)
    if smallest_p(n) > ALPHA:
        reason = f"{counted(n, 'seeds')}: it can never reject; {_needs()}"
        return Outcome("undecided", n, "seeds", effect, p, test, reason, leans)
    return _by_p(p, leans, n, "seeds", effect, test)


def _seeds_of(run: aggregate.Run) -> tuple[int, int]:
    return run.spec.config.train.seed, run.spec.config.backbone.pretrain_seed


def named(key: str) -> str:
    """A measured value by the name that its column has."""
    return vocabulary.column(key).header


@dataclass(frozen=True)
class Check:
    """A kind of check: how it decides, and which fields of a claim it needs."""

    decide: Callable[[Evidence], Outcome]
    needs: frozenset[str]
    one: frozenset[str] = field(default_factory=frozenset)  # of these, exactly one entry
    of_rows: bool = True  # what is named is all that is looked at; else the whole grid
    of_records: bool = True  # else what is named is in a published table


def _alike(e: Evidence) -> Outcome:
    """Equivalence: the interval of the mean difference lies within a share of the others' mean."""
    ours, theirs = (e.group_by_seed(names) for names in (e.claim.these, e.claim.than))
    common = [seed for seed in ours if seed in theirs]
    n, test = len(common), "interval of paired differences"
    d = [ours[s] - theirs[s] for s in common]
    interval = mean_interval(d)
    base = abs(statistics.fmean(theirs[s] for s in common)) if common else 0.0
    bound = (e.claim.within or 0.0) * base
    effect = e.effect(statistics.fmean(d), interval, base) if common else ""
    if smallest_p(n) > ALPHA or interval is None:
        few = f"{counted(n, 'seeds')}: too few to decide; {_needs()}"
        return Outcome("undecided" if n else "not run", n, "seeds", effect, None, test, few)
    if -bound < interval.low and interval.high < bound:
        return Outcome("supported", n, "seeds", effect, None, test, leans=True)
    if interval.low > bound or interval.high < -bound:
        return Outcome("contradicted", n, "seeds", effect, None, test, leans=False)
    reason = f"the interval reaches across ±{bound:.3g}, which counts as no difference"
    return Outcome("undecided", n, "seeds", effect, None, test, reason)


def _measures(e: Evidence) -> Outcome:
    """One measure of the rows below another measure of the same rows and seeds."""
    other = replace(e, claim=replace(e.claim, metric=e.claim.x or ""))
    ours, theirs = (one.group_by_seed(e.claim.these) for one in (e, other))
    common = [seed for seed in ours if seed in theirs]
    base = statistics.fmean(theirs[s] for s in common) if common else 0.0
    return _signs(e, [ours[s] - theirs[s] for s in common], base, "seeds")


def _people(e: Evidence) -> Outcome:
    """By judgements of people that others published; no run decides it."""
    (ours,), (theirs,) = e.claim.these, e.claim.than
    both = people.pairs(ours, theirs)
    unit, test = "data sets", "95 % intervals over people"
    effect = "; ".join(
        f"{a.dataset}: {a.share:g} % [{a.low:g}, {a.high:g}] taken for real at FID {a.fid:g}, "
        f"{b.share:g} % [{b.low:g}, {b.high:g}] at FID {b.fid:g}"
        for a, b in both
    )
    if not both:
        return Outcome("not run", 0, unit, "", None, test, "no data set on which both were judged")
    less = all((a.fid or 0) < (b.fid or 0) and a.high < b.low for a, b in both)
    more = any(a.low > b.high for a, b in both)
    word: Word = "supported" if less else "contradicted" if more else "undecided"
    reason = "" if less or more else "the intervals overlap"
    return Outcome(word, len(both), unit, effect, None, test, reason)


CHECKS: dict[str, Check] = {
    "below": Check(_below, frozenset({"these", "than"})),
    "groups": Check(_groups, frozenset({"these", "than"})),
    "axis": Check(_axis, frozenset({"axis", "these", "than"}), frozenset({"these", "than"}), False),
    "best": Check(_best, frozenset({"these"}), frozenset({"these"}), False),
    "correlation": Check(_correlation, frozenset({"these", "x", "expects"})),
    "sooner": Check(_sooner, frozenset({"these", "than"}), frozenset({"these", "than"})),
    "alike": Check(_alike, frozenset({"these", "than", "within"})),
    "measures": Check(_measures, frozenset({"these", "x"})),
    "people": Check(
        _people, frozenset({"these", "than"}), frozenset({"these", "than"}), of_records=False
    ),
}
