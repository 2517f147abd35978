"""All records of a grid as one flat table: a line for each run and snapshot, as CSV and parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.aggregate import FIELDS, Run
from bench.metrics.table import METRICS
from bench.spec import changed
from projgan.errors import UserError

# Columns of every line, in this order, before the settings, the metrics and the costs.
HEADS = ("row", "run_id", "seed", "pretrain_seed", "status", "reason", "images", "train_seconds",
         "fake", "real")  # fmt: skip
TAIL = ("data", "fingerprint", "commit", "device", "config")


def flat(runs: Sequence[Run]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and lines of the table; what a line lacks is not in it.

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
            "reason": run.reason or run.apart,
            **{axis: _plain(run.spec.axes.get(axis)) for axis in axes},
            **{key: value for key in FIELDS if (value := run.value(key)) is not None},
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
    columns = [*HEADS, *axes, *metrics, *FIELDS, *TAIL]
    return list(dict.fromkeys(columns)), lines


def to_csv(runs: Sequence[Run]) -> bytes:
    """`records.csv`: full precision, empty where there is no value."""
    columns, lines = flat(runs)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in line.items()} for line in lines)
    return out.getvalue().encode()


def to_parquet(runs: Sequence[Run]) -> bytes:
    """`records.parquet`: the same with types; numbers are 64 bit.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            "export=parquet needs pyarrow: pip install 'projected-gan-bench[export]' (records.csv "
            "holds the same without it)"
        ) from None
    columns, lines = flat(runs)
    made = {}
    for name in columns:
        values = [line.get(name) for line in lines]
        kinds = {type(value) for value in values if value is not None}
        if kinds and kinds <= {int, float}:
            kind = arrow.int64() if kinds == {int} else arrow.float64()
        else:
            kind = arrow.string()
            values = [None if value is None else str(value) for value in values]
        made[name] = arrow.array(values, kind)
    out = io.BytesIO()
    parquet.write_table(arrow.table(made), out)
    return out.getvalue()


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)


EXPORTS = {"parquet": ("records.parquet", to_parquet)}
