"""The tables of the page: the main one with every run as a dot, and the others as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.analysis import paper_numbers
from bench.analysis.cells import Stat
from bench.analysis.table import Entry, Table
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.report import tables
from bench.report.lines import wide
from bench.report.tables import brief

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

PageColumn = tuple["Head", list["Field"]]  # a head, and a field for each row
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
    chip: bool = False  # a verdict, on a ground of its tone


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it."""

    name: str
    heads: list[Head]
    rows: list[list[Field]]
    footnotes: dict[str, str] = field(default_factory=dict)  # mark -> text
    notes: tuple[str, ...] = ()
    caption: str = ""

    @classmethod
    def of(cls, table: Table, heads: list[Head], rows: list[list[Field]]) -> PageTable:
        """Heads and rows with what stands around a table."""
        marks = {mark: text for text, mark in table.footnotes.items()}
        return cls(table.file, heads, rows, marks, table.notes, table.caption)


def plain(table: Table) -> PageTable:
    """Any of the report's tables, as it is."""
    heads = [Head(c.key, c.header, c.unit, not c.text) for c in table.columns]
    rows = []
    for row, texts in tables.formatted(table):
        fields = [
            Field(text, _full(entry), tuple(marks), entry.bold, entry.leakage)
            for (text, marks), entry in zip(texts, row.entries, strict=True)
        ]
        if row.span:
            fields[1] = Field(row.span)
        rows.append(fields)
    return PageTable.of(table, heads, rows)


def main_table(facts: Facts, table: Table) -> PageTable:
    """The table of a grid, with every run as a dot and the places in both orders."""
    ranking = facts.ranking
    stats = [cell.stat(ranking.metric) if ranking else None for cell in facts.cells]
    body = tables.formatted(table)
    columns = {c.key: _column(facts, c, i, body) for i, c in enumerate(table.columns)}
    papers = [c.key for c in table.columns if c.paper]
    if facts.grid.report.paper:  # its main number first
        main = paper_numbers.main_column(facts.grid.report.paper)
        papers.sort(key=lambda key: key != main)
    lead, places = ["label"], []
    if ranking and ranking.metric in columns:
        columns |= {"=runs": _runs(stats), "=span": _intervals(stats), "=place": _places(facts)}
        lead += [ranking.metric, "=runs"]
        lead += ["=span"] if any(stat and stat.interval for stat in stats) else []
        places = ["=place"] if papers else []
    verdict = ["verdict"] if "verdict" in columns else []
    first = [*lead, *papers[:1], *places, *verdict]
    others = [c.key for c in table.columns if c.key not in {*first, *papers}]
    others.sort(key=lambda key: ("metric", "network", "machine").index(_group(key)))
    chosen = {key: columns[key] for key in [*first, *others, *papers[1:]]}
    heads = [
        replace(head, group="main") if key in {*lead, *verdict} else head
        for key, (head, _) in chosen.items()
    ]
    rows = [list(row) for row in zip(*(fields for _, fields in chosen.values()), strict=True)]
    return PageTable.of(table, heads, rows)


def _column(facts: Facts, column: Column, i: int, body: Sequence[tables.Formatted]) -> PageColumn:
    """Column `i` of the main table; a number opens its evidence."""
    measured = not column.paper and column.key not in ("label", "verdict")
    without = tables.MISSING
    if facts.ranking and column.key == facts.ranking.metric:
        without = ""  # the status of the row
    fields = []
    for cell, (row, texts) in zip(facts.cells, body, strict=True):
        (text, marks), entry = texts[i], row.entries[i]
        if row.span and measured:
            text = without or row.status
        opens = f"{cell.name}/{column.key}" if entry.value is not None and column.key != "n" else ""
        chip = bool(column.key == "verdict" and entry.text)
        found = Field(text, _full(entry), tuple(marks), entry.bold, entry.leakage, opens, chip=chip)
        fields.append(found)
    group = "paper" if column.paper else _group(column.key)
    return Head(column.key, column.header, column.unit, not column.text, group), fields


def _group(key: str) -> str:
    if key in (*NETWORK, "kimg", "n"):
        return "network"
    return "machine" if key in vocabulary.MEASURED else "metric"


def _runs(stats: Sequence[Stat | None]) -> PageColumn:
    """Every run of every row as a dot on one scale, whose ends the head names."""
    values = [v for stat in stats if stat for v in stat.points]
    log = math.log if wide(values) else float
    low, high = log(min(values)), log(max(values))

    def at(value: float) -> float:
        return round((log(value) - low) / (high - low), 3) if high > low else 0.5

    def field_of(stat: Stat) -> Field:
        strip = Strip(tuple(map(at, stat.points)), at(stat.mean))
        return Field(", ".join(map(brief, stat.points)), f"{stat.mean:.8g}", strip=strip)

    kind = ", logarithmic" if log is math.log else ""
    ends = f"{brief(min(values))} to {brief(max(values))}{kind}"
    fields = [field_of(stat) if stat else Field(tables.MISSING) for stat in stats]
    return Head("=runs", "every run", hint=ends), fields


def _intervals(stats: Sequence[Stat | None]) -> PageColumn:
    """The interval of each row's mean."""
    found = [stat.interval if stat else None for stat in stats]
    name = "95 % interval" if {i.kind for i in found if i} == {"t"} else "range of runs"
    fields = [
        Field(f"{brief(i.low)} – {brief(i.high)}", f"{i.low:.8g}") if i else Field(tables.MISSING)
        for i in found
    ]
    return Head("=span", name), fields


def _places(facts: Facts) -> PageColumn:
    """The place in our order and in the paper's, over the rows that both have."""
    found = {
        name: Field(f"{ours} / {theirs}", str(ours))
        for name, ours, theirs in facts.beside_paper[["place", "paper_place"]].itertuples()
    }
    fields = [found.get(cell.name, Field(tables.MISSING)) for cell in facts.cells]
    return Head("=place", "place", "ours / paper", group="paper"), fields


def _full(entry: Entry) -> str:
    return "" if entry.value is None else f"{entry.value:.8g}"
