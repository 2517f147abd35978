"""A table as data: columns, rows, and what stands at each place, before it is written anywhere."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from bench.config.columns import Column

MARKS = "abcdefghijklmnoprstuvwxyz"  # q has no superscript letter


@dataclass(frozen=True)
class Entry:
    """One place of a table. Neither value nor text = missing."""

    value: float | None = None
    text: str = ""
    points: tuple[float, ...] = ()  # every measurement that `value` is the mean of
    notes: tuple[str, ...] = ()  # footnotes
    confidence: str = ""  # of a paper's number
    leakage: str = ""  # what the metric's network and the row's backbone share; also a footnote
    bold: bool = False  # significantly better than the baseline row
    compared: str = ""  # how it compares with that row
    p: float | None = None  # of the comparison, corrected

    @property
    def std(self) -> float | None:
        return _deviation(self.points) if len(self.points) > 1 else None


@cache
def _deviation(points: tuple[float, ...]) -> float:
    return statistics.stdev(points)


Value = Entry | float | str | None  # None = missing
Values = dict[str, Value]  # of a row, by column key


def _entry(value: Value) -> Entry:
    if isinstance(value, Entry):
        return value
    return Entry(text=value) if isinstance(value, str) else Entry(value)


@dataclass(frozen=True)
class Row:
    entries: tuple[Entry, ...]  # one per column
    status: str = "finished"
    reason: str = ""

    @classmethod
    def of(cls, values: Iterable[Value], status: str = "finished", reason: str = "") -> Row:
        """A row of values, texts and whole entries, in the order of its columns."""
        return cls(tuple(map(_entry, values)), status, reason)

    @classmethod
    def by_column(
        cls, columns: Sequence[Column], values: Values, status: str = "finished", reason: str = ""
    ) -> Row:
        """A row of which only some columns have a value, by the columns' keys."""
        return cls.of((values.get(column.key) for column in columns), status, reason)

    @property
    def span(self) -> str:
        """The words that replace the measured columns of a row without a result."""
        return "" if self.status == "finished" else f"{self.status}: {self.reason}"


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # general remarks under the table
    file: str = "table"  # what it is written as, without the ending
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)  # CSV-only columns

    @property
    def footnotes(self) -> dict[str, str]:
        """Footnote text -> its mark, in reading order."""
        texts = dict.fromkeys(t for row in self.rows for e in row.entries for t in e.notes)
        return {text: _mark(i) for i, text in enumerate(texts)}


def _mark(index: int) -> str:
    before, place = divmod(index, len(MARKS))
    return MARKS[place] + (str(before + 1) if before else "")
