"""How fast the parts are: what pytest-benchmark measured, as a table.

    OMP_NUM_THREADS=1 pytest tests/benchmarks --benchmark-only --benchmark-json=FILE
    python -m bench.report.parts FILE...

keeps the figures of one or more such runs in results/reference/throughput/parts.json, from where
the report of a grid with `report.parts` takes them, and writes the table between the marks in
docs/performance.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.table import Entry, Row, Table
from bench.config.columns import Column
from bench.config.paths import ROOT
from bench.report.tables import to_markdown
from projgan.errors import DataError, reason
from projgan.files import write_between, write_json_atomic

PAGE = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "results" / "reference" / "throughput" / "parts.json"
BEGIN, END = "<!-- measured: python -m bench.report.parts -->", "<!-- end of the parts -->"
CLOCKS = {"process_time": "processor time", "perf_counter": "wall clock"}


def condensed(paths: Sequence[Path]) -> dict[str, Any]:
    """The figures of files of pytest-benchmark's: medians and quartiles, without single rounds.

    Raises:
        DataError: one is none, or not of tests/benchmarks, or of another machine or clock.
    """
    every = [_condensed(path) for path in paths]
    first = every[0]
    for path, other in zip(paths, every, strict=True):
        for name in ("environment", "timer"):
            if other[name] != first[name]:
                raise DataError(f"{path}: another {name} than in {paths[0]}; measure both alike")
    return first | {
        "date": max(one["date"] for one in every),
        "load": max(one["load"] for one in every),
        "parts": [part for one in every for part in one["parts"]],
    }


def _condensed(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        machine = dict(found["machine_info"]["environment"])
        for name in ("commit", "dirty"):  # of one file's; the date says it for all
            machine.pop(name, None)
        parts = [
            {
                "name": one["name"].removeprefix("test_"),
                "median": one["stats"]["median"],
                "q1": one["stats"]["q1"],
                "q3": one["stats"]["q3"],
                "rounds": one["stats"]["rounds"],
                "extra": one["extra_info"],
            }
            for one in found["benchmarks"]
        ]
        (timer,) = {one["options"]["timer"] for one in found["benchmarks"]}
        return {
            "date": found["datetime"][:10],
            "environment": machine,
            "load": found["machine_info"]["load"],
            "timer": timer,
            "parts": parts,
        }
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no figures of the parts ({type(error).__name__}: {error}); pytest "
            "tests/benchmarks --benchmark-only --benchmark-json=FILE writes them"
        ) from None


def read(path: Path = FIGURES) -> dict[str, Any]:
    """Kept figures.

    Raises:
        DataError: there are none, or they are damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        table(found)
        return found
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged ({reason(error)}); python -m bench.report.parts writes it"
        ) from None


def table(figures: Mapping[str, Any]) -> Table:
    """One line for each part."""
    env = figures["environment"]
    clock = CLOCKS.get(figures["timer"], figures["timer"])
    threads = f"{env['threads']} thread{'' if env['threads'] == 1 else 's'}"
    return Table(
        name="parts",
        file="parts",
        caption=(
            f"Speed of the parts, measured {figures['date']} on {env['cpu']}, {threads}, device "
            f"{env['device']}, torch {env['torch']}, Python {env['python']}: median of the rounds "
            f"by {clock}. The machine's load was {figures['load']:.1f}."
        ),
        columns=(
            Column("part", "part", text=True),
            Column("median", "median", "ms", decimals=2),
            Column("q1", "quartiles from", "ms", decimals=2),
            Column("q3", "to", "ms", decimals=2),
            Column("rounds", "rounds", decimals=0),
            Column("each", "of which", text=True),
        ),
        rows=tuple(_row(part) for part in figures["parts"]),
    )


def _row(part: Mapping[str, Any]) -> Row:
    times = (Entry(1000 * part[name]) for name in ("median", "q1", "q3"))
    name, _, variant = part["name"].partition("[")
    words = name.replace("_", " ") + (f", {variant.removesuffix(']')}" if variant else "")
    more = "; ".join(_said(key, value, part["median"]) for key, value in part["extra"].items())
    return Row((Entry(text=words), *times, Entry(float(part["rounds"])), Entry(text=more)))


def _said(key: str, value: float | Sequence[float], seconds: float) -> str:
    """What a benchmark tells of a round: how many of what it did, or how it compares."""
    if isinstance(value, int):
        return f"{value:,} {key}, {value / seconds:,.0f}/s"
    numbers = [value] if isinstance(value, float) else value
    return f"{' to '.join(f'{number:.2f}' for number in numbers)} {key.replace('_', ' ')}"


def page(figures: Mapping[str, Any]) -> str:
    """The measured part of docs/performance.md."""
    return to_markdown(table(figures))


def main(argv: Sequence[str] | None = None) -> int:
    """Keeps the figures of files and writes the page; the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        sys.stderr.write("python -m bench.report.parts FILE...: give files of pytest-benchmark's\n")
        return 2
    try:
        figures = condensed([Path(name) for name in given])
        text = page(figures)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    write_json_atomic(FIGURES, figures)
    write_between(PAGE, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
