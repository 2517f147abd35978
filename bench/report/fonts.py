"""Fonts for the labels of figures: DejaVu Sans, and what this machine has for other scripts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager

OWN = "DejaVu Sans"  # comes with matplotlib: what it holds looks the same everywhere


def families(texts: Iterable[str]) -> list[str]:
    """Names of the fonts that together hold every sign of `texts`, as far as any here does."""
    found, missing = [OWN], set(map(ord, "".join(texts))) - _signs(OWN)
    known = {font.name for font in font_manager.fontManager.ttflist} if missing else set()
    for name in sorted(known):
        if missing & _signs(name) and not name.startswith("Last Resort"):  # which draws boxes
            found.append(name)
            missing -= _signs(name)
    return found


def legible(text: str, fonts: Iterable[str] = (OWN,)) -> str:
    r"""The text with the signs that none of `fonts` holds as code points, such as \u65e5."""
    held = set().union(*map(_signs, fonts))
    signs = (c if ord(c) in held else c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(signs)


def path_of(name: str) -> str:
    """The file of a font, upright and of normal weight where there is one."""
    files = [font for font in font_manager.fontManager.ttflist if font.name == name]
    return min((f.style != "normal", str(f.weight) != "400", str(f.fname)) for f in files)[2]


@cache
def _signs(name: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path_of(name)).get_charmap())
    except (OSError, RuntimeError):  # a font in a form that cannot be read
        return frozenset()
