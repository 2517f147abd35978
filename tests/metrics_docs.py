"""Writes the table in docs/metrics.md from the rows of the metrics: python tests/metrics_docs.py"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from bench.config.extractors import EXTRACTOR_INFO
from bench.config.metrics import METRICS, OF_TRAINING, Metric
from projgan.files import write_between

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: python tests/metrics_docs.py -->", "<!-- end of the metrics -->"
HEAD = ("key (group)", "header", "what it is", "source", "unit", "better", "network")


def markdown() -> str:
    """Return the table; neighbours that differ in key and header alone share a row."""
    found = [metric for metric in METRICS.values() if not metric.norms]
    rows = [_row(list(alike)) for _, alike in groupby(found, lambda metric: _cells(metric))]
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(metrics: list[Metric]) -> tuple[str, ...]:
    keys, headers = [f"`{m.key}`" for m in metrics], [m.header for m in metrics]
    group = metrics[0].group
    more = f" (`{group}`)" if [group] != [m.key for m in metrics] else ""
    return (_listed(keys) + more, _listed(headers), *_cells(metrics[0])[1:])


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


def _cells(m: Metric) -> tuple[str, ...]:
    """Return the group and the cells that metrics of one row share."""
    text = "" if m.compute is OF_TRAINING else m.compute.text
    return (
        m.group,
        "; ".join(filter(None, (text, m.about))),
        m.source or m.compute.source or "–",
        m.unit.replace("x", "×") or "–",
        "lower" if m.lower_is_better else "higher",
        EXTRACTOR_INFO[m.extractor].label,
    )


if __name__ == "__main__":
    write_between(PAGE, BEGIN, END, markdown())
