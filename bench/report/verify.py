"""do=verify: every published number recomputed from the records, and every file by its hash."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.analysis.cells import Run
from bench.analysis.facts import Facts
from bench.config.metrics import record_key, version
from bench.config.spec import Grid
from bench.report import export, lines, manifest
from bench.report.content import tables_of, texts_of
from bench.report.page.build import page
from projgan.errors import reason
from projgan.files import sha256_of


@dataclass
class Checked:
    """Counts of what was compared, and what did not match, one line each."""

    cells: int = 0
    files: int = 0
    runs: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is right, and of another time


def verify(grid: Grid, folder: Path, runs_dir: Path) -> Checked:
    """Compares a published report with the records it was made from.

    Every cell of every table and of the page, every point of a curve's CSV and every number of the
    manifest is computed again; every file is held against its hash in the manifest.

    Args:
        grid: with the seeds, overrides and target of the report.
        folder: of the report.
        runs_dir: of the records.

    Raises:
        DataError: there is no manifest to start from.
    """
    found, published = Checked(), manifest.read(folder)
    _check_hashes(found, published, folder)
    # By the versions that the report records: those of today say nothing of what it is made of.
    versions: dict[str, int] = published.get("versions", {})
    facts = Facts.read(grid, runs_dir, versions)
    found.notes += [
        f"{metric}: published by version {then} of its computation, which is {today} today"
        for metric in _metrics(published)
        if (then := version(metric, versions)) != (today := version(metric))
    ]
    if gone := list(_without_record(published, facts.runs)):
        found.faults += gone
        return found
    found.runs = sum(run.status == "finished" for run in facts.runs)
    texts = _texts(facts)
    for name in sorted(published["files"]):
        path, read = folder / name, _READ.get(Path(name).suffix)
        changed = any(fault.startswith(name) for fault in found.faults)
        if read is None or not path.is_file() or (read is _lines and changed):
            continue
        if name not in texts:
            found.faults.append(f"{name}: the records give no such file")
            continue
        try:
            theirs = read(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, csv.Error, IndexError, ValueError) as error:
            found.faults.append(f"{name}: cannot be read ({reason(error)})")
            continue
        _compare(found, name, theirs, read(texts[name]))
    again = json.loads(json.dumps(manifest.make(grid, facts.cells, {})))
    _compare(found, "manifest.json", _manifest_values(published), _manifest_values(again))
    return found


def _check_hashes(found: Checked, published: Mapping[str, Any], folder: Path) -> None:
    for name, digest in sorted(published["files"].items()):
        found.files += 1
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            found.faults.append(f"{name}: manifest.json names a file that is not in {folder}")
        elif not path.is_file():
            found.faults.append(f"{name}: is in manifest.json and not in {folder}")
        elif sha256_of(path) != digest:
            found.faults.append(f"{name}: was changed after the report wrote it (SHA-256 differs)")


def _texts(facts: Facts) -> dict[str, str]:
    """Every file of text that a report of these records may hold."""
    tables = tables_of(facts)
    files = texts_of(tables) | {"records.csv": export.to_csv(facts.runs)}
    texts = {name: data.decode() for name, data in files.items()}
    return texts | lines.csv_files(facts.cells) | {"index.html": page(facts, tables)}


def _metrics(published: Mapping[str, Any]) -> list[str]:
    """The keys in a record of what a report measured; one without norms has copied ones."""
    runs = [run for cell in published["cells"] for run in cell["runs"]]
    found = {key for run in runs for key in run.get("metrics") or ()}
    return sorted(record_key(key, published.get("norms", "copied")) for key in found)


def _without_record(published: Mapping[str, Any], runs: Sequence[Run]) -> Iterator[str]:
    """Runs that the report rests on and that have no record here, or are none of the grid's."""
    here = {run.spec.run_id: run for run in runs}
    for cell in published["cells"]:
        for run in cell["runs"]:
            now, name = here.get(run["run_id"]), f"run {run['run_id']} of {cell['cell']}"
            if now is None:
                yield f"{name}: is none of the grid's; give the report's own seeds and settings"
            elif run.get("status") == "finished" and now.status != "finished":
                yield f"{name}: finished in the report, {now.status} here ({now.reason})"


Key = tuple[str, ...]  # place of a value in a file: first what names its row


def _compare(
    found: Checked, name: str, published: Mapping[Key, Any], again: Mapping[Key, Any]
) -> None:
    """Each value that a file holds against the same one of the recomputed file."""
    for key, value in published.items():
        found.cells += 1
        if (expected := again.get(key)) != value:
            shown = "nothing" if expected is None else repr(expected)
            found.faults.append(
                f"{name}: {', '.join(key)}: published {value!r}, recomputed {shown}"
            )
    rows = {key[0] for key in published}
    for key, value in again.items():
        if key[0] not in rows:  # a new column is no fault
            found.faults.append(f"{name}: {', '.join(key)}: recomputed {value!r}, not published")


def _csv_cells(text: str) -> dict[Key, str]:
    """`(row, column)` -> value; rows of one name are told apart by their numbers."""
    rows = list(csv.reader(io.StringIO(text)))
    names = Counter(row[0] for row in rows)
    return {
        (row[0] if names[row[0]] == 1 else f"line {number}: {row[0]}", head): value
        for number, row in enumerate(rows[1:], 1)
        for head, value in zip(rows[0], row, strict=True)
    }


def _lines(text: str) -> dict[Key, str]:
    return {(f"line {i}",): line for i, line in enumerate(text.splitlines(), 1)}


def _html_cells(text: str) -> dict[Key, str]:
    """Values and words of the elements that name their cell, `data-cell="TABLE/ROW/COLUMN"`."""
    found: dict[Key, str] = {}
    elements = re.findall(r"<(td|span)( [^>]*)>(.*?)</\1>", text, re.DOTALL)
    for _, attributes, inner in elements:
        pairs = re.findall(r' ([\w-]+)="([^"]*)"', attributes)
        given = {name: html.unescape(value) for name, value in pairs}
        if name := given.get("data-cell"):
            table, _, rest = name.partition("/")
            row, _, column = rest.rpartition("/")
            words = html.unescape(re.sub(r"<[^>]*>", " ", inner)).split()
            found[row or rest, table, column] = " ".join(
                [given.get("data-value", ""), *words]
            ).strip()
    return found


def _manifest_values(published: Mapping[str, Any]) -> dict[Key, Any]:
    """What a manifest says of each run, number by number."""
    return {
        (cell["cell"], f"run {run['run_id']}", path): value
        for cell in published["cells"]
        for run in cell["runs"]
        for path, value in _leaves(run)
    }


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything that is no mapping."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}".lstrip("."))
    else:
        yield path, value


# How the values of a file are read, by its ending.
_READ: dict[str, Callable[[str], dict[Key, str]]] = {
    ".csv": _csv_cells, ".html": _html_cells, ".md": _lines, ".tex": _lines,
}  # fmt: skip
