"""Facts of a grid: all that its records say, before any of it is put into a table or on a page.

records ─ read_runs ─ Facts ─ report.content.tables_of ─ files and page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench.analysis import (
    cells,
    metric_agreement,
    paper_claims,
    paper_numbers,
    reproduction,
    row_tests,
    signal_to_noise,
    time_to_target,
)
from bench.analysis.cells import Cell, Run, Stat
from bench.analysis.checks import Finding
from bench.config import columns as vocabulary
from bench.config import grid as grids
from bench.config.metrics import METRICS
from bench.config.spec import Claim, Grid
from projgan.errors import UserError


@dataclass(frozen=True)
class Ranking:
    """The cells that have the ranking metric, best first."""

    metric: str
    cells: tuple[Cell, ...]

    @property
    def header(self) -> str:
        return vocabulary.column(self.metric).header

    @property
    def sign(self) -> int:
        """1 where lower is better, -1 where higher is."""
        return 1 if vocabulary.lower_is_better(self.metric) else -1

    @property
    def first(self) -> Cell:
        return self.cells[0]

    @property
    def superlative(self) -> str:
        return "lowest" if self.sign == 1 else "highest"

    def stat(self, cell: Cell) -> Stat:
        found = cell.stat(self.metric)
        assert found is not None
        return found

    def name(self, cell: Cell) -> str:
        """A cell's name without the axis values that all cells of this ranking share."""
        return cell.row if self.one_condition else cell.name

    @property
    def one_condition(self) -> bool:
        """Return whether all cells have the same axis values."""
        return len(self.cells) > 1 and all(cell.axes == self.first.axes for cell in self.cells)


@dataclass(frozen=True, eq=False)
class Facts:
    """All that the records of a grid say; each part is computed once, when it is asked for."""

    grid: Grid
    runs: Sequence[Run]  # one for each of the grid's, in its order

    @classmethod
    def read(cls, grid: Grid, runs_dir: Path, versions: Mapping[str, int] | None = None) -> Facts:
        """Read the records of a grid's runs.

        Args:
            grid: The whole grid, whatever part of it was run.
            runs_dir: Holds one folder per run.
            versions: Of the metrics' computations, as `read_runs` takes them. None = today's.
        """
        runs = cells.read_runs(grid.runs, runs_dir, versions=versions)
        if grid.report.statistic == "second_half":
            runs = [replace(run, second_half=grid.report.rank_by) for run in runs]
        return cls(grid, runs)

    @cached_property
    def cells(self) -> list[Cell]:
        """The runs by row and axis values, in the grid's order."""
        return cells.cells(self.runs)

    @cached_property
    def finished(self) -> list[Run]:
        """The finished runs, cell by cell."""
        return [run for cell in self.cells for run in cell.finished]

    @cached_property
    def unfinished(self) -> list[tuple[Cell, Run]]:
        """The other runs, each with its cell."""
        return [(cell, run) for cell in self.cells for run in cell.unfinished]

    @cached_property
    def values(self) -> pd.DataFrame:
        """The numbers of all finished runs: lines by cell, seed and pretraining seed.

        A column for each key that `Run.values` has; NaN where a run lacks it.
        """
        runs = [(cell.name, run) for cell in self.cells for run in cell.finished]
        index = pd.MultiIndex.from_tuples(
            [(name, *run.replicate) for name, run in runs], names=["cell", "seed", "pretrain_seed"]
        )
        return pd.DataFrame([run.values for _, run in runs], index=index)

    def replicates(self, key: str, cells: Sequence[Cell]) -> pd.DataFrame:
        """`key` by seed and pretraining seed (lines) and by cell (columns), where all have it."""
        names = [cell.name for cell in cells]
        return self.values.loc[names, key].unstack("cell").reindex(columns=names).dropna()

    @cached_property
    def means(self) -> pd.DataFrame:
        """The means of `values` by cell, in the grid's order."""
        return self.values.groupby("cell", sort=False).mean()

    @cached_property
    def beside_paper(self) -> pd.DataFrame:
        """The cells that the ranking and the paper's main column have, in the order of the ranking.

        Columns: `ours` (mean) and `paper`, `place` and `paper_place` (from 1), `confidence`.
        """
        lines = []
        if self.ranking and self.grid.report.paper:
            key = paper_numbers.main_column(self.grid.report.paper)
            for cell in self.ranking.cells:
                number = self.paper[cell.name].get(key)
                if number and number.value is not None:
                    mean = self.ranking.stat(cell).mean
                    lines.append((cell.name, mean, number.value, number.confidence))
        frame = pd.DataFrame(lines, columns=["cell", "ours", "paper", "confidence"])
        frame["place"] = range(1, len(frame) + 1)
        frame["paper_place"] = frame["paper"].rank(method="first").astype(int)
        return frame.set_index("cell")

    @cached_property
    def ranking(self) -> Ranking | None:
        """The cells in the order of the ranking metric. None = no cell has it."""
        metric = self.grid.report.rank_by
        if metric is None:
            return None
        found = Ranking(metric, tuple(cell for cell in self.cells if cell.stat(metric)))
        order = sorted(found.cells, key=lambda cell: found.sign * found.stat(cell).mean)
        return Ranking(metric, tuple(order)) if order else None

    @cached_property
    def paper(self) -> dict[str, paper_numbers.PaperRow]:
        """The paper's numbers by cell name; empty where the grid names no table of the paper."""
        name = self.grid.report.paper
        if name is None:
            return {}
        chosen = {row.label: row.paper for row in self.grid.rows}
        return {
            c.name: paper_numbers.paper_row(name, c.spec, chosen.get(c.row)) for c in self.cells
        }

    @cached_property
    def divisors(self) -> dict[str, Cell]:
        """Cell name -> the baseline row at the same axis values, which `rel:` columns divide by."""
        found = {
            repr(sorted(cell.axes.items())): cell
            for cell in self.cells
            if cell.row == self.grid.report.baseline
        }
        places = {cell.name: repr(sorted(cell.axes.items())) for cell in self.cells}
        return {name: found[place] for name, place in places.items() if place in found}

    @cached_property
    def baselines(self) -> dict[str, Cell]:
        """Cell name -> the cell that it is compared with, as `report.compare_to` says."""
        return row_tests.baselines(self.grid, self.cells)

    @cached_property
    def comparisons(self) -> dict[str, dict[str, row_tests.Comparison]]:
        """Metric of the table -> cell name -> the cell against the row it is compared with."""
        keys = vocabulary.expand(self.grid.report.columns)
        return {
            key: row_tests.compare(self.cells, self.baselines, key, vocabulary.lower_is_better(key))
            for key in keys
            if key in METRICS
        }

    @cached_property
    def judged(self) -> dict[str, list[reproduction.Judged]]:
        """The paper's numbers with their verdicts, by cell name; a cell without any is left out."""
        found = {
            c.name: reproduction.judge(self.grid, c, self.paper[c.name], self.divisors.get(c.name))
            for c in self.cells
            if self.paper.get(c.name)
        }
        return {name: judged for name, judged in found.items() if judged}

    @cached_property
    def agreement(self) -> metric_agreement.Panel | None:
        """Rank agreement of the metrics. None = too few metrics or rows."""
        return metric_agreement.panel(self.grid, self.cells)

    @cached_property
    def targets(self) -> list[float]:
        """The values of the ranking metric that runs shall reach, each once."""
        return time_to_target.values(self.grid, self.cells)

    @cached_property
    def times(self) -> time_to_target.Targets | None:
        """When each cell reached its target. None = no target or no curve."""
        return time_to_target.measure(self.grid, self.cells)

    @cached_property
    def signal(self) -> signal_to_noise.Signal | None:
        """Signal to noise of the ranking metric. None = fewer than three seeds, or no spread."""
        seeds = {run.spec.config.train.seed for run in self.runs if run.status == "finished"}
        if self.ranking is None or len(seeds) < signal_to_noise.FEWEST_SEEDS:
            return None
        points = {cell.name: self.ranking.stat(cell).points for cell in self.ranking.cells}
        return signal_to_noise.signal(points, self.ranking.sign == 1)

    @cached_property
    def findings(self) -> list[tuple[Claim, Finding]]:
        """The paper's claims about this grid with their verdicts."""
        claims, _ = self._claims
        return [(claim, paper_claims.examine(claim, self.grid, self.cells)) for claim in claims]

    @property
    def claims_fault(self) -> str:
        """The reason that no claim can be examined, such as a row that was left out; else empty."""
        return self._claims[1]

    @cached_property
    def _claims(self) -> tuple[list[Claim], str]:
        if self.grid.scale not in grids.list_scales():  # runs of several, held against each other
            return [], ""
        try:
            claims = [c for c in grids.load_claims(self.grid.scale) if c.grid == self.grid.name]
            for claim in claims:
                paper_claims.check(claim, self.grid)
        except UserError as error:
            return [], str(error)
        return claims, ""
