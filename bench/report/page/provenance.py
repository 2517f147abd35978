"""Provenance of a number: its runs, protocol, data, code and machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis import feature_overlap
from bench.analysis.cells import Cell, Run
from bench.analysis.stats import mean_interval
from bench.analysis.table import Entry, Table
from bench.config import columns as vocabulary
from bench.config.columns import Column
from bench.config.extractors import EXTRACTOR_INFO
from bench.config.metrics import METRICS
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


def cards(facts: Facts) -> list[tuple[str, list[RunCard]]]:
    """Every run of every row; of one that two rows share the first has its anchor.

    A field that is at its default in one row and not in another is listed in both.
    """
    seen: set[str] = set()
    axes = {axis for run in facts.runs for axis in run.spec.axes}
    listed = axes.union(*(changed(run.spec.config) for run in facts.runs))
    found = []
    for cell in facts.cells:
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
        ("not comparable", run.incomparable),
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
    """Return the making of a column's numbers, for one row: name and text of each step."""
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


def evidence(facts: Facts, table: Table, opened: Iterable[str]) -> dict[str, Any]:
    """Return the evidence that a click on a number opens, as JSON.

    Args:
        facts: what the records say.
        table: the grid's main table.
        opened: the numbers, as `row/column`; a column that the table lacks is one of `Run.values`.
    """
    rows = dict(zip((cell.name for cell in facts.cells), table.rows, strict=True))
    cells = {cell.name: cell for cell in facts.cells}
    shown = {column.key: i for i, column in enumerate(table.columns)}
    found = {}
    for opens in dict.fromkeys(opened):
        name, _, key = opens.rpartition("/")
        if key in shown:
            column, entry = table.columns[shown[key]], rows[name].entries[shown[key]]
        elif stat := cells[name].stat(key):
            column, entry = vocabulary.column(key), Entry(stat.mean, points=stat.points)
        else:
            continue
        pairs = (
            _of_paper(facts.grid, entry)
            if column.paper
            else _of_ours(facts, cells[name], column, entry)
        )
        known = {text for _, text in pairs}  # such as the flag
        found[opens] = {
            "title": f"{column.header}{f' ({column.unit})' if column.unit else ''}",
            "row": name,
            "notes": [note for note in entry.notes if note not in known],
            "facts": [list(pair) for pair in pairs],
        }
        if not column.paper:
            found[opens]["runs"] = _values(cells[name], key)
    return found


def _of_paper(grid: Grid, entry: Entry) -> Pairs:
    return [
        ("the paper's number", "unknown" if entry.value is None else f"{entry.value:g}"),
        ("kept in", f"experiments/paper/{grid.report.paper}.csv"),
        ("how sure it is", entry.confidence or "?"),
    ]


def _of_ours(facts: Facts, cell: Cell, column: Column, entry: Entry) -> Pairs:
    pairs: Pairs = []
    if entry.value is not None:
        pairs.append(("value", f"{entry.value:.8g}"))
    if entry.std is not None:
        pairs.append(("standard deviation", f"{entry.std:.4g} over {len(entry.points)} runs"))
    if column.spread and (interval := mean_interval(entry.points)):
        kind = "lowest and highest run" if interval.kind == "range" else "95 % interval of the mean"
        pairs.append((kind, f"{interval.low:.6g} to {interval.high:.6g}"))
    if entry.compared:
        p = f" (p = {entry.p:.2g}, Holm)" if entry.p is not None else ""
        report = facts.grid.report
        pairs.append((f"against {report.compare_to or report.baseline}", entry.compared + p))
    return pairs + protocol(facts.grid, cell, column.key)


def _values(cell: Cell, key: str) -> list[list[str]]:
    """Run id, seed and value of every run of a cell."""
    rows = []
    for run in cell.runs:
        value = _value(cell, run, key)
        text = f"{value:.8g}" if value is not None else run.reason or "–"
        rows.append([run.spec.run_id, str(run.spec.config.train.seed), text])
    return rows


def _value(cell: Cell, run: Run, key: str) -> float | None:
    """Return a run's own value of a column; of a ratio the one that is divided."""
    if key == "kimg":
        return run.final.nimg / 1000 if run.final else None
    if run.status != "finished":
        return None
    kind, name = vocabulary.split(key)
    if kind not in ("best", "gap"):
        return run.value(name)
    lower = vocabulary.lower_is_better(name)
    fresh, picked = run.fresh_best(name, lower), run.best(name, lower)
    if kind == "gap":
        return None if fresh is None or picked is None else fresh - picked
    return fresh if cell.fresh_best(name, lower) else picked  # as the table has it


def revisions(facts: Facts) -> list[str]:
    """The code revisions that the finished runs were made by."""
    machines = ((run.record or {}).get("environment") or {} for run in facts.finished)
    return list(dict.fromkeys(str(machine.get("commit") or "unknown") for machine in machines))
