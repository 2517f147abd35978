"""Tables beside a grid's main one: seeds, verdicts, agreement, claims, people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from bench.analysis import feature_overlap, metric_agreement, people, reproduction, row_tests
from bench.analysis.cells import Cell
from bench.analysis.checks import Finding
from bench.analysis.metric_agreement import Panel
from bench.analysis.row_tests import Comparison
from bench.analysis.stats import mean_interval
from bench.analysis.table import Entry, Row, Table, Value, Values
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.config.metrics import METRICS
from bench.config.spec import STATISTICS, Claim, Grid


def mark_leakage(table: Table, cells: Sequence[Cell], metric: str, keys: Collection[str]) -> Table:
    """Mark the flagged values of a table: a footnote, and a column of the CSV.

    Args:
        table: One row for each cell, which its first entry names.
        cells: Whose rows they are.
        metric: What the values are of, or derived from.
        keys: The columns that hold them.
    """
    reasons = {cell.name: feature_overlap.of_cell(cell, metric).reason for cell in cells}
    rows = []
    for row in table.rows:
        reason = reasons.get(row.entries[0].text, "")
        entries = tuple(
            replace(entry, notes=(*entry.notes, reason), leakage=reason)
            if reason and column.key in keys and (entry.value is not None or entry.text)
            else entry
            for column, entry in zip(table.columns, row.entries, strict=True)
        )
        rows.append(replace(row, entries=entries))
    return replace(table, rows=tuple(rows))


# Seeds: every run of the ranking metric.


def seeds(grid: Grid, cells: Sequence[Cell]) -> Table | None:
    """Return every point of the ranking metric, its interval, and the comparison with the baseline.

    Returns:
        None where no cell has two finished runs.
    """
    metric = grid.report.rank_by
    stats = {cell.name: cell.stat(metric) for cell in cells} if metric else {}
    if metric is None or not any(stat and stat.n > 1 for stat in stats.values()):
        return None
    header = vocabulary.column(metric)
    against = row_tests.baselines(grid, cells)
    found = row_tests.compare(cells, against, metric, vocabulary.lower_is_better(metric))
    columns = [
        Column("label", "row", text=True),
        Column("n", "n", decimals=0),
        Column(metric, header.header, header.unit),
        Column("low", "from", header.unit),
        Column("high", "to", header.unit),
        Column("points", "all runs", text=True),
    ]
    if against:
        columns += [
            Column("difference", "difference"),
            Column("p_holm", "p (Holm)", decimals=3),
            Column("verdict", "verdict", text=True),
        ]
    own = {cell.name for cell in against.values()}
    rows = []
    for cell in cells:
        stat, versus = stats[cell.name], found.get(cell.name)
        if stat is None:
            rows.append(Row.by_column(columns, {"label": cell.name}, *cell.unmeasured()))
            continue
        better = bool(versus and versus.verdict == "better")
        values: Values = {
            "label": cell.name,
            "n": float(stat.n),
            metric: Entry(stat.mean, bold=better),
            "points": ", ".join(f"{point:.4g}" for point in stat.points),
        }
        if stat.interval:
            values |= {"low": stat.interval.low, "high": stat.interval.high}
        if versus:
            values |= {"difference": versus.difference, "p_holm": versus.p}
        values["verdict"] = _compared(versus) or ("baseline" if cell.name in own else "")
        rows.append(Row.by_column(columns, values))
    kinds = {s.interval.kind for s in stats.values() if s and s.interval}
    words = [
        "95 % interval of the mean by Student's t" if "t" in kinds else "",
        "lowest and highest run where there are fewer than five" if "range" in kinds else "",
    ]
    name = grid.report.compare_to or grid.report.baseline
    both = f"Difference: mean over the seeds that the row and {name} have in common."
    notes = [
        f"From, to: {'; '.join(word for word in words if word)}.",
        both if against else "",
        row_tests.note(grid, [found]),
    ]
    return Table(
        name=f"{grid.name}-seeds",
        file="seeds",
        caption=f"{header.header} {STATISTICS[grid.report.statistic]}, run by run.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(note for note in notes if note),
    )


def _compared(versus: Comparison | None) -> str:
    if versus is None:
        return ""
    few = versus.verdict == "too few seeds"
    return f"too few seeds ({versus.n})" if few else versus.verdict


# Verdicts on the paper's numbers.

VERDICT_NOTE = (
    f"Reproduced: the interval of our mean lies within {reproduction.MARGIN:.0%} of the paper's "
    "number. Within seed noise: it covers that number and is wider. A field of the protocol that "
    "differs or is unknown rules both out. Ours is the best snapshot of each run, as the paper "
    "reports it."
)
LAB_NOTE = (
    "At lab scale no number of the paper can be reproduced; the ranking and the claims "
    "(do=claims) can be judged."
)


def _verdict_notes(grid: Grid) -> tuple[str, ...]:
    return (VERDICT_NOTE, LAB_NOTE) if grid.scale == "lab" else (VERDICT_NOTE,)


def with_verdicts(
    table: Table, grid: Grid, judged: Sequence[Sequence[reproduction.Judged]], column: str
) -> Table:
    """Return a grid's table with the verdict on the paper's main number in a column of its own.

    Args:
        table: one row per cell.
        grid: whose table it is.
        judged: what `judge` found for each row.
        column: key of the paper's main column.
    """
    found = [next((j.verdict for j in row if j.column == column), None) for row in judged]
    entries = [
        Entry(text=one.word, notes=(one.text,) if one.reason else ()) if one else Entry()
        for one in found
    ]
    return replace(
        table,
        columns=(*table.columns, Column("verdict", "verdict", text=True, minor=True)),
        rows=tuple(
            replace(row, entries=(*row.entries, entry))
            for row, entry in zip(table.rows, entries, strict=True)
        ),
        notes=(*table.notes, *_verdict_notes(grid)),
        extra={"verdict_reason": tuple(one.reason if one else "" for one in found), **table.extra},
    )


def verdicts(grid: Grid, judged: Mapping[str, Sequence[reproduction.Judged]]) -> Table:
    """Return all verdicts of a grid, one line for each of the paper's numbers."""
    columns = (
        Column("row", "row", text=True),
        Column("number", "number", text=True),
        Column("paper", "paper", paper=True, decimals=2),
        Column("ours", "ours", decimals=2),
        Column("from", "from", decimals=2),
        Column("to", "to", decimals=2),
        Column("n", "n", decimals=0),
        Column("compared", "compared with", text=True),
        Column("verdict", "verdict", text=True),
    )
    lines = [(name, one) for name, found in judged.items() for one in found]
    rows = []
    for name, one in lines:
        number, leak, reason = one.paper, one.leakage, one.verdict.reason
        ours: tuple[Value, ...] = (None,) * 4
        if one.stat:
            interval = mean_interval(one.stat.points)
            ends = (interval.low, interval.high) if interval else (None, None)
            ours = (one.stat.mean, *ends, float(one.stat.n))
        values = (
            name,
            vocabulary.PAPER[one.column].header.removeprefix("paper "),
            Entry(number.value, notes=_some(number.note), confidence=number.confidence),
            *ours,
            Entry(text=one.key, notes=_some(leak), leakage=leak),
            Entry(text=one.verdict.word, notes=_some(one.verdict.text if reason else "")),
        )
        rows.append(Row.of(values))
    return Table(
        name=f"{grid.name}-verdicts",
        caption=f"The numbers of the paper's {grid.report.paper} against ours, scale {grid.scale}.",
        columns=columns,
        rows=tuple(rows),
        notes=_verdict_notes(grid),
        extra={"reason": tuple(one.verdict.reason for _, one in lines)},
    )


def _some(note: str) -> tuple[str, ...]:
    return (note,) if note else ()


# Agreement of metrics, claims, and judgements of people.


def agreement(grid: Grid, cells: Sequence[Cell], panel: Panel) -> Table:
    """Return the agreement of metrics on the order of rows, a line for each pair of metrics."""
    columns = (
        Column("metric", "metric", text=True),
        Column("other", "and", text=True),
        Column("tau", "tau", decimals=2),
        Column("from", "from", decimals=2),
        Column("to", "to", decimals=2),
    )
    specs = [cell.spec for cell in cells if cell.name in panel.rows]
    names = {}
    for metric in panel.metrics:
        flagged = len(feature_overlap.shared_by(specs, metric))
        note = f"flagged by leakage in {flagged} of {len(specs)} rows" if flagged else ""
        names[metric] = Entry(text=METRICS[metric].header, notes=_some(note))
    rows = [
        Row.of((names[one], names[other], tau.value, tau.low, tau.high))
        for (one, other), tau in panel.taus.items()
    ]
    first = "; ".join(f"{METRICS[m].header}: {row}" for m, row in panel.first.items())
    drawn = any(tau.low is not None for tau in panel.taus.values())
    return Table(
        name=f"{grid.name}-agreement",
        caption=(
            f"Kendall's tau between metrics over {len(panel.rows)} rows: 1 = the same order, 0 = "
            "unrelated, -1 = the reverse."
        ),
        columns=columns,
        rows=tuple(rows),
        notes=(
            metric_agreement.conclusion(panel, grid.report.rank_by),
            f"First by {first}.",
            f"From, to: 95 % of {metric_agreement.RESAMPLES} draws of the seeds."
            if drawn
            else "A row with a single run of all metrics: no interval.",
        ),
    )


def claims(grid: Grid, found: Sequence[tuple[Claim, Finding]]) -> Table:
    """Return the claims about a grid with their verdicts, one line each."""
    columns = (
        Column("claim", "claim", text=True),
        Column("verdict", "verdict", text=True),
        Column("effect", "effect", text=True),
        Column("n", "n", decimals=0),
        Column("unit", "of", text=True),
        Column("p", "p", decimals=4),
        Column("test", "test", text=True),
    )
    rows = []
    for claim, finding in found:
        says = Entry(text=claim.says, notes=(f"{claim.id}: {claim.source}",))
        verdict = Entry(text=finding.verdict, notes=_some(finding.reason))
        n = float(finding.n) if finding.n else None
        counted = (finding.effect, n, finding.unit, finding.p, finding.test)
        rows.append(Row.of((says, verdict, *counted)))
    return Table(
        name=f"{grid.name}-claims",
        file="claims",
        caption="What the paper finds, and what the records say of it.",
        columns=columns,
        rows=tuple(rows),
        extra={
            "id": tuple(claim.id for claim, _ in found),
            "reason": tuple(finding.reason for _, finding in found),
        },
    )


def people_beside(grid: Grid) -> Table:
    """Return the shares of images that people took for real, and the paper's FID beside."""
    columns = (
        Column("dataset", "data set", text=True),
        Column("method", "method", text=True),
        Column("taken_for_real", "taken for real", "%", decimals=1),
        Column("interval", "95 %", text=True),
        Column("people", "people", decimals=0),
        Column("paper_fid", "FID (paper)", paper=True),
    )
    judged = people.judgements()
    rows = []
    for one in judged:
        interval = f"{one.low:g} to {one.high:g}"
        fid = Entry(one.fid, confidence="verified-image" if one.fid else "")
        rows.append(Row.of((one.dataset, one.method, one.share, interval, float(one.people), fid)))
    return Table(
        name=f"{grid.name}-people",
        file="people",
        caption="How many generated images people took for real. Published data, not ours.",
        columns=columns,
        rows=tuple(rows),
        notes=(
            *dict.fromkeys(one.source for one in judged),
            (
                "Where both judge this method, they disagree: its FID is the lower, and people "
                "take fewer of its images for real. FID ranks snapshots and settings of one "
                "method; it does not say whose images look more real."
            ),
            "People saw published generators, not those of the paper's table.",
        ),
    )
