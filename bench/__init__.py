"""The harness around `projgan`: grids of runs, their measurements, reports.

`load_results` is its door for Python: every measured value as a pandas DataFrame.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

__all__ = ["load_results"]


def load_results(runs_dir: str | Path = "runs", grid: str | None = None) -> pandas.DataFrame:
    """Load every measured value below a folder of runs: `bench.analysis.results.load_results`.

    pandas is imported at the first call, so that plans and lists start without it.
    """
    from bench.analysis import results

    return results.load_results(runs_dir, grid)
