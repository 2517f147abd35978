"""The paper's findings against the records: evidence, effect and verdict of each.

What a finding says stands in experiments/paper/claims.yaml; how each kind of check is decided, in
`bench.analysis.checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.analysis import cells as aggregate
from bench.analysis import feature_overlap
from bench.analysis.cells import FIELDS, Cell
from bench.analysis.checks import CHECKS, Evidence, Finding, named
from bench.analysis.verdicts import LEANS
from bench.config.metrics import METRICS, grid_key
from bench.config.spec import Claim, Grid, value_name
from bench.store import record as records
from projgan.errors import ConfigError, UserError, unknown

_OPTIONAL = {"correlation": {"within"}, "sooner": {"x"}}
_USED = ("these", "than", "axis", "x", "expects", "within")


def check(claim: Claim, grid: Grid) -> None:
    """Refuse a claim that its grid cannot decide.

    Raises:
        ConfigError: one line that names the claim and what is wrong in it.
    """
    for fault in _faults(claim, grid):
        raise ConfigError(f"claim {claim.id!r}: {fault}")


def _faults(claim: Claim, grid: Grid) -> Iterator[str]:
    if claim.check not in CHECKS:
        yield unknown("check", claim.check, CHECKS)
        return
    kind = CHECKS[claim.check]
    for name in _USED:
        given = getattr(claim, name) not in (None, ())
        if name in kind.needs and not given:
            yield f"check {claim.check} needs {name}"
        if given and name not in kind.needs and name not in _OPTIONAL.get(claim.check, set()):
            yield f"check {claim.check} does not use {name}"
        if name in kind.one and len(getattr(claim, name)) != 1:
            yield f"{name} takes one entry"
    if claim.check == "groups" and min(len(claim.these), len(claim.than)) < 2:
        yield "check groups needs two rows or more in these and in than"
    if claim.check == "sooner" and claim.x not in (None, "train_s"):
        yield "check sooner counts images, or training time with x: train_s"
    if (claim.expects == "none" or claim.check == "alike") and not 0 < (claim.within or 0) < 1:
        yield "give within, between 0 and 1"
    for what, value, known in (
        ("metric", claim.metric, METRICS),
        ("x", claim.x, {*FIELDS, *METRICS}),
        ("value of expects", claim.expects, ("none", "positive", "negative")),
        ("axis", claim.axis, grid.axes),
    ):
        if value is not None and value not in known:
            yield unknown(what, value, known)
    if not kind.of_records:
        return
    if claim.axis is not None:
        what, names = "value", [value_name(claim.axis, v) for v in grid.axes[claim.axis]]
    else:
        runs = [aggregate.Run(spec, Path(), "missing") for spec in grid.runs]
        what, names = "row", [cell.name for cell in aggregate.cells(runs)]
    for name in (*claim.these, *claim.than):
        if name not in names:
            yield unknown(f"{what} of grid {grid.name}", name, names)


def examine(claim: Claim, grid: Grid, cells: Sequence[Cell]) -> Finding:
    """Return what the cells of a grid say of a claim."""
    by_name = {c.name: c for c in cells}
    claim = replace(  # as the grid has them, whose eval.norms the keys do not say
        claim,
        metric=grid_key(claim.metric, grid.eval.norms),
        x=claim.x and grid_key(claim.x, grid.eval.norms),
    )
    kind = CHECKS[claim.check]
    names = [*claim.these, *claim.than] if kind.of_rows else [*by_name]
    used = [by_name[name] for name in names] if kind.of_records else []
    evidence = tuple(_line(claim, cell) for cell in used)
    without = [c for c in used if c.stat(claim.metric) is None]
    if without:
        rest = f" and {len(without) - 1} more" if len(without) > 1 else ""
        why = without[0].why_missing(claim.metric)
        reason = f"{without[0].name}{rest}: {why} (grid={grid.name} runs it)"
        some = evidence if len(without) < len(used) else ()
        return Finding("not run", reason, unit="", evidence=some)
    found = kind.decide(Evidence(claim, grid, by_name))
    reason = found.reason
    if found.verdict == "undecided" and found.leans is not None:
        reason += f"; so far it is {LEANS[found.leans]}"
    leaks = (feature_overlap.of_cell(c, claim.metric).reason for c in used)
    flags = tuple(dict.fromkeys(leak for leak in leaks if leak))
    return replace(found, reason=reason, evidence=evidence, flags=flags)


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
