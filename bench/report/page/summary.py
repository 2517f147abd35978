"""The answer of a grid in words: which row wins, by how much, how sure, and what the paper says.

Every sentence is put together from the records and says no more than they do: a winner that chance
may have chosen is told as such, and a question that nothing was measured for is left out.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from bench.analysis import feature_overlap, metric_agreement, paper_numbers
from bench.analysis.cells import Cell, Stat
from bench.analysis.checks import Finding
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
from bench.analysis.time_to_target import factor
from bench.analysis.verdicts import CLAIM_WORDS, LEANS
from bench.config import columns as vocabulary
from bench.config.spec import Claim
from bench.report.tables import brief
from bench.report.target_table import count_words, target_words

if TYPE_CHECKING:
    from bench.analysis.facts import Facts, Ranking

Tone = Literal["yes", "no", "open", "plain"]
YES: Tone = "yes"
NO: Tone = "no"
OPEN: Tone = "open"
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
    ranking = facts.ranking
    if ranking is None:
        return []
    if conditions := _conditions(facts, ranking):
        found = _first_at_each(facts, conditions)
        each = {name: _paper(facts, part) for name, part in conditions.items()}
        found += _merged({name: sentences[0] for name, sentences in each.items() if sentences})
    else:
        found = _against_axis(facts, ranking)  # where there is one, it is what the grid asks
        found += _first(facts, ranking)
        found += _paper(facts, ranking)
    if facts.grid.scale == "lab" and found[-1].asks == PAPER:
        only = "Only orders can agree here: lab distances are not the paper's."
        found[-1] = replace(found[-1], says=f"{found[-1].says} {only}".strip())
    return [*found, *_soon(facts), *_findings(facts.findings), *_agreement(facts)]


def _agreement(facts: Facts) -> list[Sentence]:
    """Answer whether the other metrics rank the rows alike."""
    if facts.agreement is None:
        return []
    says = metric_agreement.conclusion(facts.agreement, facts.grid.report.rank_by)
    short, tone = "not all metrics agree", OPEN
    if says.startswith("The conclusion does not"):
        short, tone = "all metrics agree", YES
    elif says.startswith("Whether"):
        short = "not known"
    return [Sentence("Do other metrics agree?", short, says, tone)]


def competitions(facts: Facts) -> list[Ranking]:
    """The orders whose first rows are winners: one, or one at each choice of axis values."""
    if facts.ranking is None:
        return []
    return list(_conditions(facts, facts.ranking).values()) or [facts.ranking]


def _conditions(facts: Facts, ranking: Ranking) -> dict[str, Ranking]:
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
        there = tuple(cell for cell in ranking.cells if at.get(cell.name) == choice)
        if there:
            found[choice] = replace(ranking, cells=there)
    return found if len(found) > 1 else {}


def _merged(sentences: Mapping[str, Sentence]) -> list[Sentence]:
    """The same question asked at each choice of axis values, as one; none where nothing was."""
    if not sentences:
        return []
    each = list(sentences.values())
    counts = Counter(one.short for one in each)
    short = "; ".join(f"{words} ({n} of {len(each)})" for words, n in counts.items())
    tone = each[0].tone if len({one.tone for one in each}) == 1 else OPEN
    if len({one.says for one in each}) == 1:
        return [Sentence(each[0].asks, short, each[0].says, tone)]
    points = tuple((name, one.says) for name, one in sentences.items())
    return [Sentence(each[0].asks, short, "", tone, points)]


def _first_at_each(facts: Facts, conditions: Mapping[str, Ranking]) -> list[Sentence]:
    """Name the first row at each choice of axis values, by how much, how surely."""
    each = {name: _first(facts, ranking) for name, ranking in conditions.items()}
    counts = Counter(ranking.name(ranking.first) for ranking in conditions.values())
    short = ", ".join(f"{name} ({n} of {len(each)})" for name, n in counts.items())
    if len(counts) == 1:
        short = f"{next(iter(counts))}, each of {len(each)} times"
    sure = {name: found[-1] for name, found in each.items() if len(found) > 1}
    if any(one.tone != YES for one in sure.values()):
        short += ", not settled"
    points = tuple((name, " ".join(one.says for one in found[:2])) for name, found in each.items())
    wins = Sentence("Which wins?", short, "", points=points)
    return [wins, *(_merged(sure) if len(sure) == len(each) else [])]


def _first(facts: Facts, ranking: Ranking) -> list[Sentence]:
    """Name the first row, by how much, how surely."""
    if len(ranking.cells) < 2:
        return [_winner(facts, ranking, settled=True)]
    sure = _sureness(facts, ranking)
    return [_winner(facts, ranking, sure.tone == YES), _margin(ranking), sure]


def _winner(facts: Facts, ranking: Ranking, settled: bool) -> Sentence:
    first, stat, name = ranking.first, ranking.stat(ranking.first), ranking.name(ranking.first)
    level = [ranking.name(cell) for cell in ranking.cells if ranking.stat(cell).mean == stat.mean]
    value = f"the {ranking.superlative} {ranking.header}: {brief(stat.mean)}"
    if len(level) > 1:
        short, says = f"{len(level)} rows are level", f"{_listed(level)} share {value}."
    else:
        short = name if settled else f"{name} leads, not settled"
        says = f"{name} has {value}{_spread(stat)}."
    rivals = [c for c in facts.cells if c.axes == first.axes or not ranking.one_condition]
    if len(ranking.cells) < len(rivals):
        says += f" {len(ranking.cells)} of {len(rivals)} rows have a result."
    if flag := feature_overlap.of_cell(first, ranking.metric).reason:
        says += f" Its number is flagged: {flag}."
    return Sentence("Which wins?", short, says, row=first.name)


def _spread(stat: Stat) -> str:
    if stat.interval is None:
        return " (one run, so nothing is known of its spread)"
    kind = "range" if stat.interval.kind == "range" else "95 % interval"
    ends = f"{brief(stat.interval.low)} to {brief(stat.interval.high)}"
    return f" (mean of {stat.n} runs, {kind} {ends})"


def _margin(ranking: Ranking) -> Sentence:
    first, second, last = ranking.first, ranking.cells[1], ranking.cells[-1]

    def named(cell: Cell) -> str:
        return f"{ranking.name(cell)} ({brief(ranking.stat(cell).mean)})"

    word = "below" if ranking.sign == 1 else "above"
    said = f"{_apart(ranking, second)} {word} the next, {named(second)}"
    if last is not second:
        said += f", and {_apart(ranking, last)} {word} the last, {named(last)}"
    gap = abs(ranking.stat(second).mean - ranking.stat(first).mean)
    short = f"{brief(gap)} {ranking.header} ahead of the next" if gap else "not at all"
    return Sentence("By how much?", short, f"{said}.")


def _apart(ranking: Ranking, other: Cell) -> str:
    a, b = ranking.stat(ranking.first).mean, ranking.stat(other).mean
    percent = 100 * abs(b - a) / b if b > 0 and a > 0 else None
    share = "" if percent is None else f" ({percent:.{0 if percent >= 1 else 1}f}%)"
    return f"{brief(abs(b - a))}{share}"


def _sureness(facts: Facts, ranking: Ranking) -> Sentence:
    """The winner against every other row; it was picked after looking, so all pairs count."""
    asks, first, others = "How sure?", ranking.first, ranking.cells[1:]
    values = ranking.sign * facts.replicates(ranking.metric, ranking.cells)
    n = len(values)
    if n == 0:
        return Sentence(asks, "not testable", "The rows have no seed in common.", OPEN)
    wins = (values.idxmin(axis="columns") == first.name).sum()
    # Where networks were pretrained more than once, a replicate is a seed with one of them.
    several = values.index.get_level_values("pretrain_seed").nunique() > 1
    unit = "replicate" if several else "seed"
    times = f"It is first in {wins} of {n} {unit}{'s' if n > 1 else ''}."
    if n == 1:
        says = "One seed shows one case: another seed may turn the order round."
        return Sentence(asks, "one seed: open", says, OPEN)
    if overlap := [ranking.name(cell) for cell in others if _overlap(ranking, cell)]:
        kind = "ranges" if ranking.stat(first).n < 5 else "intervals"
        times += f" The {kind} of {_listed(overlap)} overlap with its own."
    pairs = len(ranking.cells) * len(others) // 2
    test = "exact sign-flip test"
    if pairs > 1:
        test += f", Holm's correction over all {pairs} pairs of rows, as the winner was picked"
        test += " after looking"
    if smallest_p(n) * pairs > ALPHA:
        need = f"that takes {pairs_needed(pairs)} {unit}s."
        says = f"{times} {n} {unit}s can never settle it at 5 % ({test}): {need}"
        return Sentence(asks, f"open with {n} {unit}s", says, OPEN)
    # In the order of the pairs, which begins with those of the winner.
    p = holm(all_pairs_p(values.to_numpy().T))[: len(others)]
    # Over the common seeds, which may say otherwise than all runs.
    ahead = values.sub(values[first.name], axis="index").mean() > 0
    beaten = [q <= ALPHA and ahead[cell.name] for q, cell in zip(p, others, strict=True)]
    if all(beaten):
        says = f"{times} It beats every other row (p ≤ {max(p):.2g}; n = {n}; {test})."
        return Sentence(asks, f"sure at 5 %, n = {n}", says, YES)
    rest = [ranking.name(cell) for cell, sure in zip(others, beaten, strict=True) if not sure]
    says = f"{times} It surely beats {sum(beaten)} of {len(others)} other rows at 5 %, and not "
    says += f"{_listed(rest)} (n = {n}; {test})."
    return Sentence(asks, f"beats {sum(beaten)} of {len(others)} for sure", says, OPEN)


def _overlap(ranking: Ranking, other: Cell) -> bool:
    a, b = ranking.stat(ranking.first).interval, ranking.stat(other).interval
    return bool(a and b and a.low <= b.high and b.low <= a.high)


def _against_axis(facts: Facts, ranking: Ranking) -> list[Sentence]:
    """Answer whether rows are better than at the axis value that they are compared with."""
    axis, _, value = (facts.grid.report.compare_to or "").partition("=")
    if axis not in facts.grid.axes:
        return []
    name = f"{axis.split('.')[-1]}={value}"
    bases = {cell: facts.baselines[cell].stat(ranking.metric) for cell in facts.baselines}
    differences = {
        cell.name: ranking.sign * (ranking.stat(cell).mean - base.mean)
        for cell in ranking.cells
        if (base := bases.get(cell.name))
    }
    if not differences:
        return []
    d = list(differences.values())
    n, mean, p = len(d), statistics.fmean(d), sign_flip_p(d)
    better = sum(difference < 0 for difference in d)
    worse = [cell.row for cell in ranking.cells if differences.get(cell.name, 0) > 0]
    says = f"{ranking.header} is better than at {name} in {better} of {n} rows"
    says += f", worse in {_listed(worse)}" if worse else ""
    says += f" (mean difference {ranking.sign * mean:+.3g}"
    says += f"; exact sign-flip test over rows, p = {p:.2g})." if n > 1 else ")."
    sure = smallest_p(n) <= ALPHA and p <= ALPHA
    tone = OPEN if not sure else YES if mean < 0 else NO
    return [Sentence(f"Better than {name}?", f"in {better} of {n} rows", says, tone)]


def _paper(facts: Facts, ranking: Ranking) -> list[Sentence]:
    """Answer whether the paper has the same first row, and the same order."""
    both = facts.beside_paper
    both = both[both.index.isin([cell.name for cell in ranking.cells])]
    if facts.grid.report.paper is None or len(both) < 2:
        return []
    key = paper_numbers.main_column(facts.grid.report.paper)
    what = vocabulary.PAPER[key].header.removeprefix("paper ")
    best, n = both["paper"].idxmin(), len(both)
    place = both.index.tolist().index(best) + 1
    called = next(ranking.name(cell) for cell in ranking.cells if cell.name == best)
    says = f"The paper's first by {what} is {called} ({both['paper'].min():g})"
    says += ", as here." if place == 1 else f", here in place {place} of {n}."
    short, tone = ("the same first" if place == 1 else "another first"), OPEN
    ours, theirs = (ranking.sign * both["ours"]).tolist(), both["paper"].tolist()
    rho = spearman(ours, theirs)
    if n > 3 and rho is not None:
        p = spearman_p(ours, theirs)
        if p <= ALPHA:
            way, tone = ("agrees", YES) if rho > 0 else ("is the reverse", NO)
            short += f", order {way}"
        else:
            way = "agrees no better than chance may" if rho > 0 else "does not agree"
            short += ", order unsure" if rho > 0 else ", order disagrees"
        says += f" The order of the {n} rows {way}: Spearman's rho {rho:.2f}"
        says += f" (permutation p = {p:.2g})."
    if doubtful := both["confidence"].str.startswith("memory").sum():
        says += f" {doubtful} of the paper's numbers are from memory, not confirmed."
    return [Sentence(PAPER, short, says, tone)]


def _soon(facts: Facts) -> list[Sentence]:
    """Answer how soon the target was reached: the paper's own measure of convergence."""
    found = facts.times
    if found is None:
        return []
    times = {name: found.times(name) for name in found.lines}
    order = sorted(times, key=lambda name: times[name].images.value)
    others = [name for name in order if name not in found.references]
    if not others:
        return []
    points, fewer = [], {}
    for name in order:
        base = found.reference.get(name)
        more = factor(times[name], times[base]).text if base in times else ""
        fewer[name] = f", {_times(more)} fewer" if more else ""
        images = times[name].images.value
        says = "not within its budget" if math.isinf(images) else f"after {_thousand(images)}"
        says += f" ({count_words(times[name])} runs)"
        says += f"{fewer[name]} than the reference" if more else ""
        points.append((name, says + (", the reference" if name in found.references else "")))
    first, images = others[0], times[others[0]].images.value
    if math.isinf(images):
        own = [n for n in order if n in found.references and not math.isinf(times[n].images.value)]
        short = f"no row but {own[0]} reaches it" if own else "no row reaches it"
    else:
        short = f"{first} after {_thousand(images)}{fewer[first]}"
    what = f"{vocabulary.column(found.metric).header} of {target_words(found.target)}"
    if found.target.row is not None:
        values = {round(found.lines[name].target, 9) for name in others}
        what = target_words(found.target)
        what += f" ({values.pop():.3g})" if len(values) == 1 else ""
    how = "surely below it" if found.sure else "first snapshot below it, so perhaps too early"
    says = f"Median over runs until {what} is reached; {how}."
    return [Sentence("How soon?", short, says, points=tuple(points))]


def _thousand(images: float) -> str:
    return f"{brief(images / 1000)} thousand images"


def _times(factor: str) -> str:
    more = "more than " if factor.startswith(">") else ""
    return f"{more}{float(factor.lstrip('>')):.3g} times"


def _findings(findings: Sequence[tuple[Claim, Finding]]) -> list[Sentence]:
    if not findings:
        return []
    seen = Counter(finding.verdict for _, finding in findings)
    counts = {word: seen[word] for word in CLAIM_WORDS if word in seen}
    leans = Counter(finding.leans for _, finding in findings if finding.verdict == "undecided")
    ways = [f"{leans[way]} {LEANS[way]} so far" for way in (True, False) if leans[way]]
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
    tone = NO if "contradicted" in counts else YES if {*counts} == {"supported"} else OPEN
    return [Sentence("Do its findings hold?", short, "", tone, points)]


def _measured(finding: Finding) -> str:
    """Return p, n and, of an undecided finding, the way that it leans."""
    parts = [f"p = {finding.p:.2g}"] if finding.p is not None else []
    parts += [f"n = {finding.counted}"] if finding.n else []
    if finding.verdict == "undecided" and finding.leans is not None:
        parts.append(f"so far {LEANS[finding.leans]}")
    return f" ({', '.join(parts)})" if parts else ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
