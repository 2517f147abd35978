"""Target of `report.target` and `target=`: a value of the ranking metric that runs shall reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.config.spec import Grid
from projgan.errors import ConfigError, unknown


@dataclass(frozen=True)
class Target:
    """Value to be reached, given in one of three ways."""

    value: float | None = None  # a value of the metric
    row: str | None = None  # that row's best
    share: float | None = None  # within this share of each run's own best

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `20`, `row:LABEL` or `5%`.

        Raises:
            ConfigError: any other text.
        """
        kind, colon, label = text.partition(":")
        if kind == "row" and colon and label.strip():
            return cls(row=label.strip())
        number = _number(text.removesuffix("%"))
        if number is None or (text.endswith("%") and number <= 0):
            raise ConfigError(
                f"target={text}: give a value (20), a row whose best it is (row:LABEL) or a share "
                "of each run's own best (5%)"
            )
        return cls(share=number / 100) if text.endswith("%") else cls(value=number)


def check(text: str, rank_by: str | None, rows: Sequence[str], narrowed: bool = False) -> None:
    """Refuse a target that no report could use; a narrowed grid may lack the row.

    Raises:
        ConfigError: a text that is no target, an unknown row, or no metric to reach it.
    """
    target = Target.parse(text)
    if rank_by is None:
        raise ConfigError(f"target={text} is a value of report.rank_by, which the grid lacks")
    if target.row is not None and target.row not in rows and not narrowed:
        raise ConfigError(unknown("row of the target", target.row, rows))


def with_target(grid: Grid, text: str) -> Grid:
    """Return the grid with a target from the command line.

    Raises:
        ConfigError: as `check`.
    """
    check(text, grid.report.rank_by, [row.label for row in grid.rows])
    return replace(grid, report=replace(grid.report, target=text))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
