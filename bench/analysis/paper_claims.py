"""The paper's findings against the records: evidence, effect and verdict of each.

What a finding says stands in experiments/paper/claims.yaml; how each kind of check is decided, in
`bench.analysis.checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.analysis import cells as aggregate
from bench.analysis import feature_overlap
from bench.analysis.cells import FIELDS, Cell
from bench.analysis.checks import CHECKS, Evidence, Word, counted, named
from bench.analysis.table import Entry, Row, Table
from bench.config.columns import Column
from bench.config.metrics import METRICS, grid_key
from bench.config.spec import Claim, Grid, value_name
from bench.store import record as records
from projgan.errors import ConfigError, UserError, unknown

LEANS = {True: "as claimed", False: "the other way round"}


@dataclass(frozen=True)
class Finding:
    """What the records say of a claim."""

    verdict: Word
    reason: str = ""  # why it is undecided or not run
    leans: bool | None = None  # whether what was seen is as claimed. None = it is neither
    n: int = 0  # of what was counted
    unit: str = ""  # seeds or rows
    effect: str = ""  # in words, with its interval
    p: float | None = None
    test: str = ""
    evidence: tuple[str, ...] = ()  # one line per row
    flags: tuple[str, ...] = ()  # leakage

    @property
    def counted(self) -> str:
        """`3 seeds`."""
        return counted(self.n, self.unit)


_OPTIONAL = {"correlation": {"within"}, "sooner": {"x"}}
_USED = ("these", "than", "axis", "x", "expects", "within")


def check(claim: Claim, grid: Grid) -> None:
    """Refuses a claim that its grid cannot decide.

    Raises:
        ConfigError: one line that names the claim and what is wrong in it.
    """
    at = f"claim {claim.id!r}"
    if claim.check not in CHECKS:
        raise ConfigError(f"{at}: {unknown('check', claim.check, CHECKS)}")
    kind = CHECKS[claim.check]
    for name in _USED:
        given = getattr(claim, name) not in (None, ())
        if name in kind.needs and not given:
            raise ConfigError(f"{at}: check {claim.check} needs {name}")
        if given and name not in kind.needs and name not in _OPTIONAL.get(claim.check, set()):
            raise ConfigError(f"{at}: check {claim.check} does not use {name}")
        if name in kind.one and len(getattr(claim, name)) != 1:
            raise ConfigError(f"{at}: {name} takes one entry")
    if claim.check == "groups" and min(len(claim.these), len(claim.than)) < 2:
        raise ConfigError(f"{at}: check groups needs two rows or more in these and in than")
    if claim.metric not in METRICS:
        raise ConfigError(f"{at}: {unknown('metric', claim.metric, METRICS)}")
    if claim.x is not None and claim.x not in {*FIELDS, *METRICS}:
        raise ConfigError(f"{at}: {unknown('x', claim.x, {*FIELDS, *METRICS})}")
    words = ("none", "positive", "negative")
    if claim.check == "sooner" and claim.x not in (None, "train_s"):
        raise ConfigError(f"{at}: check sooner counts images, or training time with x: train_s")
    if claim.expects is not None and claim.expects not in words:
        raise ConfigError(f"{at}: {unknown('value of expects', claim.expects, words)}")
    if (claim.expects == "none" or claim.check == "alike") and not 0 < (claim.within or 0) < 1:
        raise ConfigError(f"{at}: give within, between 0 and 1")
    if claim.axis is not None and claim.axis not in grid.axes:
        raise ConfigError(f"{at}: {unknown('axis', claim.axis, grid.axes)}")
    if not kind.of_records:
        return
    runs = [aggregate.Run(spec, Path(), "missing") for spec in grid.runs]
    known = [cell.name for cell in aggregate.cells(runs)]
    if claim.axis is not None:
        known = [value_name(claim.axis, value) for value in grid.axes[claim.axis]]
    for name in (*claim.these, *claim.than):
        if name not in known:
            kind_of = "value" if claim.axis else "row"
            raise ConfigError(f"{at}: {unknown(f'{kind_of} of grid {grid.name}', name, known)}")


def examine(
    claim: Claim, grid: Grid, runs_dir: Path, read: Sequence[aggregate.Cell] | None = None
) -> Finding:
    """What the records of a grid say of a claim.

    Args:
        read: the grid's cells, where its records were read before.
    """
    if read is None:
        read = aggregate.cells(aggregate.read_runs(grid.runs, runs_dir))
    cells = {c.name: c for c in read}
    claim = replace(  # as the grid has them, whose eval.norms the keys do not say
        claim,
        metric=grid_key(claim.metric, grid.eval.norms),
        x=claim.x and grid_key(claim.x, grid.eval.norms),
    )
    kind = CHECKS[claim.check]
    named = [*claim.these, *claim.than] if kind.of_rows else [*cells]
    named = named if kind.of_records else []
    used = [cells[name] for name in named]
    lines = tuple(_line(claim, cell) for cell in used)
    leaks = (feature_overlap.of_cell(c, claim.metric).reason for c in used)
    flags = tuple(dict.fromkeys(reason for reason in leaks if reason))
    without = [c for c in used if c.stat(claim.metric) is None]
    if without:
        rest = f" and {len(without) - 1} more" if len(without) > 1 else ""
        why = without[0].why_missing(claim.metric)
        reason = f"{without[0].name}{rest}: {why} (grid={grid.name} runs it)"
        return Finding("not run", reason, evidence=lines if len(without) < len(used) else ())
    found = kind.decide(Evidence(claim, grid, cells))
    reason = found.reason
    if found.verdict == "undecided" and found.leans is not None:
        reason += f"; so far it is {LEANS[found.leans]}"
    return Finding(
        found.verdict, reason, found.leans, found.n, found.unit, found.effect, found.p, found.test,
        lines, flags,
    )  # fmt: skip


def _line(claim: Claim, cell: Cell) -> str:
    """A row's own evidence."""
    said = f"{METRICS[claim.metric].header} of {cell.name}: {_measured(cell, claim.metric)}"
    return f"{said}, {named(claim.x)} {_measured(cell, claim.x)}" if claim.x else said


def _measured(cell: Cell, metric: str) -> str:
    stat = cell.stat(metric)
    if stat is None:
        return cell.why_missing(metric)
    spread = f" ± {stat.std:.3g}" if stat.std else ""
    return f"{stat.mean:.4g}{spread} (n={stat.n})"


def seeds_found(runs_dir: Path) -> list[int]:
    """The seeds of all runs that have a record."""
    seeds = set()
    for path in sorted(runs_dir.glob("*/record.json")):
        try:
            record = records.load(path)
        except UserError:
            continue
        seed = ((record or {}).get("config") or {}).get("train", {}).get("seed")
        if isinstance(seed, int):
            seeds.add(seed)
    return sorted(seeds)


def to_text(claim: Claim, finding: Finding) -> str:
    """A claim with its verdict and what that rests on, for a terminal."""
    lines = [f"{finding.verdict.upper():13} {claim.id}: {claim.says} ({claim.source})"]
    parts = [finding.effect]
    if finding.n:
        parts.append(f"n = {finding.counted}")
    if finding.p is not None:
        parts.append(f"p = {finding.p:.2g} ({finding.test})")
    told = "; ".join(part for part in parts if part)
    lines += [told] if told else []
    lines += [f"{finding.verdict}: {finding.reason}"] if finding.reason else []
    lines += finding.evidence
    lines += [f"flagged: {flag}" for flag in finding.flags]
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])


def table(name: str, found: Sequence[tuple[Claim, Finding]]) -> Table:
    """The claims about a grid with their verdicts, one line each.

    Args:
        name: of the grid.
        found: each claim with what the records say of it.
    """
    rows = []
    for claim, finding in found:
        entries = [
            Entry(text=claim.says, notes=(f"{claim.id}: {claim.source}",)),
            Entry(text=finding.verdict, notes=(finding.reason,) if finding.reason else ()),
            Entry(text=finding.effect),
            Entry(float(finding.n)) if finding.n else Entry(),
            Entry(text=finding.unit),
            Entry(finding.p) if finding.p is not None else Entry(),
            Entry(text=finding.test),
        ]
        rows.append(Row(tuple(entries)))
    return Table(
        name=f"{name}-claims",
        file="claims",
        caption="What the paper finds, and what the records say of it.",
        columns=(
            Column("claim", "claim", text=True),
            Column("verdict", "verdict", text=True),
            Column("effect", "effect", text=True),
            Column("n", "n", decimals=0),
            Column("unit", "of", text=True),
            Column("p", "p", decimals=4),
            Column("test", "test", text=True),
        ),
        rows=tuple(rows),
        extra={
            "id": tuple(claim.id for claim, _ in found),
            "reason": tuple(finding.reason for _, finding in found),
        },
    )
