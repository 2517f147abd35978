"""The tables of the page: the main one with every run as a dot, and the others as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.analysis import paper_numbers, reproduction
from bench.analysis.cells import Stat
from bench.analysis.table import Entry, Table
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.report import tables
from bench.report.lines import wide
from bench.report.page import provenance
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

NETWORK = ("params_m", "accuracy", "generator_m", "discriminator_m")  # of the networks, not images


@dataclass(frozen=True)
class Head:
    """A column as the page shows it."""

    key: str
    text: str
    unit: str = ""
    numeric: bool = True
    group: str = ""  # main, paper, metric, network, machine: what can be hidden together
    hint: str = ""


@dataclass(frozen=True)
class Strip:
    """A row's runs on a scale that all rows share; 0 and 1 are its ends."""

    dots: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Field:
    """One place of a table."""

    text: str
    value: str = ""  # full precision: what is sorted by, and what `verify` reads
    marks: tuple[str, ...] = ()
    bold: bool = False
    flag: str = ""  # why the number is flagged
    opens: str = ""  # key of its evidence
    strip: Strip | None = None
    chip: str = ""  # tone of a verdict


@dataclass(frozen=True)
class Grille:
    """A table as the page shows it."""

    name: str
    heads: list[Head]
    rows: list[list[Field]]
    footnotes: dict[str, str] = field(default_factory=dict)  # mark -> text
    notes: tuple[str, ...] = ()
    caption: str = ""


def plain(table: Table) -> Grille:
    """Any of the report's tables, as it is."""
    heads = [Head(c.key, c.header, c.unit, not c.text) for c in table.columns]
    rows = []
    for row, texts in tables.formatted(table):
        rows.append(
            [
                Field(text, _full(e), tuple(m), e.bold, e.leakage)
                for (text, m), e in zip(texts, row.entries, strict=True)
            ]
        )
        if row.span:
            rows[-1][1] = Field(row.span)
    marks = {mark: text for text, mark in table.footnotes.items()}
    return Grille(table.file, heads, rows, marks, table.notes, table.caption)


def main_table(facts: Facts, table: Table) -> tuple[Grille, dict[str, Any]]:
    """The main table with every run as a dot, and the evidence behind each number.

    Returns:
        The table, and key -> evidence.
    """
    grid, cells, order = facts.grid, facts.cells, facts.ranking
    rank_by = order.metric if order else None
    by_key = {c.key: i for i, c in enumerate(table.columns)}
    ranking = rank_by if rank_by in by_key else None
    main_paper = paper_numbers.main_column(grid.report.paper) if grid.report.paper else ""
    first = ["label", *([ranking] if ranking else [])]
    papers = [c.key for c in table.columns if c.paper]
    papers.sort(key=lambda key: key != main_paper)
    tail = [k for k in ("verdict",) if k in by_key]
    others = [k for k in by_key if k not in {*first, *papers, *tail}]
    others.sort(key=lambda key: ("metric", "network", "machine").index(_group(key)))
    stats = [cell.stat(rank_by) if rank_by else None for cell in cells]
    spread = any(stat and stat.interval for stat in stats)
    lead = [*first, *(["=runs"] if ranking else []), *(["=span"] if ranking and spread else [])]
    lead += papers[:1]
    lead += ["=place"] if papers and ranking else []
    shown = [*lead, *tail, *others, *papers[1:]]

    dots, ends = _strips(stats)
    places = _places(facts)
    heads = []
    for key in shown:
        if key == "=runs":
            heads.append(Head(key, "every run", numeric=True, group="main"))
        elif key == "=span":
            kinds = {s.interval.kind for s in stats if s and s.interval}
            name = "95 % interval" if kinds == {"t"} else "range of runs"
            heads.append(Head(key, name, numeric=True, group="main"))
        elif key == "=place":
            heads.append(Head(key, "place", "ours / paper", True, "paper"))
        else:
            c = table.columns[by_key[key]]
            heads.append(Head(key, c.header, c.unit, not c.text, _group_of(c, key in lead)))
    marks = table.footnotes
    found: dict[str, Any] = {}
    rows = []
    for r, (cell, (row, texts)) in enumerate(zip(cells, tables.formatted(table), strict=True)):
        line_ = []
        for key in shown:
            if key == "=runs":
                line_.append(_runs_field(dots[r], stats[r]))
                continue
            if key == "=span":
                line_.append(_span_field(stats[r]))
                continue
            if key == "=place":
                line_.append(places.get(cell.name, Field(tables.MISSING)))
                continue
            i = by_key[key]
            (text, noted), entry = texts[i], row.entries[i]
            column = table.columns[i]
            opens = ""
            if entry.value is not None and key != "n":
                opens = f"{cell.name}/{key}"
                found[opens] = provenance.of_cell(grid, cell, column, entry, marks)
            chip = _tone(entry.text) if key == "verdict" else ""
            if row.span and not column.paper and key not in ("label", "verdict"):
                text = row.status if key == ranking else tables.MISSING
            line_.append(
                Field(text, _full(entry), tuple(noted), entry.bold, entry.leakage, opens,
                      chip=chip)
            )  # fmt: skip
        rows.append(line_)
    notes = {mark: text for text, mark in marks.items()}
    if ranking:
        heads[shown.index("=runs")] = Head("=runs", "every run", "", True, "main", ends)
    return Grille("table", heads, rows, notes, table.notes, table.caption), found


def _group(key: str) -> str:
    if key in (*NETWORK, "kimg", "n"):
        return "network"
    return "machine" if key in vocabulary.MEASURED else "metric"


def _group_of(column: Column, lead: bool) -> str:
    if column.key in ("label", "verdict"):
        return "main"
    if column.paper:
        return "paper"
    return "main" if lead else _group(column.key)


def _runs_field(strip: Strip | None, stat: Any) -> Field:
    if strip is None or stat is None:
        return Field(tables.MISSING)
    said = ", ".join(brief(p) for p in stat.points)
    return Field(said, f"{stat.mean:.8g}", strip=strip)


def _strips(stats: Sequence[Stat | None]) -> tuple[list[Strip | None], str]:
    """Every run of every row as a dot on one scale, and what its ends are."""
    values = [v for stat in stats if stat for v in stat.points] or [0.0, 1.0]
    log = math.log if wide(values) else float
    low, high = log(min(values)), log(max(values))

    def at(value: float) -> float:
        return round((log(value) - low) / (high - low), 3) if high > low else 0.5

    strips = [Strip(tuple(map(at, s.points)), at(s.mean)) if s else None for s in stats]
    kind = ", logarithmic" if log is math.log else ""
    return strips, f"{brief(min(values))} to {brief(max(values))}{kind}"


def _span_field(stat: Any) -> Field:
    if stat is None or stat.interval is None:
        return Field(tables.MISSING)
    low, high = stat.interval.low, stat.interval.high
    return Field(f"{brief(low)} – {brief(high)}", f"{low:.8g}")


def _places(facts: Facts) -> dict[str, Field]:
    """Place in our order and in the paper's, over the rows that both have."""
    return {
        str(name): Field(f"{ours} / {theirs}", str(ours))
        for name, ours, theirs in facts.beside_paper[["place", "paper_place"]].itertuples()
    }


def _tone(verdict: str) -> str:
    tones = {"reproduced": "yes", "not reproduced": "no", "within seed noise": "open",
             "too few seeds": "open"}  # fmt: skip
    return tones.get(verdict, "plain" if verdict else "")


def _full(entry: Entry) -> str:
    return "" if entry.value is None else f"{entry.value:.8g}"


def verdict_counts(judged: Mapping[str, Sequence[reproduction.Judged]]) -> list[tuple[str, int]]:
    words = [one.verdict.word for found in judged.values() for one in found]
    return [(word, words.count(word)) for word in dict.fromkeys(words)]
