"""Puts the page together: records and tables in, one HTML text out, the same each time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.analysis import metric_agreement
from bench.analysis.table import Table
from bench.analysis.verdicts import CLAIM_WORDS
from bench.config import yaml_types
from bench.config.spec import Grid
from bench.report import captions, manifest
from bench.report.page import cost, figures, heat, pictures, provenance, table
from bench.report.page.figures import anchors_of
from bench.report.page.summary import answer, competitions

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

HERE = Path(__file__).parent


def page(
    facts: Facts,
    tables: Mapping[str, Table],
    files: Sequence[str] = (),
    command: str | None = None,
) -> str:
    """The page of a grid; the same records give the same text.

    Args:
        facts: what the records say.
        tables: the report's, as `tables_of` gives them.
        files: written beside the page.
        command: what writes the page again. None = do=report.
    """
    grid, cells, ranking = facts.grid, facts.cells, facts.ranking
    metric = ranking.metric if ranking else None
    main, opens = table.main_table(facts, tables["table"])
    drawn = figures.over_training(facts)
    maps, bars = heat.heats(facts), cost.costs(facts)
    more = [f.opens for each in maps for _, fields in each.rows for f in fields if f.opens]
    more += [bar.opens for _, group in bars for bar in group]
    opens |= provenance.of_numbers(facts, (key for key in more if key not in opens))
    anchors = anchors_of(facts)
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
        answer=answer(facts),
        main=main,
        evidence=_json({"cells": opens, "curves": drawn.values if drawn else []}),
        header=ranking.header if ranking else "",
        curves=drawn,
        across=figures.across(facts),
        heats=maps,
        scatters=figures.scatters(facts),
        slopes=figures.slopes(facts),
        films=pictures.films(cells, metric),
        real=pictures.real(cells),
        costs=bars,
        alike=cost.alike(facts),
        signal=captions.signal_lines(facts),
        anchors=anchors,
        best=[part.first.name for part in competitions(facts)],
        ledger=cost.ledger(facts),
        claims=[
            (claim, finding, [(line, _leads(line, anchors)) for line in finding.evidence])
            for claim, finding in facts.findings
        ],
        words=CLAIM_WORDS,
        claims_fault=facts.claims_fault,
        tau=heat.tau_matrix(facts.agreement) if facts.agreement else None,
        panel=metric_agreement.conclusion(facts.agreement, metric) if facts.agreement else "",
        tables={
            name: table.plain(tables[name]) if name in tables else None
            for name in ("seeds", "targets", "verdicts", "parts", "people")
        },
        counts=table.verdict_counts(facts.judged),
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
