"""One neutral table, written as Markdown, CSV, LaTeX and for the terminal."""

from __future__ import annotations

import itertools
import math
import re
import statistics
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.stats import mean_interval
from bench.analysis.table import MARKS, Entry, Row, Table
from bench.config import terminal
from bench.config.columns import Column

MISSING = "–"
Formatted = tuple[Row, list[tuple[str, list[str]]]]  # a row, and text and marks of each entry
JOINT = " · "  # between a row's name and the values of its axes
SUPERSCRIPT = dict(zip(MARKS, "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True))


def to_markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: caption, table, footnotes, notes."""
    heads = [_escape_md(_head(c)) for c in table.columns]
    rules = [":---" if c.text else "---:" for c in table.columns]
    lines = [_escape_md(table.caption), "", _bar(heads), _bar(rules)]
    for row, texts in formatted(table):
        cells = [_escape_md(text) for text, _ in texts]
        both = zip(cells, row.entries, strict=True)
        cells = [f"**{text}**" if entry.bold else text for text, entry in both]
        cells = [c + _sup(marks) for c, (_, marks) in zip(cells, texts, strict=True)]
        start, width = _span(table, row)
        if width:
            cells[start : start + width] = [f"*{_escape_md(row.span)}*"] + [""] * (width - 1)
        lines.append(_bar(cells))
    lines += ["", *(f"{_sup([m])} {_escape_md(t)}  " for t, m in table.footnotes.items())]
    lines += ["", *(f"- {_escape_md(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """Full precision for programs: spreads, n, status, confidence, leakage in own columns."""
    found: dict[str, list[str]] = {}
    for i, column in enumerate(table.columns):
        found |= _csv_columns(column, [row.entries[i] for row in table.rows])
        if i == 0:
            found["status"] = [row.status for row in table.rows]
            found["reason"] = [row.reason for row in table.rows]
    parts = [pd.DataFrame(found), pd.DataFrame(table.extra)]  # which may have one name in common
    return pd.concat(parts, axis="columns").to_csv(index=False, lineterminator="\n")


def _csv_columns(column: Column, entries: Sequence[Entry]) -> dict[str, list[str]]:
    """A column and what its entries have besides their values."""
    key = column.key
    found = {key: [e.text if e.value is None else _full(e.value) for e in entries]}
    if not column.paper and not column.text and any(len(e.points) > 1 for e in entries):
        found[f"{key}_std"] = [_full(e.std) for e in entries]
        found[f"{key}_min"] = [_full(min(e.points, default=None)) for e in entries]
        found[f"{key}_max"] = [_full(max(e.points, default=None)) for e in entries]
        found[f"{key}_n"] = [str(len(e.points)) for e in entries]
        if column.spread:
            intervals = [mean_interval(e.points) for e in entries]
            found[f"{key}_low"] = [_full(i.low) if i else "" for i in intervals]
            found[f"{key}_high"] = [_full(i.high) if i else "" for i in intervals]
            found[f"{key}_points"] = [" ".join(map(_full, e.points)) for e in entries]
    if any(e.compared for e in entries):
        found[f"{key}_p_holm"] = [_full(e.p) for e in entries]
        found[f"{key}_compared"] = [e.compared for e in entries]
    if column.paper:
        found[f"{key}_confidence"] = [e.confidence for e in entries]
    if any(e.leakage for e in entries):
        found[f"{key}_leakage"] = [e.leakage for e in entries]
    return found


def brief(value: float) -> str:
    """Three digits and more where the value is thousands, never an exponent of ten for those."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


TEX_PAGE = 84  # signs that fit on a line of a page, about
TEX_LONG = 36  # signs from which a text is broken into lines
TEX_BROKEN = r">{\raggedright\arraybackslash}p{16em}"


def to_latex(table: Table) -> str:
    r"""A `table` environment; it needs `\usepackage{array,booktabs,graphicx,multirow}`.

    Rows that differ in the value of an axis alone have their name once, and the paper's columns a
    head in common. Long texts are broken into lines, and a table that is wider than the page is
    scaled down to it.
    """
    spans, body = _shared_names(table), formatted(table)
    widths = [
        max([len(c.header), *(len(texts[i][0]) for row, texts in body if not row.span)])
        for i, c in enumerate(table.columns)
    ]
    broken = [c.text and width > TEX_LONG for c, width in zip(table.columns, widths, strict=True)]
    broken[0] &= not spans  # else the name is apart from its setting
    kinds = [
        TEX_BROKEN if long else "l" if c.text else "r"
        for c, long in zip(table.columns, broken, strict=True)
    ]
    shown = sum(TEX_LONG / 2 if b else w for w, b in zip(widths, broken, strict=True))
    heads, units = [c.header for c in table.columns], [c.unit for c in table.columns]
    papers = [i for i, c in enumerate(table.columns) if c.paper]
    if len(papers) < 2 or papers != list(range(papers[0], papers[-1] + 1)):
        papers = []
    for i in papers:
        heads[i] = heads[i].removeprefix("paper ")
    if spans:
        kinds, heads[1:1], units[1:1] = ["l", *kinds], [""], [""]
        papers = [i + 1 for i in papers]
    return _latex_template().render(
        table=table, foreign=_other_scripts(table), wide=shown + 2 * len(widths) > TEX_PAGE,
        spec="".join(kinds), heads=heads, units=units, papers=papers,
        rows=[_latex_row(table, i, body[i], spans) for i in range(len(body))],
        line=lambda cells: " & ".join(cells).rstrip() + r" \\",
    )  # fmt: skip


def _latex_row(
    table: Table, i: int, line: Formatted, spans: Sequence[int]
) -> tuple[bool, list[str]]:
    """Return whether space goes before row `i`, as it begins a new name, and its cells."""
    row, texts = line
    cells = [
        (rf"\textbf{{{_escape_tex(text)}}}" if entry.bold else _escape_tex(text))
        + _tex_marks(marks)
        for (text, marks), entry in zip(texts, row.entries, strict=True)
    ]
    start, width = _span(table, row)
    if width:
        words = rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_escape_tex(row.span)}}}}}"
        cells[start : start + width] = [words]
    if not spans:
        return False, cells
    name, _, setting = texts[0][0].partition(JOINT)
    lead = rf"\multirow[t]{{{spans[i]}}}{{*}}{{{_escape_tex(name)}}}" if spans[i] else ""
    return bool(spans[i]), [lead, _escape_tex(setting) + _tex_marks(texts[0][1]), *cells[1:]]


@cache
def _latex_template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
        block_start_string="<%", block_end_string="%>", trim_blocks=True, lstrip_blocks=True,
        variable_start_string="<<", variable_end_string=">>", keep_trailing_newline=True,
        autoescape=False,  # the filter is what LaTeX needs
    )  # fmt: skip
    environment.filters["tex"] = _escape_tex
    return environment.get_template("table.tex.j2")


def _shared_names(table: Table) -> list[int]:
    """Of each row how many rows from it on have its name, 0 for those that follow the first.

    Empty = no two rows differ in their axes alone, or some row has none.
    """
    names = [row.entries[0].text.partition(JOINT) for row in table.rows]
    if not names or not all(joint for _, joint, _ in names):
        return []
    found: list[int] = []
    for _, group in itertools.groupby(names, key=lambda name: name[0]):
        alike = len(list(group))
        found += [alike, *[0] * (alike - 1)]
    return found if max(found) > 1 else []


def to_text(table: Table, width: int = 100) -> str:
    """The table for a terminal. Columns that do not fit in `width` are left out by name.

    A row without a result has its status in the table and the reason under it.
    """
    body = formatted(table)
    columns = _text_columns(table, body)
    sizes = [max(map(terminal.width, column)) for column in columns]
    shown, gap = _fitting(table.columns, sizes, width)
    padded = [
        [terminal.padded(text, sizes[i], right=not table.columns[i].text) for text in columns[i]]
        for i in shown
    ]
    lines = [(" " * gap).join(line).rstrip() for line in zip(*padded, strict=True)]
    tall = len(lines) - len(body)  # of the head
    rule = "─" * (sum(sizes[i] for i in shown) + gap * (len(shown) - 1))
    under = [f"{row.entries[0].text}: {row.span}" for row in table.rows if row.span]
    used = {note for row in table.rows for i in shown for note in row.entries[i].notes}
    under += [f"{_sup([mark])} {text}" for text, mark in table.footnotes.items() if text in used]
    if hidden := [c.header for i, c in enumerate(table.columns) if i not in shown]:
        under.append(f"Left out to fit {width} columns: {', '.join(hidden)} (see {table.file}.md)")
    above = textwrap.wrap(table.caption, width)
    notes = [part for note in table.notes for part in textwrap.wrap(note, width)]
    parts = [*above, "", *lines[:tall], rule, *lines[tall:], rule, *under, *notes]
    return "\n".join(parts) + "\n"


def _text_columns(table: Table, body: Sequence[Formatted]) -> list[list[str]]:
    """The texts of each column from top to bottom; the words of a head are below each other."""
    heads = [[part for part in (*c.header.split(" "), c.unit) if part] for c in table.columns]
    tall = max(map(len, heads))
    columns = []
    for i, head in enumerate(heads):
        marks = [_sup(texts[i][1]) for _, texts in body]
        room = max(map(len, marks), default=0)
        texts = [line[i][0] + mark.ljust(room) for (_, line), mark in zip(body, marks, strict=True)]
        for r, row in enumerate(table.rows):
            start, count = _span(table, row)
            if start <= i < start + count:
                texts[r] = row.status if i == start else ""
        columns.append([""] * (tall - len(head)) + head + texts)
    return columns


def decimals(values: Iterable[float], digits: int = 3) -> int:
    """Decimals that give the median of `values` `digits` significant digits, 0 to 6."""
    sizes = [abs(v) for v in values if v != 0]
    if not sizes:
        return digits - 1
    return min(max(digits - 1 - math.floor(math.log10(statistics.median(sizes))), 0), 6)


def formatted(table: Table) -> list[Formatted]:
    """Each row's texts with their footnote marks, formatted column by column."""
    places = [
        decimals(r.entries[i].value or 0 for r in table.rows if r.entries[i].value is not None)
        if c.decimals is None
        else c.decimals
        for i, c in enumerate(table.columns)
    ]
    marks = table.footnotes
    body = []
    for row in table.rows:
        texts = []
        for column, entry, d in zip(table.columns, row.entries, places, strict=True):
            text = entry.text or MISSING
            if entry.value is not None:
                text = f"{entry.value:.{d}f}"
                if column.spread and entry.std is not None:
                    text += f" ± {entry.std:.{d}f}"
            texts.append((text, [marks[note] for note in entry.notes]))
        body.append((row, texts))
    return body


def _span(table: Table, row: Row) -> tuple[int, int]:
    """Start and number of the measured columns that a row's `span` replaces; (1, 0) = none."""
    if not row.span:
        return 1, 0
    papers = [i for i, c in enumerate(table.columns) if c.paper] or [len(table.columns)]
    return 1, papers[0] - 1


def _fitting(columns: Sequence[Column], sizes: Sequence[int], width: int) -> tuple[list[int], int]:
    """Choose the columns that fit, and the gap between them: minor columns go first."""

    def fits(shown: Sequence[int], gap: int) -> bool:
        return sum(sizes[i] + gap for i in shown) - gap <= width

    shown = list(range(len(columns)))
    # What goes first: minor columns, speed and size, metrics, the paper's; rightmost before left.
    order = sorted(shown[:0:-1], key=lambda i: _weight(columns[i]))
    while order and not fits(shown, 1):
        shown.remove(order.pop(0))
    return shown, 2 if fits(shown, 2) else 1


def _weight(column: Column) -> int:
    if column.minor:
        return 0
    return 3 if column.paper else 2 if column.spread else 1


def _sup(marks: Iterable[str]) -> str:
    return "".join(SUPERSCRIPT.get(mark, f"({mark})") for mark in marks)


def _head(column: Column) -> str:
    return f"{column.header} ({column.unit})" if column.unit else column.header


def _full(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == int(value) else f"{value:.8g}"


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape_md(text: str) -> str:
    text = re.sub(r"([\\|*_<>`\[\]~$])", r"\\\1", " ".join(text.splitlines()))
    text = re.sub(r"&(?=#?\w+;)|:(?=[\w+-]+:)", r"\\\g<0>", text)  # an entity, an emoji's name
    return re.sub(r"^(?=[#+=-]+(\s|$))|(?<=^\d)(?=[.)] )", r"\\", text)  # a heading, a list


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    '"': r"\char34{}", "|": r"\textbar{}", "`": r"\textasciigrave{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$",
    "→": r"$\rightarrow$", "–": "--", "…": r"\ldots{}", "é": r"\'e",
    "∞": r"$\infty$", "≤": r"$\le$", "≥": r"$\ge$", "−": "$-$",
}  # fmt: skip


def _escape_tex(text: str) -> str:
    signs = " ".join(text.splitlines())
    pairs = zip("\n" + signs, signs, strict=False)
    # Two of these would become one sign of another kind.
    found = "".join("{}" * (b == a and b in "-',") + _tex_sign(b) for a, b in pairs)
    # After the \\\\ of the line before, these two would be its argument.
    return f"{{{found[0]}}}{found[1:]}" if found[:1] in ("[", "*") else found


def _tex_sign(sign: str) -> str:
    if sign.isascii() or sign in TEX:
        return TEX.get(sign, sign)
    kind, *parts = unicodedata.decomposition(sign).split() or [""]
    if kind in ("<super>", "<sub>"):
        written = "".join(_tex_sign(chr(int(part, 16))) for part in parts)
        return rf"\text{kind[1:-1]}script{{{written}}}"
    greek = re.fullmatch(r"GREEK SMALL LETTER ([A-Z]+)", unicodedata.name(sign, ""))
    return rf"$\{greek[1].lower()}$" if greek and greek[1] != "OMICRON" else sign


def _other_scripts(table: Table) -> str:
    """The letters and pictures in the names of rows that pdfLaTeX has not."""
    names = "".join(row.entries[0].text for row in table.rows)
    return "".join(
        sign
        for sign in dict.fromkeys(names)
        if ord(sign) > 0x17F and _tex_sign(sign) == sign and unicodedata.category(sign)[0] in "LS"
    )


def _tex_marks(marks: Sequence[str]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""
