"""Text for a terminal: what it cannot show becomes plain letters, columns line up."""

from __future__ import annotations

import codecs
import io
import logging
import sys
import unicodedata
import warnings
from collections.abc import Sequence

# What stands for a sign where the terminal's encoding does not have it.
PLAIN = {
    "–": "-", "—": "-", "─": "-", "±": "+-", "×": "x", "·": ".", "…": "...", "→": "->", "≤": "<=",
    "≥": ">=", "█": "#", "τ": "tau", "ρ": "rho", "⚑": "!", "ß": "ss", "’": "'", "✕": "x",
}  # fmt: skip


def prepare() -> None:
    """Make the output of this process safe: no sign raises, no library speaks to the user.

    Python's warnings and the log lines of libraries are for developers; a run's own log file keeps
    them (`bench.run.log`). `python -W` and PYTHONWARNINGS show them again.
    """
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
        logging.getLogger().addHandler(logging.NullHandler())  # else they go to stderr


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines whose columns begin below each other."""
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(padded, line, widths)).rstrip() for line in lines]


def padded(text: str, columns: int, right: bool = False) -> str:
    """The text and as many blanks as fill `columns` of a terminal; at its left = `right`."""
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks


def width(text: str) -> int:
    """Columns that a text takes on a terminal: two for each Chinese sign, none for an accent."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(bool(unicodedata.combining(sign)) for sign in text)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks (an error handler of `codecs`)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = []
    for sign in error.object[error.start : error.end]:
        kind, *parts = unicodedata.decomposition(sign).split() or [""]
        base = parts[0] if kind.startswith("<") else kind
        letter = chr(int(base, 16)) if base else ""
        if sign in PLAIN:
            found.append(PLAIN[sign])
        elif kind == "<super>" and letter.isascii():
            found.append(f"({letter})")  # a footnote's mark
        else:
            found.append(letter if letter.isascii() else "")
        if not found[-1]:
            found[-1] = sign.encode("ascii", "backslashreplace").decode()
    return "".join(found), error.end
