"""Puts the page together: records and tables in, one HTML text out, the same each time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.analysis import checks, metric_agreement, time_to_target
from bench.analysis.cells import Cell
from bench.config import columns as vocabulary
from bench.config import yaml_types
from bench.config.spec import Grid
from bench.report import manifest
from bench.report.content import Content
from bench.report.page import cost, figures, heat, pictures, provenance, table
from bench.report.page.summary import answer, competitions, ranked

HERE = Path(__file__).parent


def page(
    grid: Grid,
    cells: Sequence[Cell],
    content: Content,
    files: Sequence[str] = (),
    command: str | None = None,
) -> str:
    """The page of a grid; the same records give the same text.

    Args:
        grid: what was asked for.
        cells: what was measured.
        content: the report.
        files: written beside the page.
        command: what writes the page again. None = do=report.
    """
    order = ranked(grid, cells)
    metric = order.metric if order else None
    main, opens = table.main_table(grid, cells, content.tables["table"], order, content.paper)
    marks = time_to_target.values(grid, cells) if metric else []
    drawn = figures.over_training(grid, cells, metric, marks) if metric else None
    maps, bars = heat.heats(grid, cells, content.tables["table"], metric), cost.costs(cells)
    more = [f.opens for each in maps for _, fields in each.rows for f in fields if f.opens]
    more += [bar.opens for _, group in bars for bar in group]
    opens |= provenance.of_numbers(grid, cells, (key for key in more if key not in opens))
    anchors = {cell.name: f"row-{i}" for i, cell in enumerate(cells)}
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html.j2").render(
        grid=grid,
        style=_own("page.css"),
        script=_own("page.js"),
        answer=answer(grid, cells, content.paper, content.panel, content.findings),
        main=main,
        evidence=_json({"cells": opens, "curves": drawn.values if drawn else []}),
        header=vocabulary.column(metric).header if metric else "",
        curves=drawn,
        across=figures.across(grid, cells, metric) if metric else None,
        heats=maps,
        scatters=figures.scatters(grid, cells, order, content.paper, anchors),
        slopes=figures.slopes(grid, cells, order, content.paper, anchors),
        films=pictures.films(cells, metric),
        real=pictures.real(cells),
        costs=bars,
        alike=cost.alike(cells),
        anchors=anchors,
        best=[part.first.name for part in competitions(grid, cells, order)] if order else [],
        ledger=cost.ledger(cells),
        claims=[
            (claim, finding, [(line, _leads(line, anchors)) for line in finding.evidence])
            for claim, finding in content.findings
        ],
        words=checks.WORDS,
        claims_fault=content.findings_fault,
        tau=heat.tau_matrix(content.panel) if content.panel else None,
        panel=metric_agreement.conclusion(content.panel, metric) if content.panel else "",
        tables={
            name: table.plain(content.tables[name]) if name in content.tables else None
            for name in ("seeds", "targets", "verdicts", "parts", "people")
        },
        counts=table.verdict_counts(content.judged),
        cards=provenance.cards(cells),
        unfinished=[(cell.name, run) for cell in cells for run in cell.unfinished],
        total=sum(len(cell.runs) for cell in cells),
        revisions=provenance.revisions(cells),
        files=sorted(files),
        command=command or _command(grid),
        verifiable=command is None,
    )


def _leads(line: str, anchors: Mapping[str, str]) -> str:
    """Where the runs of a claim's evidence stand; empty = the line names no row."""
    named = [name for name in anchors if f" of {name}: " in line]
    return anchors[max(named, key=len)] if named else ""


def _command(grid: Grid) -> str:
    """What writes the page again from the same records."""
    words = [f"grid={grid.name}", *([f"scale={grid.scale}"] if grid.scale != "lab" else [])]
    given = {"seeds": list(grid.seeds), **manifest.public(grid.overrides)}
    words += [yaml_types.argument(key, value) for key, value in given.items()]
    return " ".join([*words, "do=report"])


def _own(name: str) -> Markup:
    """A file of the page's own, which needs no escaping."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _json(value: object) -> Markup:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, escaped)
    return Markup(text)
