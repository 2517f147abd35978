"""record.json: all that is known of a run. Read back checked, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.config.metrics import EVAL_NORMS, METRICS, grid_key, metric_keys, record_key, version
from bench.config.paths import RunPaths
from bench.config.spec import RECIPE_VERSION, RunSpec
from bench.store.lease import holder, leased
from projgan.backbones.registry import describe
from projgan.config import Backbone
from projgan.errors import DataError, UserError
from projgan.files import write_json_atomic

SCHEMA = 2
BY_CONTENT = "by content"  # how the real images are chosen where `eval.real` limits them
STATUSES = ("running", "finished", "failed")

Record = dict[str, Any]


class DamagedRecord(DataError):
    """A record whose content is of no use; what stands beside it still is."""


def now() -> str:
    """Date and time in UTC, as records have them."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new(spec: RunSpec, started: str) -> Record:
    """The record of a run that begins."""
    config = spec.to_json()["config"]
    return {
        "schema": SCHEMA,
        "run_id": spec.run_id,
        "status": "running",
        "error": None,
        "scale": spec.scale,
        "recipe_version": RECIPE_VERSION,
        "config": config,
        "backbone": None,
        "params": {},
        "data": {},
        "snapshots": [],
        "throughput": {},
        "memory": {},
        "time": {"train_s": 0.0, "eval_s": 0.0, "total_s": 0.0},
        "environment": {},
        "started": started,
        "ended": None,
    }


def load(path: Path) -> Record | None:
    """Reads and checks a record. None = there is none.

    Raises:
        DamagedRecord: the content is of no use; the line names the file and the remedy.
        DataError: the file cannot be read, or a newer version wrote it: it is left as it is.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DamagedRecord(f"{path}: damaged record (not JSON); {_REMEDY}") from None
    if not isinstance(record, dict):
        raise DamagedRecord(f"{path}: damaged record (no fields); {_REMEDY}")
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise DataError(f"{path}: written by a newer version (schema {schema}); update this one")
    if fault := _fault(record):
        raise DamagedRecord(f"{path}: damaged record ({fault}); {_REMEDY}")
    return _upgraded(record)


def _upgraded(record: Record) -> Record:
    """A record of schema 1, which knew one kind of norms and of pictures: the copied ones."""
    if record["schema"] == SCHEMA:
        return record
    for snapshot in record["snapshots"]:
        for part in {"metrics", "missing", "intervals", "certificates"} & snapshot.keys():
            snapshot[part] = {
                record_key(key, "copied"): value for key, value in snapshot[part].items()
            }
        if "samples" in snapshot:
            snapshot["samples"] = {"copied": snapshot["samples"]}
    if isinstance(record.get("best"), dict):
        record["best"] = {record_key(key, "copied"): value for key, value in record["best"].items()}
    return record | {"schema": SCHEMA}


def save(path: Path, record: Record) -> None:
    """Writes a record; a value that is not finite is kept as missing, never as a number."""
    for snapshot in record["snapshots"]:
        metrics = snapshot["metrics"]
        for key in [k for k, v in metrics.items() if not math.isfinite(v)]:
            snapshot.setdefault("missing", {})[key] = f"came out as {metrics.pop(key)}"
    write_json_atomic(path, record)


def set_aside(path: Path) -> Path:
    """Moves a damaged file out of the way and keeps it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return path.replace(aside)


def protocol(spec: RunSpec) -> dict[str, Any]:
    """What a measured value depends on beside the snapshot; kept with it in `eval`."""
    found = {
        "fake": spec.eval.fake,
        "real_limit": spec.eval.real,
        "levels": _weights(spec.levels_backbone),
    }
    return found | ({"real_chosen": BY_CONTENT} if spec.eval.real else {})


@cache
def _weights(judge: Backbone) -> str:
    size = f" at {judge.input_size} px" if judge.input_size else ""
    return describe(judge).weights + size


def same_protocol(snapshot: Mapping[str, Any], spec: RunSpec) -> bool:
    """Whether a snapshot was measured as `spec` asks for."""
    done = snapshot.get("eval", {})
    return all(done.get(name) == value for name, value in protocol(spec).items())


def is_of_first_images(values: Mapping[str, Any]) -> bool:
    """Whether a snapshot's real side was the first `eval.real` images of the files' order.

    Records had no `real_chosen` while that was so; a value of other real images is stale.
    """
    done = values.get("eval") or {}
    return bool(done.get("real_limit")) and done.get("real_chosen") != BY_CONTENT


def is_stale(values: Mapping[str, Any], key: str) -> bool:
    """Whether a value was computed by another version than today's.

    Args:
        values: a snapshot, or what is known of a best one.
        key: of the record.
    """
    return bool(values.get("versions", {}).get(key, 1) != version(key))


def only_in_training(key: str) -> bool:
    """Whether a value needs what only training has at hand: the raw generator, averages of other
    half-lives, the discriminator.

    It is not measured again: where it is stale there is none.
    """
    return METRICS[key].norms not in ("", *EVAL_NORMS) or not METRICS[key].generated


def wanted_keys(spec: RunSpec) -> list[str]:
    """The keys of a record that `spec` asks for at each snapshot."""
    return [record_key(key, spec.eval.norms) for key in metric_keys(spec.eval.metrics)]


def unmeasured(
    record: Mapping[str, Any], spec: RunSpec, at: Sequence[int] | None = None
) -> dict[int, list[str]]:
    """What `spec` wants measured and the record does not hold: images -> keys of the record.

    Args:
        at: numbers of images to look at. None = those of `spec`.
    """
    keys = wanted_keys(spec)
    found = {snapshot["nimg"]: snapshot for snapshot in record["snapshots"]}
    missing: dict[int, list[str]] = {}
    for nimg in spec.snapshot_at if at is None else at:
        there: set[str] = set()
        if (snapshot := found.get(nimg)) and same_protocol(snapshot, spec):
            fresh = {key for key in keys if not is_stale(snapshot, key) or only_in_training(key)}
            there = fresh & {*snapshot["metrics"], *snapshot.get("missing", {})}
        if lacking := [key for key in keys if key not in there]:
            missing[nimg] = lacking
    return missing


def measurable(
    record: Mapping[str, Any], spec: RunSpec, run: RunPaths, at: Sequence[int] | None = None
) -> dict[int, list[str]]:
    """What `unmeasured` names and can still be measured, were training at its end.

    A snapshot needs its generator; that of the last one is in the checkpoint too.
    """
    return {
        nimg: keys
        for nimg, keys in unmeasured(record, spec, at).items()
        if run.snapshot(nimg).exists() or (nimg == spec.total_images and run.checkpoint.exists())
    }


def best_chosen(record: Mapping[str, Any], spec: RunSpec) -> dict[str, tuple[int, float]]:
    """Keys of `eval.best` in the record -> images and value of their best snapshot, the first
    where equal.
    """
    curves: dict[str, list[tuple[float, int]]] = {}
    for snapshot in record["snapshots"]:
        for name in spec.eval.best if same_protocol(snapshot, spec) else ():
            key = record_key(name, spec.eval.norms)
            value = snapshot["metrics"].get(key)
            if value is not None and not is_stale(snapshot, key):
                sign = 1 if METRICS[key].lower_is_better else -1
                curves.setdefault(key, []).append((sign * value, snapshot["nimg"]))
    chosen = {key: min(points) for key, points in curves.items()}
    return {
        key: (nimg, value if METRICS[key].lower_is_better else -value)
        for key, (value, nimg) in chosen.items()
    }


def best_due(record: Mapping[str, Any], spec: RunSpec, run: RunPaths) -> dict[int, list[str]]:
    """Best snapshots to be measured again on fresh samples, and can be: images -> metric keys."""
    found = record.get("best") or {}
    due: dict[int, list[str]] = {}
    for key, (nimg, value) in best_chosen(record, spec).items():
        done = found.get(key, {})
        same = (done.get("nimg"), done.get("chosen")) == (nimg, value)
        same = same and done.get("version", 1) == version(key)
        if not (same and same_protocol(done, spec)) and run.snapshot(nimg).exists():
            due.setdefault(nimg, []).append(key)
    return due


State = Literal[
    "finished", "incomplete", "queued", "running", "hung", "stopped", "failed", "missing", "damaged"
]


@dataclass(frozen=True)
class RunState:
    """Where a run stands, as plan and status show it."""

    state: State
    nimg: int = 0
    metrics: Mapping[str, float] | None = None  # of the last snapshot
    note: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do unasked."""
        return self.state in ("finished", "failed")

    @property
    def taken(self) -> bool:
        """Whether a process or a job has the run."""
        return self.state in ("queued", "running", "hung")


def run_state(spec: RunSpec, runs_dir: Path) -> RunState:
    """Reads where a run stands; never raises for a damaged record."""
    run = RunPaths(runs_dir / spec.run_id)
    claim = holder(run.lease)
    try:
        record = load(run.record)
    except UserError as error:
        return RunState("damaged", note=str(error))
    snapshots = record["snapshots"] if record else []
    nimg = max([s["nimg"] for s in snapshots] + [claim.nimg if claim else 0])
    metrics = _latest(snapshots[-1], spec) if snapshots else None
    if claim and (why := claim.hangs):
        return RunState("hung", nimg, metrics, f"{why}; end it and run the same command again")
    if claim:
        return RunState("running", nimg, metrics, f"by {claim.who}")
    if record is None:
        return RunState("stopped" if run.checkpoint.exists() else "missing")
    if record["status"] == "failed":
        return RunState("failed", nimg, metrics, record["error"] or "")
    if record["status"] == "running":
        return RunState("stopped", nimg, metrics, record.get("error") or "")
    if missing := measurable(record, spec, run):
        return RunState("incomplete", nimg, metrics, _to_measure(record, missing))
    if again := best_due(record, spec, run):
        names = sorted({key for keys in again.values() for key in keys})
        return RunState("incomplete", nimg, metrics, f"to measure at the best: {', '.join(names)}")
    return RunState("finished", nimg, metrics, not_kept(unmeasured(record, spec)))


def _latest(snapshot: Mapping[str, Any], spec: RunSpec) -> dict[str, float]:
    """What is known of a snapshot today, by the keys of the grid."""
    metrics = () if is_of_first_images(snapshot) else snapshot["metrics"].items()
    return {grid_key(k, spec.eval.norms): v for k, v in metrics if not is_stale(snapshot, k)}


def _to_measure(record: Record, missing: Mapping[int, Sequence[str]]) -> str:
    """What is not measured, and what is stale, as a note of plan."""
    stale = {
        f"{key} (version {snapshot.get('versions', {}).get(key, 1)}, now {version(key)})"
        for snapshot in record["snapshots"]
        for key in missing.get(snapshot["nimg"], ())
        if key in snapshot["metrics"] and is_stale(snapshot, key)
    }
    names = {key for keys in missing.values() for key in keys}
    names -= {name.partition(" ")[0] for name in stale}
    said = (("to measure", names), ("stale, to measure again", stale))
    return "; ".join(f"{what}: {', '.join(sorted(found))}" for what, found in said if found)


def mark_stale(spec: RunSpec, run: RunPaths) -> None:
    """Marks what `spec` asks for to be measured again, where the generator was kept.

    The values stay until others take their place; their version, 0, is that of no computation.

    Raises:
        RunIsTaken: a process is at work on it.
    """
    if not run.record.exists():
        return
    again = {key: 0 for key in wanted_keys(spec) if not only_in_training(key)}
    with leased(run.lease), suppress(DamagedRecord):  # that one is set aside and all is measured
        record = load(run.record) or new(spec, "")
        for snapshot in record["snapshots"]:
            if run.snapshot(snapshot["nimg"]).exists():
                snapshot["versions"] = snapshot.get("versions", {}) | again
        save(run.record, record)


def not_kept(nimgs: Iterable[int]) -> str:
    """Why snapshots of a finished run stay unmeasured; empty = none does."""
    places = ", ".join(f"{nimg / 1000:g}" for nimg in nimgs)
    return f"not kept at {places} kimg; force=true trains again" if places else ""


_REMEDY = "running the same command again sets it aside and measures what was kept"


_KINDS = {
    "run_id": str, "config": dict, "snapshots": list, "time": dict, "data": dict, "params": dict,
    "throughput": dict, "memory": dict, "environment": dict,
}  # fmt: skip


def _fault(record: Record) -> str:
    """What is wrong with a record; empty = nothing."""
    if record.get("schema") not in (1, SCHEMA):
        return f"schema is {record.get('schema')!r}"
    if record.get("status") not in STATUSES:
        return f"status is {record.get('status')!r}"
    for name, kind in _KINDS.items():
        if not isinstance(record.get(name), kind):
            return f"{name} is missing or of the wrong kind"
    network = record.get("backbone") or {}
    if not (isinstance(network, dict) and isinstance(network.get("accuracy_kind") or "", str)):
        return "the backbone is of the wrong kind"
    if not all(_is_number(record["time"].get(name)) for name in ("train_s", "eval_s", "total_s")):
        return "time is no time"
    pictures = str if record["schema"] == 1 else dict
    for snapshot in record["snapshots"]:
        ok = (
            isinstance(snapshot, dict)
            and isinstance(snapshot.get("nimg"), int)
            and isinstance(snapshot.get("metrics"), dict)
            and all(_is_number(v) for v in snapshot["metrics"].values())
            and _is_number(snapshot.get("train_seconds"))
            and isinstance(snapshot.get("missing", {}), dict)
            and isinstance(snapshot.get("versions", {}), dict)
            and isinstance(done := snapshot.get("eval", {}), dict)
            and all(isinstance(done.get(name), int | None) for name in ("fake", "real"))
            and isinstance(shown := snapshot.get("samples", pictures()), pictures)
            and all(isinstance(path, str) for path in shown)
        )
        if not ok:
            return "a snapshot is not whole"
    return ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
