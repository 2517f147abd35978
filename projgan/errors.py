"""Errors that a user can mend: one line that names the thing and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one clear line."""


class ConfigError(UserError):
    """A configuration that contradicts itself or cannot be built."""


class DataError(UserError):
    """Images, caches or weights on disk that are missing, unreadable or damaged."""


def reason(error: BaseException) -> str:
    """One line about an error for the user, without the objects in memory that it names."""
    lines = re.sub(r"\s*<[^<>]* at 0x[0-9a-f]+>", "", str(error)).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The one-line message for an unknown name: the nearest known one first, then all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}"
