"""What a grid shows, in words: which row wins, by how much, how sure, and what the paper says.

Every sentence is put together from the records and says no more than they do: a winner that chance
may have chosen is told as such, and a question that nothing was measured for is left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from bench.analysis import (
    checks,
    feature_overlap,
    metric_agreement,
    paper_claims,
    paper_numbers,
    row_tests,
    time_to_target,
)
from bench.analysis.cells import Cell
from bench.analysis.stats import (
    ALPHA,
    all_pairs_p,
    holm,
    pairs_needed,
    sign_flip_p,
    smallest_p,
    spearman,
    spearman_p,
)
from bench.config import columns as vocabulary
from bench.config.spec import Claim, Grid
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts, Ranking

Tone = Literal["yes", "no", "open", "plain"]
PAPER = "Does the paper say so?"


@dataclass(frozen=True)
class Sentence:
    """One question with its answer."""

    asks: str
    short: str  # in a few words
    says: str  # in full
    tone: Tone = "plain"
    points: tuple[tuple[str, str], ...] = ()  # a word, and what is said of it; a line each
    row: str = ""  # whose runs stand behind it


def answer(facts: Facts) -> list[Sentence]:
    """The questions that a grid's records answer, the winner first."""
    grid, cells, paper, panel = facts.grid, facts.cells, facts.paper, facts.agreement
    order = facts.ranking
    if order is None:
        return []
    apart = _conditions(facts, order)
    if apart:
        found = _first_at_each(apart, cells)
        parts = {at: _paper(grid, part, paper) for at, part in apart.items()}
        told = {at: sentences[0] for at, sentences in parts.items() if sentences}
        found += [_merged(told, list(told.values()))] if told else []
    else:
        found = _against_axis(grid, cells, order)  # where there is one, it is what the grid asks
        found += _first(order, cells)
        found += _paper(grid, order, paper)
    if grid.scale == "lab" and found[-1].asks == PAPER:
        only = "Only orders can agree here: lab distances are not the paper's."
        found[-1] = replace(found[-1], says=f"{found[-1].says} {only}".strip())
    found += _soon(grid, cells)
    found += _findings(facts.findings)
    if panel:
        depends = metric_agreement.conclusion(panel, grid.report.rank_by)
        alone = depends.startswith("The conclusion does not")
        short = "all metrics agree" if alone else "not all metrics agree"
        short = "not known" if depends.startswith("Whether") else short
        found.append(
            Sentence("Do other metrics agree?", short, depends, "yes" if alone else "open")
        )
    return found


def competitions(facts: Facts) -> list[Ranking]:
    """The orders whose first rows are winners: one, or one at each choice of axis values."""
    if facts.ranking is None:
        return []
    return list(_conditions(facts, facts.ranking).values()) or [facts.ranking]


def _conditions(facts: Facts, order: Ranking) -> dict[str, Ranking]:
    """The order at each choice of axis values, where a row competes with rows at the same alone.

    So it is where the grid holds its rows against one of them: nobody asks whether a network on all
    images beats another on a thousand. Empty = all cells compete.
    """
    grid, cells = facts.grid, facts.cells
    if (grid.report.compare_to or grid.report.baseline) not in {row.label for row in grid.rows}:
        return {}
    at = {cell.name: cell.name.removeprefix(f"{cell.row} · ") for cell in cells if cell.axes}
    found = {}
    for choice in dict.fromkeys(at.values()):
        there = tuple(cell for cell in order.cells if at.get(cell.name) == choice)
        if there:
            found[choice] = replace(order, cells=there)
    return found if len(found) > 1 else {}


def _merged(names: Iterable[str], sentences: Sequence[Sentence]) -> Sentence:
    """The same question asked at each choice of axis values."""
    shorts = [s.short for s in sentences]
    counts = {short: shorts.count(short) for short in shorts}
    short = "; ".join(f"{said} ({n} of {len(shorts)})" for said, n in counts.items())
    tones = {s.tone for s in sentences}
    tone: Tone = tones.pop() if len(tones) == 1 else "open"
    if len({s.says for s in sentences}) == 1:
        return Sentence(sentences[0].asks, short, sentences[0].says, tone)
    points = tuple((name, s.says) for name, s in zip(names, sentences, strict=True))
    return Sentence(sentences[0].asks, short, "", tone, points)


def _first_at_each(apart: Mapping[str, Ranking], cells: Sequence[Cell]) -> list[Sentence]:
    """Which row is first at each choice of axis values, by how much, how surely."""
    each = {at: _first(order, cells) for at, order in apart.items()}
    firsts = [order.name(order.first) for order in apart.values()]
    counts = {name: firsts.count(name) for name in firsts}
    short = ", ".join(f"{name} ({n} of {len(firsts)})" for name, n in counts.items())
    if len(counts) == 1:
        short = f"{firsts[0]}, each of {len(firsts)} times"
    sure = [found[-1] for found in each.values() if len(found) > 1]
    if any(one.tone != "yes" for one in sure):
        short += ", not settled"
    points = tuple((at, " ".join(one.says for one in found[:2])) for at, found in each.items())
    wins = Sentence("Which wins?", short, "", points=points)
    return [wins, _merged(each, sure)] if len(sure) == len(each) else [wins]


def _first(order: Ranking, cells: Sequence[Cell]) -> list[Sentence]:
    """Which row is first, by how much, how surely."""
    if len(order.cells) < 2:
        return [_winner(order, cells, settled=True)]
    sure = _sureness(order)
    return [_winner(order, cells, sure.tone == "yes"), _margin(order), sure]


def _winner(order: Ranking, cells: Sequence[Cell], settled: bool) -> Sentence:
    first, stat = order.first, order.stat(order.first)
    if stat.interval:
        kind = "range" if stat.interval.kind == "range" else "95 % interval"
        spread = f" (mean of {stat.n} runs, {kind} {brief(stat.interval.low)} to "
        spread += f"{brief(stat.interval.high)})"
    else:
        spread = " (one run, so nothing is known of its spread)"
    level = [order.name(cell) for cell in order.cells if order.stat(cell).mean == stat.mean]
    if len(level) > 1:
        said = f"{_listed(level)} share the {order.superlative} {order.header}: {brief(stat.mean)}."
    else:
        said = f"{order.name(first)} has the {order.superlative} {order.header}: "
        said += f"{brief(order.stat(first).mean)}{spread}."
    rivals = [cell for cell in cells if cell.axes == first.axes or not order.one_condition]
    if len(order.cells) < len(rivals):
        said += f" {len(order.cells)} of {len(rivals)} rows have a result."
    if flag := feature_overlap.of_cell(first, order.metric).reason:
        said += f" Its number is flagged: {flag}."
    name = order.name(first)
    short = name if settled else f"{name} leads, not settled"
    if len(level) > 1:
        short = f"{len(level)} rows are level"
    return Sentence("Which wins?", short, said, row=first.name)


def _margin(order: Ranking) -> Sentence:
    first, second, last = order.first, order.cells[1], order.cells[-1]

    def named(cell: Cell) -> str:
        return f"{order.name(cell)} ({brief(order.stat(cell).mean)})"

    word = "below" if order.sign == 1 else "above"
    said = f"{_apart(order, second)} {word} the next, {named(second)}"
    if last is not second:
        said += f", and {_apart(order, last)} {word} the last, {named(last)}"
    gap = abs(order.stat(second).mean - order.stat(first).mean)
    short = f"{brief(gap)} {order.header} ahead of the next" if gap else "not at all"
    return Sentence("By how much?", short, f"{said}.")


def _apart(order: Ranking, other: Cell) -> str:
    a, b = order.stat(order.first).mean, order.stat(other).mean
    percent = 100 * abs(b - a) / b if b > 0 and a > 0 else None
    share = "" if percent is None else f" ({percent:.{0 if percent >= 1 else 1}f}%)"
    return f"{brief(abs(b - a))}{share}"


def _sureness(order: Ranking) -> Sentence:
    """The winner against every other row; it was picked after looking, so all pairs count."""
    asks = "How sure?"
    seeds = {cell.name: cell.by_seed(order.metric) for cell in order.cells}
    common = set.intersection(*map(set, seeds.values()))
    first, others = order.first, order.cells[1:]
    n = len(common)
    if n == 0:
        return Sentence(asks, "not testable", "The rows have no seed in common.", "open")
    wins = sum(
        min(seeds, key=lambda name: order.sign * seeds[name][seed]) == first.name for seed in common
    )
    # Where networks were pretrained more than once, a draw is a seed with one of them.
    drawn = "draw" if len({draw[1:] for draw in common}) > 1 else "seed"
    times = f"It is first in {wins} of {n} {drawn}{'s' if n > 1 else ''}."
    if n == 1:
        said = "One seed shows one draw: another seed may turn the order round."
        return Sentence(asks, "one seed: open", said, "open")
    overlap = [order.name(cell) for cell in others if _overlap(order, cell)]
    if overlap:
        kind = "ranges" if order.stat(first).n < 5 else "intervals"
        times += f" The {kind} of {_listed(overlap)} overlap with its own."
    pairs = len(order.cells) * len(others) // 2
    holm_over = f" over all {pairs} pairs of rows" if pairs > 1 else ""
    test = f"exact sign-flip test, Holm's correction{holm_over}, as the winner was picked after"
    test += " looking"
    if pairs == 1:
        test = "exact sign-flip test"
    if smallest_p(n) * pairs > ALPHA:
        need = pairs_needed(pairs)
        never = f"{n} {drawn}s can never settle it at 5 % ({test})"
        said = f"{times} {never}: that takes {need} {drawn}s."
        return Sentence(asks, f"open with {n} {drawn}s", said, "open")
    values = [[seeds[cell.name][seed] for seed in sorted(common)] for cell in order.cells]
    # In the order of `pairs`, which begins with those of the winner.
    adjusted = holm(all_pairs_p(values))[: len(others)]
    behind = [
        order.sign * statistics.fmean(a - b for a, b in zip(values[0], theirs, strict=True)) >= 0
        for theirs in values[1:]
    ]  # over the common seeds, which may say otherwise than all runs
    open_ = [
        order.name(cell)
        for cell, p, lost in zip(others, adjusted, behind, strict=True)
        if p > ALPHA or lost
    ]
    worst = max(adjusted)
    if not open_:
        said = f"{times} It beats every other row (p ≤ {worst:.2g}; n = {n}; {test})."
        return Sentence(asks, f"sure at 5 %, n = {n}", said, "yes")
    beaten = len(others) - len(open_)
    said = f"{times} It surely beats {beaten} of {len(others)} other rows at 5 %, and not "
    said += f"{_listed(open_)} (n = {n}; {test})."
    return Sentence(asks, f"beats {beaten} of {len(others)} for sure", said, "open")


def _overlap(order: Ranking, other: Cell) -> bool:
    a, b = order.stat(order.first).interval, order.stat(other).interval
    return bool(a and b and a.low <= b.high and b.low <= a.high)


def _against_axis(grid: Grid, cells: Sequence[Cell], order: Ranking) -> list[Sentence]:
    """Where a value of an axis is what everything is held against, such as random weights."""
    axis, _, value = (grid.report.compare_to or "").partition("=")
    if axis not in grid.axes:
        return []
    name = f"{axis.split('.')[-1]}={value}"
    against = row_tests.baselines(grid, cells)
    with_both = [
        (cell, against[cell.name])
        for cell in order.cells
        if cell.name in against and against[cell.name].stat(order.metric)
    ]
    if not with_both:
        return []
    d = [order.sign * (order.stat(c).mean - order.stat(b).mean) for c, b in with_both]
    better = sum(value < 0 for value in d)
    worse = [cell.row for (cell, _), value in zip(with_both, d, strict=True) if value > 0]
    said = f"{order.header} is better than at {name} in {better} of {len(d)} rows"
    said += f", worse in {_listed(worse)}" if worse else ""
    p = sign_flip_p(d)
    said += f" (mean difference {order.sign * statistics.fmean(d):+.3g}"
    said += f"; exact sign-flip test over rows, p = {p:.2g})." if len(d) > 1 else ")."
    sure = smallest_p(len(d)) <= ALPHA and p <= ALPHA
    tone: Tone = "open" if not sure else "yes" if statistics.fmean(d) < 0 else "no"
    return [Sentence(f"Better than {name}?", f"in {better} of {len(d)} rows", said, tone)]


def _paper(
    grid: Grid, order: Ranking, paper: Mapping[str, paper_numbers.PaperRow]
) -> list[Sentence]:
    if grid.report.paper is None:
        return []
    key = paper_numbers.main_column(grid.report.paper)
    what = vocabulary.PAPER[key].header.removeprefix("paper ")
    known = {
        cell.name: number
        for cell in order.cells
        if (number := paper.get(cell.name, {}).get(key)) and number.value is not None
    }
    values = {name: number.value for name, number in known.items() if number.value is not None}
    if len(values) < 2:
        return []
    names = [cell.name for cell in order.cells if cell.name in values]  # our order
    theirs = sorted(values, key=values.__getitem__)
    best = theirs[0]
    place = names.index(best) + 1
    same = place == 1
    called = next(order.name(cell) for cell in order.cells if cell.name == best)
    said = f"The paper's first by {what} is {called} ({values[best]:g})"
    said += ", as here." if same else f", here in place {place} of {len(names)}."
    short, tone = ("the same first" if same else "another first"), "open"
    if len(names) > 2:
        ours = [float(i) for i in range(len(names))]
        means = [order.sign * s.mean for c in order.cells if c.name in values
                 if (s := c.stat(order.metric))]  # fmt: skip
        rho = spearman(means, [values[name] for name in names])
        if rho is not None and len(ours) > 3:
            p = spearman_p(means, [values[name] for name in names])
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
    return [Sentence(PAPER, short, said, tone)]  # type: ignore[arg-type]


def _soon(grid: Grid, cells: Sequence[Cell]) -> list[Sentence]:
    """How soon the target was reached: the paper's own measure of convergence."""
    what, sure, found = time_to_target.soon(grid, cells)
    others = [one for one in found if not one.is_reference]
    if not others:
        return []
    first = others[0]
    if math.isinf(first.images):
        own = [one.name for one in found if one.is_reference and not math.isinf(one.images)]
        short = f"no row but {own[0]} reaches it" if own else "no row reaches it"
    else:
        short = f"{first.name} after {brief(first.images / 1000)} thousand images"
        short += f", {_times(first.factor)} fewer" if first.factor else ""
    points = []
    for one in found:
        at = f"{brief(one.images / 1000)} thousand images"
        said = "not within its budget" if math.isinf(one.images) else f"after {at}"
        said += f" ({one.runs} runs)"
        said += f", {_times(one.factor)} fewer than the reference" if one.factor else ""
        points.append((one.name, said + (", the reference" if one.is_reference else "")))
    how = "surely below it" if sure else "first snapshot below it, so perhaps too early"
    says = f"Median over runs until {what} is reached; {how}."
    return [Sentence("How soon?", short, says, points=tuple(points))]


def _times(factor: str) -> str:
    more = "more than " if factor.startswith(">") else ""
    return f"{more}{float(factor.lstrip('>')):.3g} times"


def _findings(findings: Sequence[tuple[Claim, paper_claims.Finding]]) -> list[Sentence]:
    if not findings:
        return []
    words = [finding.verdict for _, finding in findings]
    counts = {word: words.count(word) for word in checks.WORDS if word in words}
    leans = [f.leans for _, f in findings if f.verdict == "undecided" and f.leans is not None]
    ways = [f"{leans.count(way)} {paper_claims.LEANS[way]} so far"
            for way in (True, False) if way in leans]  # fmt: skip
    short = ", ".join(
        f"{n} {word}" + (f" ({', '.join(ways)})" if word == "undecided" and ways else "")
        for word, n in counts.items()
    )
    points = tuple(
        (word, f"{claim.says.rstrip('.')}{_measured(finding)}.")
        for word in counts
        for claim, finding in findings
        if finding.verdict == word
    )
    tone: Tone = "open"
    if "contradicted" in counts:
        tone = "no"
    elif set(counts) == {"supported"}:
        tone = "yes"
    return [Sentence("Do its findings hold?", short, "", tone, points)]


def _measured(finding: paper_claims.Finding) -> str:
    """How sure a finding is, and which way an undecided one points."""
    parts = [f"p = {finding.p:.2g}"] if finding.p is not None else []
    parts += [f"n = {finding.counted}"] if finding.n else []
    if finding.verdict == "undecided" and finding.leans is not None:
        parts.append(f"so far {paper_claims.LEANS[finding.leans]}")
    return f" ({', '.join(parts)})" if parts else ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
