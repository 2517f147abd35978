"""What a grid shows, in words: which row wins, by how much, how sure, and what the paper says.

Every sentence is put together from the records and says no more than they do: a winner that chance
may have chosen is told as such, and a question that nothing was measured for is left out.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench import agreement, claims, columns, compare, leakage, targets
from bench.aggregate import Cell, Stat
from bench.inference import ALPHA, holm, pairs_needed, sign_flip_p, smallest_p
from bench.spec import Grid

Tone = Literal["yes", "no", "open", "plain"]


@dataclass(frozen=True)
class Sentence:
    """One question with its answer."""

    asks: str
    short: str  # in a few words
    says: str  # in full
    tone: Tone = "plain"


@dataclass(frozen=True)
class Ranked:
    """The rows that have the ranking metric, best first."""

    metric: str
    header: str
    sign: int  # 1 = lower is better
    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        return self.cells[0]

    @property
    def superlative(self) -> str:
        return "lowest" if self.sign == 1 else "highest"

    def stat(self, cell: Cell) -> Stat:
        found = cell.stat(self.metric)
        assert found is not None
        return found

    def said(self, cell: Cell) -> str:
        return f"{self.stat(cell).mean:.3g}"


def ranked(grid: Grid, cells: Sequence[Cell]) -> Ranked | None:
    """The order that the ranking metric gives; None = no row has it."""
    metric = grid.report.rank_by
    if metric is None:
        return None
    sign = 1 if columns.lower_is_better(metric) else -1
    found = [(sign * stat.mean, cell) for cell in cells if (stat := cell.stat(metric))]
    if not found:
        return None
    order = tuple(cell for _, cell in sorted(found, key=lambda pair: pair[0]))
    return Ranked(metric, columns.column(metric).header, sign, order)


def answer(
    grid: Grid,
    cells: Sequence[Cell],
    paper: Mapping[str, targets.PaperRow],
    panel: agreement.Panel | None,
    findings: Sequence[tuple[claims.Claim, claims.Finding]] = (),
) -> list[Sentence]:
    """The questions that a grid's records answer, the winner first.

    Args:
        grid: what was asked for.
        cells: what was measured.
        paper: the paper's numbers by cell name.
        panel: how the metrics agree. None = there is one metric, or too few rows.
        findings: what the records say of the paper's claims about this grid.
    """
    order = ranked(grid, cells)
    if order is None:
        return []
    found = []
    if len(order.cells) > 1:
        found += [_margin(order), _sureness(order)]
    found.insert(0, _winner(order, cells, settled=not found or found[-1].tone == "yes"))
    found += _against_axis(grid, cells, order)
    found += _paper(grid, order, paper)
    found += _findings(findings)
    if panel:
        depends = agreement.conclusion(panel, grid.report.rank_by)
        alone = depends.startswith("The conclusion does not")
        short = "all metrics agree" if alone else "not all metrics agree"
        found.append(
            Sentence("Do other metrics agree?", short, depends, "yes" if alone else "open")
        )
    return found


def _winner(order: Ranked, cells: Sequence[Cell], settled: bool) -> Sentence:
    first, stat = order.first, order.stat(order.first)
    if stat.interval:
        kind = "range" if stat.interval.kind == "range" else "95 % interval"
        spread = f" (mean of {stat.n} runs, {kind} {stat.interval.low:.3g} to "
        spread += f"{stat.interval.high:.3g})"
    else:
        spread = " (one run, so nothing is known of its spread)"
    level = [cell.name for cell in order.cells if order.stat(cell).mean == stat.mean]
    if len(level) > 1:
        said = f"{_listed(level)} share the {order.superlative} {order.header}: {stat.mean:.3g}."
    else:
        said = f"{first.name} has the {order.superlative} {order.header}: "
        said += f"{order.said(first)}{spread}."
    if len(order.cells) < len(cells):
        said += f" {len(order.cells)} of {len(cells)} rows have a result."
    if flag := leakage.leakage(first.spec, order.metric).reason:
        said += f" Its number is flagged: {flag}."
    short = first.name if settled else f"{first.name} leads, not settled"
    if len(level) > 1:
        short = f"{len(level)} rows are level"
    return Sentence("Which wins?", short, said)


def _margin(order: Ranked) -> Sentence:
    first, second, last = order.first, order.cells[1], order.cells[-1]
    word = "below" if order.sign == 1 else "above"
    said = f"{_apart(order, second)} {word} the next, {second.name} ({order.said(second)})"
    if last is not second:
        said += f", and {_apart(order, last)} {word} the last, {last.name} ({order.said(last)})"
    gap = abs(order.stat(second).mean - order.stat(first).mean)
    short = f"{gap:.2g} {order.header} ahead of the next" if gap else "not at all"
    return Sentence("By how much?", short, f"{said}.")


def _apart(order: Ranked, other: Cell) -> str:
    a, b = order.stat(order.first).mean, order.stat(other).mean
    share = f" ({abs(b - a) / b:.0%})" if b > 0 and a > 0 else ""
    return f"{abs(b - a):.3g}{share}"


def _sureness(order: Ranked) -> Sentence:
    """The winner against every other row; it was picked after looking, so all pairs count."""
    asks = "How sure?"
    seeds = {cell.name: compare.by_seed(cell, order.metric) for cell in order.cells}
    common = set.intersection(*map(set, seeds.values()))
    first, others = order.first, order.cells[1:]
    n = len(common)
    if n == 0:
        return Sentence(asks, "not testable", "The rows have no seed in common.", "open")
    wins = sum(
        min(seeds, key=lambda name: order.sign * seeds[name][seed]) == first.name for seed in common
    )
    times = f"It is first in {wins} of {n} seed{'s' if n > 1 else ''}."
    if n == 1:
        said = "One seed shows one draw: another seed may turn the order round."
        return Sentence(asks, "one seed: open", said, "open")
    overlap = [cell.name for cell in others if _overlap(order, cell)]
    if overlap:
        kind = "ranges" if order.stat(first).n < 5 else "intervals"
        times += f" The {kind} of {_listed(overlap)} overlap with its own."
    pairs = list(itertools.combinations(order.cells, 2))
    holm_over = f" over all {len(pairs)} pairs of rows" if len(pairs) > 1 else ""
    test = f"exact sign-flip test, Holm's correction{holm_over}, as the winner was picked after"
    test += " looking"
    if len(pairs) == 1:
        test = "exact sign-flip test"
    if smallest_p(n) * len(pairs) > ALPHA:
        need = pairs_needed(len(pairs))
        said = f"{times} {n} seeds can never settle it at 5 % ({test}): that takes {need} seeds."
        return Sentence(asks, f"open with {n} seeds", said, "open")
    differences = [
        [seeds[a.name][seed] - seeds[b.name][seed] for seed in sorted(common)] for a, b in pairs
    ]
    adjusted = dict(
        zip([(a.name, b.name) for a, b in pairs], holm(list(map(sign_flip_p, differences))),
            strict=True)
    )  # fmt: skip
    ahead = {
        b.name: order.sign * statistics.fmean(d) < 0
        for (a, b), d in zip(pairs, differences, strict=True)
        if a is first
    }  # over the common seeds, which may say otherwise than all runs
    open_ = [
        cell.name
        for cell in others
        if adjusted[first.name, cell.name] > ALPHA or not ahead[cell.name]
    ]
    worst = max(adjusted[first.name, cell.name] for cell in others)
    if not open_:
        said = f"{times} It beats every other row (p ≤ {worst:.2g}; n = {n}; {test})."
        return Sentence(asks, f"sure at 5 %, n = {n}", said, "yes")
    beaten = len(others) - len(open_)
    said = f"{times} It surely beats {beaten} of {len(others)} other rows at 5 %, and not "
    said += f"{_listed(open_)} (n = {n}; {test})."
    return Sentence(asks, f"beats {beaten} of {len(others)} for sure", said, "open")


def _overlap(order: Ranked, other: Cell) -> bool:
    a, b = order.stat(order.first).interval, order.stat(other).interval
    return bool(a and b and a.low <= b.high and b.low <= a.high)


def _against_axis(grid: Grid, cells: Sequence[Cell], order: Ranked) -> list[Sentence]:
    """Where a value of an axis is what everything is held against, such as random weights."""
    axis, _, value = (grid.report.compare_to or "").partition("=")
    if axis not in grid.axes:
        return []
    name = f"{axis.split('.')[-1]}={value}"
    against = compare.baselines(grid, cells)
    with_both = [
        (cell, against[cell.name])
        for cell in order.cells
        if cell.name in against and against[cell.name].stat(order.metric)
    ]
    if not with_both:
        return []
    d = [order.sign * (order.stat(c).mean - order.stat(b).mean) for c, b in with_both]
    better = sum(value < 0 for value in d)
    worse = [cell.name for (cell, _), value in zip(with_both, d, strict=True) if value > 0]
    said = f"Better than at {name} in {better} of {len(d)} rows"
    said += f", worse in {_listed(worse)}" if worse else ""
    p = sign_flip_p(d)
    said += f" (mean difference {order.sign * statistics.fmean(d):+.3g}"
    said += f"; exact sign-flip test over rows, p = {p:.2g})." if len(d) > 1 else ")."
    sure = smallest_p(len(d)) <= ALPHA and p <= ALPHA
    tone: Tone = "open" if not sure else "yes" if statistics.fmean(d) < 0 else "no"
    return [Sentence(f"Against {name}?", f"better in {better} of {len(d)}", said, tone)]


def _paper(grid: Grid, order: Ranked, paper: Mapping[str, targets.PaperRow]) -> list[Sentence]:
    if grid.report.paper is None:
        return []
    key = targets.main_column(grid.report.paper)
    what = columns.PAPER[key].header.removeprefix("paper ")
    known = {
        cell.name: number
        for cell in order.cells
        if (number := paper.get(cell.name, {}).get(key)) and number.value is not None
    }
    values = {name: number.value for name, number in known.items() if number.value is not None}
    if len(values) < 2:
        return []
    asks = "Does the paper say so?"
    names = [cell.name for cell in order.cells if cell.name in values]  # our order
    theirs = sorted(values, key=values.__getitem__)
    best = theirs[0]
    place = names.index(best) + 1
    same = place == 1
    said = f"The paper's first by {what} is {best} ({values[best]:g})"
    said += ", as here." if same else f", here in place {place} of {len(names)}."
    short, tone = ("the same first" if same else "another first"), "open"
    if len(names) > 2:
        ours = [float(i) for i in range(len(names))]
        means = [order.sign * s.mean for c in order.cells if c.name in values
                 if (s := c.stat(order.metric))]  # fmt: skip
        rho = targets.spearman(means, [values[name] for name in names])
        if rho is not None and len(ours) > 3:
            p = claims.shuffled(means, [values[name] for name in names])
            if p <= ALPHA:
                way = "agrees" if rho > 0 else "is the reverse"
                tone = "yes" if rho > 0 else "no"
                short += f", order {way}"
            else:
                way = "agrees no better than chance may" if rho > 0 else "does not agree"
                short += ", order unsure" if rho > 0 else ", order disagrees"
            said += f" The order of the {len(names)} rows {way}: Spearman's rho {rho:.2f}"
            said += f" (permutation p = {p:.2g})."
    doubtful = [n for n in names if known[n].note and known[n].confidence.startswith("memory")]
    if doubtful:
        said += f" {len(doubtful)} of the paper's numbers are from memory, not confirmed."
    if grid.scale == "lab":
        said += " Only orders can agree here: lab distances are not the paper's."
    return [Sentence(asks, short, said, tone)]  # type: ignore[arg-type]


def _findings(findings: Sequence[tuple[claims.Claim, claims.Finding]]) -> list[Sentence]:
    if not findings:
        return []
    words = [finding.verdict for _, finding in findings]
    counts = {word: words.count(word) for word in claims.WORDS if word in words}
    short = ", ".join(f"{n} {word}" for word, n in counts.items())
    each = []
    for word in counts:
        for claim, finding in findings:
            if finding.verdict == word:
                each.append(f"{word.capitalize()}: {claim.says.rstrip('.')}{_measured(finding)}.")
    tone: Tone = "open"
    if "contradicted" in counts:
        tone = "no"
    elif set(counts) == {"supported"}:
        tone = "yes"
    return [Sentence("Do its findings hold?", short, " ".join(each), tone)]


def _measured(finding: claims.Finding) -> str:
    """How sure a finding is, and which way an undecided one points."""
    parts = [f"p = {finding.p:.2g}"] if finding.p is not None else []
    parts += [f"n = {finding.n} {finding.unit}"] if finding.n else []
    if finding.verdict == "undecided" and finding.leans is not None:
        parts.append(f"so far {claims.LEANS[finding.leans]}")
    return f" ({', '.join(parts)})" if parts else ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
