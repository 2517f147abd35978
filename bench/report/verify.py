"""do=verify: every published number recomputed from the records, and every file by its hash."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bench.analysis.cells import Cell, Run
from bench.analysis.facts import Facts
from bench.config.metrics import METRICS, record_key, version
from bench.config.spec import Grid
from bench.report import export, lines, manifest
from bench.report.content import tables_of, texts_of
from bench.report.page.build import page
from projgan.errors import reason
from projgan.files import sha256_of


@dataclass
class Checked:
    """What was compared, and what did not match, one line each."""

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
    for name, digest in sorted(published["files"].items()):
        found.files += 1
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            found.faults.append(f"{name}: manifest.json names a file that is not in {folder}")
        elif not path.is_file():
            found.faults.append(f"{name}: is in manifest.json and not in {folder}")
        elif sha256_of(path) != digest:
            found.faults.append(f"{name}: was changed after the report wrote it (SHA-256 differs)")

    # By the versions that the report records: those of today say nothing of what it is made of.
    versions: dict[str, int] = published.get("versions", {})
    facts = Facts.read(grid, runs_dir, versions)
    found.notes += [
        f"{metric}: published by version {then} of its computation, which is {today} today"
        for metric in _metrics(published)
        if (then := version(metric, versions)) != (today := version(metric))
    ]
    gone = list(_without_record(published, facts.runs))
    if gone:
        found.faults += gone
        return found
    found.runs = sum(run.status == "finished" for run in facts.runs)
    tables = tables_of(facts)
    now = {name: data.decode() for name, data in texts_of(tables).items()}
    now["records.csv"] = export.to_csv(facts.runs).decode()
    for name in sorted(published["files"]):
        path = folder / name
        if not path.is_file():
            continue
        if name.endswith(".csv"):
            _compare(found, name, path, _csv_now(name, now, facts.cells), _csv_cells)
        elif name == "index.html":
            again = page(facts, tables)
            _compare(found, name, path, again, _html_cells)
        elif name.endswith((".md", ".tex")) and not any(f.startswith(name) for f in found.faults):
            _compare(found, name, path, now.get(name), _text_cells)
    _compare_manifest(found, published, manifest.make(grid, facts.cells, {}))
    return found


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


Key = tuple[str, ...]


def _compare(found: Checked, name: str, path: Path, again: str | None, read: Any) -> None:
    """Each value that a file holds against the same one of the recomputed file."""
    if again is None:
        found.faults.append(f"{name}: the records give no such file")
        return
    try:
        ours: dict[Key, str] = read(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, csv.Error, IndexError) as error:
        found.faults.append(f"{name}: cannot be read ({reason(error)})")
        return
    theirs: dict[Key, str] = read(again)
    for key, value in ours.items():
        found.cells += 1
        if (expected := theirs.get(key)) != value:
            said = "nothing" if expected is None else repr(expected)
            found.faults.append(f"{name}: {', '.join(key)}: published {value!r}, recomputed {said}")
    for key in theirs.keys() - ours.keys():
        if key[0] not in {k[0] for k in ours}:  # a whole row; a new column is no fault
            found.faults.append(
                f"{name}: {', '.join(key)}: recomputed {theirs[key]!r}, not published"
            )


def _csv_now(name: str, now: Mapping[str, str], cells: Sequence[Cell]) -> str | None:
    """A CSV file from the records: a table, or the points of a curve."""
    metric = name.removeprefix("curves/").removesuffix(".csv")
    if name.startswith("curves/") and metric in METRICS:
        return lines.data_csv(cells, metric)
    if name.startswith("curves/"):
        key, _, short = metric.partition("_by_")
        axis = next((axis for axis in cells[0].axes if axis.split(".")[-1] == short), None)
        if axis is None or key not in METRICS or any(lines.place(c, axis) is None for c in cells):
            return None
        return lines.axis_csv(cells, key, axis)
    return now.get(name)


def _csv_cells(text: str) -> dict[Key, str]:
    """`(row, column)` -> value; rows of one name are told apart by what else begins them."""
    rows = list(csv.reader(io.StringIO(text)))
    found: dict[Key, str] = {}
    for number, row in enumerate(rows[1:], 1):
        name = row[0] if [r[0] for r in rows].count(row[0]) == 1 else f"line {number}: {row[0]}"
        for head, value in zip(rows[0], row, strict=True):
            found[name, head] = value
    return found


def _text_cells(text: str) -> dict[Key, str]:
    return {(f"line {i}",): line for i, line in enumerate(text.splitlines(), 1)}


class _Cells(HTMLParser):
    """Values and texts of the elements that name their cell."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Key, str] = {}
        self.key: Key | None = None
        self.tag, self.depth = "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self.key is not None:
            self.depth += tag == self.tag
        elif name := given.get("data-cell"):
            table, _, rest = name.partition("/")
            row, _, column = rest.rpartition("/")
            self.key, self.tag, self.depth = (row or rest, table, column), tag, 1
            self.found[self.key] = given.get("data-value") or ""

    def handle_endtag(self, tag: str) -> None:
        if self.key is not None and tag == self.tag:
            self.depth -= 1
            if not self.depth:
                self.key = None

    def handle_data(self, data: str) -> None:
        if self.key is not None and data.strip():
            self.found[self.key] = f"{self.found[self.key]} {data.strip()}".strip()


def _html_cells(text: str) -> dict[Key, str]:
    parser = _Cells()
    parser.feed(text)
    return parser.found


def _compare_manifest(
    found: Checked, published: Mapping[str, Any], again: Mapping[str, Any]
) -> None:
    """What the manifest says of each run, number by number."""
    now = {(cell["cell"], run["run_id"]): run for cell in again["cells"] for run in cell["runs"]}
    for cell in published["cells"]:
        for run in cell["runs"]:
            theirs = json.loads(json.dumps(now[cell["cell"], run["run_id"]]))
            for path, value in _leaves(run):
                found.cells += 1
                expected = _at(theirs, path)
                if value != expected:
                    where = f"{cell['cell']}, run {run['run_id']}, {'.'.join(path)}"
                    found.faults.append(
                        f"manifest.json: {where}: published {value!r}, recomputed {expected!r}"
                    )


def _leaves(value: Any, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    else:
        yield path, value


def _at(value: Any, path: Key) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
