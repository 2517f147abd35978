"""What stands behind a number: its runs, how it was measured, on what, by which code, where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis import feature_overlap
from bench.analysis.cells import Cell, Run
from bench.analysis.stats import mean_interval
from bench.analysis.table import Entry
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.config.metrics import EXTRACTOR_INFO, METRICS
from bench.config.spec import Grid, changed, flatten, value_name
from bench.report import manifest
from projgan.backbones.registry import describe
from projgan.config import AVERAGES

if TYPE_CHECKING:
    from bench.analysis.facts import Facts

Pairs = list[tuple[str, str]]

STATISTICS = {
    "standing": "of the averaged generator itself (standing)",
    "copied": "of the raw generator, copied into the averaged one",
    "raw": "of the raw generator itself, which is what was measured",
    **{
        name: f"of an average itself whose half-life is {factor:g} times the run's own"
        for name, factor in AVERAGES.items()
    },
}


@dataclass(frozen=True)
class RunCard:
    """All that leads from a run's number to how it came about."""

    id: str
    row: str
    seed: str
    status: str
    reason: str
    facts: Pairs
    values: Pairs  # every metric of the last snapshot
    config: Pairs  # fields that are not at their defaults, in any of the runs
    anchored: bool  # whether links to the run lead here, not to another row that shares it


def cards(cells: Sequence[Cell]) -> list[tuple[str, list[RunCard]]]:
    """Every run of every row; of one that two rows share the first has its anchor.

    A field that is at its default in one row and not in another is listed in both.
    """
    seen: set[str] = set()
    settings = [changed(run.spec.config) for cell in cells for run in cell.runs]
    axes = {axis for cell in cells for run in cell.runs for axis in run.spec.axes}
    listed = axes.union(*settings)
    found = []
    for cell in cells:
        made = [_card(run, run.spec.run_id not in seen, listed) for run in cell.runs]
        found.append((cell.name, made))
        seen |= {run.spec.run_id for run in cell.runs}
    return found


def _card(run: Run, anchored: bool, listed: Set[str]) -> RunCard:
    record, spec = run.record or {}, run.spec
    config = spec.config
    seed = f"seed {config.train.seed}"
    if config.backbone.pretrain_seed:
        seed += f", pretraining seed {config.backbone.pretrain_seed}"
    data, network = record.get("data") or {}, record.get("backbone") or {}
    machine = dict(record.get("environment") or {})
    commit = str(machine.pop("commit", "") or "")
    if machine.pop("dirty", False):
        commit += " with changes that were not committed"
    facts: Pairs = [
        ("folder", f"runs/{spec.run_id}"),
        ("data", _data(data)),
        ("data fingerprint", str(data.get("fingerprint", ""))),
        ("feature network", _network(network)),
        ("weights from", str(network.get("weights_from", ""))),
        ("weights, SHA-256", str(network.get("weights_sha256", ""))),
        ("measured", _measured(run)),
        ("code revision", commit),
        ("recipe version", str(record.get("recipe_version", ""))),
        ("configuration, SHA-256", run.config_sha256 or ""),
        ("environment", ", ".join(f"{k} {v}" for k, v in machine.items() if v is not None)),
        ("began, ended", " – ".join(str(record.get(k) or "?") for k in ("started", "ended"))),
        ("apart", run.apart),
    ]
    final = run.final
    values: Pairs = []
    for key, value in (final.metrics if final else {}).items():
        header = METRICS[key].header if key in METRICS else key
        span = final.intervals.get(key) if final else None
        more = f" (of this sample: {span[0]:.4g} to {span[1]:.4g})" if span else ""
        values.append((header, f"{value:.6g}{more}"))
    if not record:
        facts = [("folder", f"runs/{spec.run_id}")]
    shown = ((k, _public(k, v)) for k, v in flatten(config).items() if k in listed)
    return RunCard(
        spec.run_id,
        spec.label,
        seed,
        run.status,
        run.reason,
        [(name, text) for name, text in facts if text],
        values,
        [(key, value_name(key, value)) for key, value in shown],
        anchored,
    )


def _public(key: str, value: Any) -> Any:
    return manifest.public({key: value})[key]


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    images = data.get("images", "?")
    trained = data.get("trained_on", images)
    more = f", trained on {trained} of them" if trained != images else ""
    return f"{data.get('name', '?')}, {images} images{more}"


def _network(network: Mapping[str, Any]) -> str:
    parts = [network.get("label") or network.get("name"), network.get("weights")]
    parts += [network.get("pretraining")]
    return ", ".join(str(part) for part in parts if part)


def _measured(run: Run) -> str:
    if not run.final:
        return ""
    done = run.final.eval
    fake, real = done.get("fake", "?"), done.get("real", "?")
    return f"{fake} generated against {real} real images after {run.final.nimg} images of training"


def protocol(grid: Grid, cell: Cell, key: str) -> Pairs:
    """How the numbers of a column are made, for one row."""
    metric = vocabulary.metric_of(key)
    if metric is None:
        return []
    info = METRICS[metric]
    network = EXTRACTOR_INFO[info.extractor]
    label, learned = network.label, network.pretraining
    if info.extractor == "levels":
        judge = describe(cell.spec.levels_backbone)
        label, learned = f"{judge.label} ({judge.weights})", judge.pretraining
    found = [
        ("number", f"{info.header}: {info.compute.text}"),
        ("better", "lower" if info.lower_is_better else "higher"),
        ("features of", label + (f", output {info.output}" if info.output else "")),
        ("which learned from", learned or ""),
    ]
    if info.generated:
        found.append(("batch-norm statistics", STATISTICS[info.norms or grid.eval.norms]))
    kind, _ = vocabulary.split(key)
    if kind == "rel":
        found.append(("divided by", f"the mean of {grid.report.baseline}; each run's below is not"))
    if kind in ("best", "gap"):
        found.append(("snapshot", "the best of each run"))
    if (said := feature_overlap.of_cell(cell, metric)).reason:
        found.append(("flag", said.reason))
    return [(name, text) for name, text in found if text]


def of_cell(
    grid: Grid, cell: Cell, column: Column, entry: Entry, footnotes: Mapping[str, str]
) -> dict[str, Any]:
    """What a click on a number of the main table opens, as JSON."""
    found: dict[str, Any] = {
        "title": f"{column.header}{f' ({column.unit})' if column.unit else ''}",
        "row": cell.name,
        "notes": [note for note in entry.notes if note in footnotes],
    }
    if column.paper:
        source = f"experiments/paper/{grid.report.paper}.csv"
        found["facts"] = [
            ["the paper's number", "unknown" if entry.value is None else f"{entry.value:g}"],
            ["kept in", source],
            ["how sure it is", entry.confidence or "?"],
        ]
        return found
    facts: Pairs = []
    if entry.value is not None:
        facts.append(("value", f"{entry.value:.8g}"))
    if entry.std is not None:
        facts.append(("standard deviation", f"{entry.std:.4g} over {len(entry.points)} runs"))
    if column.spread and (interval := mean_interval(entry.points)):
        kind = "lowest and highest run" if interval.kind == "range" else "95 % interval of the mean"
        facts.append((kind, f"{interval.low:.6g} to {interval.high:.6g}"))
    if entry.compared:
        p = f" (p = {entry.p:.2g}, Holm)" if entry.p is not None else ""
        name = grid.report.compare_to or grid.report.baseline
        facts.append((f"against {name}", entry.compared + p))
    facts += protocol(grid, cell, column.key)
    told = {text for _, text in facts}  # such as the flag
    found["notes"] = [note for note in found["notes"] if note not in told]
    found["facts"] = [list(pair) for pair in facts]
    found["runs"] = _values(cell, column.key)
    return found


def of_numbers(facts: Facts, wanted: Iterable[str]) -> dict[str, Any]:
    """The evidence of numbers outside of the main table, by `row/key`, as JSON."""
    by_name = {cell.name: cell for cell in facts.cells}
    found = {}
    for opens in wanted:
        name, _, key = opens.rpartition("/")
        if stat := by_name[name].stat(key):
            entry = Entry(stat.mean, points=stat.points)
            found[opens] = of_cell(facts.grid, by_name[name], vocabulary.column(key), entry, {})
    return found


def _values(cell: Cell, key: str) -> list[list[str]]:
    """Run id, seed and value of every run of a cell."""
    rows = []
    for run in cell.runs:
        name = vocabulary.split(key)[1]
        lower = vocabulary.lower_is_better(name)
        if key.startswith(("best:", "gap:")):
            value, picked = run.fresh_best(name, lower), run.best(name, lower)
            if key.startswith("gap:") and value is not None and picked is not None:
                value -= picked
        else:
            value = run.value(name) if run.status == "finished" else None
        if key == "kimg" and run.final:
            value = run.final.nimg / 1000
        seed = str(run.spec.config.train.seed)
        said = f"{value:.8g}" if value is not None else ""
        rows.append([run.spec.run_id, seed, said or (run.reason if run.reason else "–")])
    return rows


def revisions(cells: Sequence[Cell]) -> list[str]:
    """The code revisions that the finished runs were made by."""
    found = (
        str(((run.record or {}).get("environment") or {}).get("commit") or "unknown")
        for cell in cells
        for run in cell.finished
    )
    return list(dict.fromkeys(found))
