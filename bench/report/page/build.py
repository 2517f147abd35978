"""The page of a report: facts and tables in, one HTML text out, the same each time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.analysis import metric_agreement
from bench.analysis.table import Table
from bench.config import yaml_types
from bench.config.spec import Grid
from bench.report import captions, manifest
from bench.report.page import cost, figures, heat, pictures, provenance, table
from bench.report.page.figures import anchors_of
from bench.report.page.summary import answer, competitions

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

HERE = Path(__file__).parent


# The colour of each word that a chip shows: states of runs, verdicts on claims and on numbers.
TONES = {
    "finished": "plain", "running": "open", "missing": "open", "failed": "no", "unreadable": "no",
    "supported": "yes", "contradicted": "no", "undecided": "open", "not run": "plain",
    "reproduced": "yes", "not reproduced": "no", "within seed noise": "open",
    "too few seeds": "open", "protocol differs": "plain", "paper's number unknown": "plain",
}  # fmt: skip


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
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(tones=TONES, anchors=anchors_of(facts))
    return environment.get_template("index.html.j2").render(
        facts=facts,
        grid=facts.grid,
        style=_own("page.css"),
        script=_own("page.js"),
        files=sorted(files),
        command=command or _command(facts.grid),
        verifiable=command is None,
        **_sections(facts, tables),
    )


def _sections(facts: Facts, tables: Mapping[str, Table]) -> dict[str, object]:
    """Return the content of each section of the page, by its name in the template."""
    main, drawn = table.main_table(facts, tables["table"]), figures.over_training(facts)
    maps, bars = heat.heats(facts), cost.costs(facts)
    opened = [field.opens for row in main.rows for field in row]
    opened += [field.opens for each in maps for _, fields in each.rows for field in fields]
    opened += [bar.opens for _, group in bars for bar in group]
    evidence = provenance.evidence(facts, tables["table"], filter(None, opened))
    panel, anchors = facts.agreement, anchors_of(facts)
    return {
        "answer": answer(facts),
        "main": main,
        "best": [part.first.name for part in competitions(facts)],
        "evidence": _json({"cells": evidence, "curves": drawn.values if drawn else []}),
        "curves": drawn,
        "across": figures.across(facts),
        "heats": maps,
        "scatters": figures.scatters(facts),
        "slopes": figures.slopes(facts),
        "tau": heat.tau_matrix(panel) if panel else None,
        "panel": metric_agreement.conclusion(panel, facts.grid.report.rank_by) if panel else "",
        "films": pictures.films(facts),
        "real": pictures.real(facts),
        "claims": [
            (claim, finding, [(line, _leads(line, anchors)) for line in finding.evidence])
            for claim, finding in facts.findings
        ],
        "costs": bars,
        "alike": cost.alike(facts),
        "signal": captions.signal_lines(facts),
        "ledger": cost.ledger(facts),
        "tables": {
            name: table.plain(tables[name]) if name in tables else None
            for name in ("seeds", "targets", "verdicts", "parts", "people")
        },
        "counts": Counter(one.verdict.word for row in facts.judged.values() for one in row),
        "cards": provenance.cards(facts),
        "revisions": provenance.revisions(facts),
    }


def _leads(line: str, anchors: Mapping[str, str]) -> str:
    """Return the anchor of the row that a line of evidence names; empty = it names none."""
    named = [name for name in anchors if f" of {name}: " in line]
    return anchors[max(named, key=len)] if named else ""


def _command(grid: Grid) -> str:
    """Return the command that writes the page again from the same records."""
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
