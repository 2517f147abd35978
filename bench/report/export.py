"""All records of a grid as one flat table, as CSV and parquet, and as TensorBoard's scalars."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from bench.analysis.cells import FIELDS, Run
from bench.config.metrics import METRICS
from bench.config.spec import changed, value_name
from projgan.errors import UserError

# Columns of every line, in this order, before the settings, the metrics and the costs.
HEADS = ("row", "run_id", "seed", "pretrain_seed", "status", "reason", "images", "train_seconds",
         "fake", "real")  # fmt: skip
TAIL = ("data", "fingerprint", "commit", "device", "config")


def wide_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One line per run and snapshot, as Python's own values; None where a line has no value.

    A run without a snapshot has one line, so that nothing that failed or is missing is left out.
    """
    axes = list(dict.fromkeys(axis for run in runs for axis in run.spec.axes))
    found = {key for run in runs for point in run.points for key in point.metrics}
    metrics = [key for key in METRICS if key in found] + sorted(found - METRICS.keys())
    lines = []
    for run in runs:
        record: Mapping[str, Any] = run.record or {}
        config, data = run.spec.config, record.get("data") or {}
        machine = record.get("environment") or {}
        head = {
            "row": run.spec.row,
            "run_id": run.spec.run_id,
            "seed": config.train.seed,
            "pretrain_seed": config.backbone.pretrain_seed,
            "status": run.status,
            "reason": run.reason or run.incomparable,
            **{axis: _shown(axis, value) for axis, value in run.spec.axes.items()},
            **{key: run.values[key] for key in FIELDS if key in run.values},
            "data": data.get("name"),
            "fingerprint": data.get("fingerprint"),
            "commit": machine.get("commit"),
            "device": machine.get("device"),
            "config": json.dumps(changed(config), sort_keys=True),
        }
        points = [
            {
                "images": point.nimg,
                "train_seconds": point.train_seconds,
                "fake": point.eval.get("fake"),
                "real": point.eval.get("real"),
                **point.metrics,
            }
            for point in run.points
        ]
        lines += [head | point for point in points or [{}]]
    columns = dict.fromkeys([*HEADS, *axes, *metrics, *FIELDS, *TAIL])
    return pd.DataFrame(lines, columns=list(columns), dtype=object)


def to_csv(runs: Sequence[Run]) -> bytes:
    """`records.csv`: full precision, empty where there is no value."""
    return str(wide_table(runs).to_csv(index=False, lineterminator="\n")).encode()


def to_parquet(runs: Sequence[Run]) -> dict[str, bytes]:
    """`records.parquet`: the same with types; numbers are 64 bit.

    Raises:
        UserError: pyarrow is not installed.
    """
    data, out = wide_table(runs), io.BytesIO()
    data = data.astype({name: _dtype(data[name]) for name in data})
    try:
        data.to_parquet(out, engine="pyarrow", index=False)
    except ImportError:
        raise _not_installed("parquet", "pyarrow") from None
    return {"records.parquet": out.getvalue()}


def _dtype(column: pd.Series[Any]) -> str:
    """The type of a column of Python's own values."""
    kinds = set(column.dropna().map(type))
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds and kinds <= {int, float} else "string"


def _not_installed(form: str, package: str) -> UserError:
    return UserError(
        f"export={form} needs {package}: pip install 'projected-gan-bench[export]' (records.csv "
        "holds the same without it)"
    )


def to_tensorboard(runs: Sequence[Run]) -> dict[str, bytes]:
    """`tensorboard/<row>/seed=<n>-<id>/events.out.tfevents`: what TensorBoard shows of each run.

    Every metric of every snapshot, by images shown; the clock is the start of the run and its
    training time. A run without a snapshot has no file. The same records give the same bytes, which
    torch's SummaryWriter would not: its files bear the host's name and the time of writing.

    Raises:
        UserError: tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise _not_installed("tensorboard", "tensorboard") from None
    files = {}
    for run in runs:
        if not run.points:
            continue
        began = _began(run)
        out = io.BytesIO()
        writer = RecordWriter(out)
        writer.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        for point in run.points:
            scalars = {**point.metrics, "train_seconds": point.train_seconds}
            values = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in scalars.items()
                if value is not None
            ]
            at = began + point.train_seconds
            event = Event(wall_time=at, step=point.nimg, summary=Summary(value=values))
            writer.write(event.SerializeToString())
        row = re.sub(r"[^a-z0-9.=+]+", "-", run.spec.label.lower()).strip("-.") or "row"
        seed = f"seed={run.spec.config.train.seed}-{run.spec.run_id}"
        files[f"tensorboard/{row}/{seed}/events.out.tfevents"] = out.getvalue()
    return files


def _began(run: Run) -> float:
    """Seconds since 1970; 0 = the record does not say."""
    try:
        return datetime.fromisoformat(str((run.record or {}).get("started"))).timestamp()
    except ValueError:
        return 0.0


def _shown(axis: str, value: Any) -> Any:
    """A number as it is, anything else by its name: an empty cell is read as a missing value."""
    return value if type(value) in (int, float) else value_name(axis, value)


EXPORTS: dict[str, Callable[[Sequence[Run]], dict[str, bytes]]] = {
    "parquet": to_parquet,
    "tensorboard": to_tensorboard,
}
