"""One neutral table, written as Markdown, CSV, LaTeX and for the terminal."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.analysis.stats import mean_interval
from bench.analysis.table import MARKS, Row, Table
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
    spread = [
        not c.paper and not c.text and any(len(r.entries[i].points) > 1 for r in table.rows)
        for i, c in enumerate(table.columns)
    ]
    leaks = [any(r.entries[i].leakage for r in table.rows) for i in range(len(table.columns))]
    tested = {
        c.key for i, c in enumerate(table.columns) if any(r.entries[i].compared for r in table.rows)
    }
    heads: list[str] = []
    for c, wide, leaky in zip(table.columns, spread, leaks, strict=True):
        heads.append(c.key)
        heads += [f"{c.key}_{s}" for s in ("std", "min", "max", "n")] if wide else []
        heads += [f"{c.key}_{s}" for s in ("low", "high", "points")] if wide and c.spread else []
        heads += [f"{c.key}_{s}" for s in ("p_holm", "compared")] if c.key in tested else []
        heads += [f"{c.key}_confidence"] if c.paper else []
        heads += [f"{c.key}_leakage"] if leaky else []
        if c.key == table.columns[0].key:
            heads += ["status", "reason"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*heads, *table.extra])
    for r, row in enumerate(table.rows):
        cells: list[str] = []
        for c, wide, leaky, entry in zip(table.columns, spread, leaks, row.entries, strict=True):
            cells.append(entry.text if entry.value is None else _full(entry.value))
            if wide:
                p = entry.points
                cells += ["" if entry.std is None else _full(entry.std)]
                cells += [_full(min(p)), _full(max(p))] if p else ["", ""]
                cells.append(str(len(p)))
                cells += [*_interval(p), " ".join(map(_full, p))] if c.spread else []
            if c.key in tested:
                cells += ["" if entry.p is None else _full(entry.p), entry.compared]
            cells += [entry.confidence] if c.paper else []
            cells += [entry.leakage] if leaky else []
            if c.key == table.columns[0].key:
                cells += [row.status, row.reason]
        writer.writerow([*cells, *(values[r] for values in table.extra.values())])
    return out.getvalue()


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
    rows = []
    for r, (row, texts) in enumerate(body):
        cells = [
            (rf"\textbf{{{_escape_tex(text)}}}" if entry.bold else _escape_tex(text))
            + _tex_marks(marks)
            for (text, marks), entry in zip(texts, row.entries, strict=True)
        ]
        start, width = _span(table, row)
        if width:
            words = rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_escape_tex(row.span)}}}}}"
            cells[start : start + width] = [words]
        if spans:
            name, _, setting = texts[0][0].partition(JOINT)
            lead = rf"\multirow[t]{{{spans[r]}}}{{*}}{{{_escape_tex(name)}}}" if spans[r] else ""
            cells[:1] = [lead, _escape_tex(setting) + _tex_marks(texts[0][1])]
        rows.append((spans and spans[r], cells))
    return _latex_template().render(
        table=table, foreign=_other_scripts(table), wide=shown + 2 * len(widths) > TEX_PAGE,
        spec="".join(kinds), heads=heads, units=units, papers=papers, rows=rows,
        line=lambda cells: " & ".join(cells).rstrip() + r" \\",
    )  # fmt: skip


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
    found = [0] * len(names)
    for i, (name, _, _) in enumerate(names):
        if i == 0 or name != names[i - 1][0]:
            start = i
        found[start] += 1
    return found if max(found) > 1 else []


def to_text(table: Table, width: int = 100) -> str:
    """The table for a terminal. Columns that do not fit in `width` are left out by name.

    A row without a result has its status in the table and the reason under it.
    """
    body = formatted(table)
    heads = [[part for part in (*c.header.split(" "), c.unit) if part] for c in table.columns]
    tall = max(map(len, heads))
    texts = [[""] * (tall - len(head)) + head for head in heads]
    for i, column in enumerate(texts):
        marks = [_sup(row[i][1]) for _, row in body]
        room = max(map(len, marks), default=0)
        column += [row[i][0] + m.ljust(room) for (_, row), m in zip(body, marks, strict=True)]
    under = []
    for r, (row, _) in enumerate(body, start=tall):
        start, count = _span(table, row)
        for i in range(start, start + count):
            texts[i][r] = row.status if i == start else ""
        under += [f"{row.entries[0].text}: {row.span}"] if row.span else []
    sizes = [max(map(terminal.width, column)) for column in texts]
    shown, gap = _fitting(table.columns, sizes, width)
    lines = [
        (" " * gap)
        .join(
            terminal.padded(texts[i][r], sizes[i], right=not table.columns[i].text) for i in shown
        )
        .rstrip()
        for r in range(tall + len(body))
    ]
    rule = "─" * (sum(sizes[i] for i in shown) + gap * (len(shown) - 1))
    used = {note for row in table.rows for i in shown for note in row.entries[i].notes}
    under += [f"{_sup([m])} {t}" for t, m in table.footnotes.items() if t in used]
    hidden = [c.header for i, c in enumerate(table.columns) if i not in shown]
    if hidden:
        under.append(f"Left out to fit {width} columns: {', '.join(hidden)} (see {table.file}.md)")
    above = textwrap.wrap(table.caption, width)
    notes = [part for note in table.notes for part in textwrap.wrap(note, width)]
    parts = [*above, "", *lines[:tall], rule, *lines[tall:], rule, *under, *notes]
    return "\n".join(parts) + "\n"


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
    """Which columns fit, and the gap between them: narrow gaps first, then minor columns go."""

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


def _full(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.8g}"


def _interval(points: Sequence[float]) -> tuple[str, str]:
    found = mean_interval(points)
    return (_full(found.low), _full(found.high)) if found else ("", "")


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
