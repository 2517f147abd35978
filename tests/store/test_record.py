"""Records: read back checked, damaged ones named and kept, and what is still missing of a run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.config.metrics import record_key, version
from bench.config.paths import RunPaths
from bench.config.spec import EvalSpec, RunSpec
from bench.store import record as records
from bench.store.lease import Lease
from projgan.config import Config, Train
from projgan.errors import DataError

CONFIG = replace(Config(), train=Train(total_kimg=0.2, batch=50))
SPEC = RunSpec("g", "Row", {}, "lab", CONFIG, EvalSpec(("fid", "kid"), every_kimg=0.1, fake=9))

KEYS = ["copied:fid", "copied:kid"]


def snapshot(nimg: int, **metrics: float) -> dict[str, Any]:
    return {
        "nimg": nimg,
        "train_seconds": 1.0,
        "metrics": {record_key(key, "copied"): value for key, value in metrics.items()},
        "versions": {record_key(key, "copied"): version(key) for key in metrics},
        "eval": {"seconds": 1.0, "real": 5, **records.protocol(SPEC)},
    }


def record(*snapshots: dict[str, Any], **changes: Any) -> records.Record:
    return records.new(SPEC, "now") | {"snapshots": list(snapshots)} | changes


def put(runs_dir: Path, value: records.Record) -> None:
    records.save(RunPaths(runs_dir / SPEC.run_id).record, value)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    value = record(snapshot(100, fid=3.5), status="finished")
    records.save(tmp_path / "record.json", value)
    assert records.load(tmp_path / "record.json") == value
    assert records.load(tmp_path / "other.json") is None


def test_a_value_that_is_no_number_is_kept_as_missing(tmp_path: Path) -> None:
    records.save(tmp_path / "r.json", record(snapshot(100, fid=math.nan, kid=1.0)))
    loaded = records.load(tmp_path / "r.json")
    assert loaded is not None
    (found,) = loaded["snapshots"]
    assert found["metrics"] == {"copied:kid": 1.0} and "nan" in found["missing"]["copied:fid"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps(record(status="done")),
        json.dumps(record(schema="1")),
        json.dumps(record(snapshots=None)),
        json.dumps(record({"nimg": 1})),
        json.dumps(record(snapshot(1, fid="low"))),  # type: ignore[arg-type]
        json.dumps(record())[:-20],
    ],
)
def test_a_damaged_record_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        records.load(path)
    assert str(path) in str(caught.value) and "damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_record_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="damaged"):
        records.load(tmp_path / "record.json")


def test_a_record_of_a_newer_version_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(json.dumps(record(schema=records.SCHEMA + 1)))
    with pytest.raises(DataError, match="newer version"):
        records.load(tmp_path / "record.json")


def test_setting_aside_keeps_every_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for text in ("first", "second"):
        path.write_text(text)
        records.set_aside(path)
    assert not path.exists()
    assert {p.read_text() for p in tmp_path.iterdir()} == {"first", "second"}


def test_what_a_record_lacks() -> None:
    assert records.unmeasured(record(), SPEC) == {100: KEYS, 200: KEYS}
    half = record(snapshot(100, fid=1.0), snapshot(200, fid=1.0, kid=1.0))
    assert records.unmeasured(half, SPEC) == {100: ["copied:kid"]}
    half["snapshots"][0]["missing"] = {"copied:kid": "no such thing"}
    half["snapshots"][0]["versions"]["copied:kid"] = version("kid")
    assert records.unmeasured(half, SPEC) == {}


def test_values_of_another_protocol_do_not_count() -> None:
    whole = record(snapshot(100, fid=1.0, kid=1.0), snapshot(200, fid=1.0, kid=1.0))
    assert records.unmeasured(whole, SPEC) == {}
    more = replace(SPEC, eval=replace(SPEC.eval, fake=10))
    assert records.unmeasured(whole, more) == {100: KEYS, 200: KEYS}


def test_state_of_a_run(tmp_path: Path) -> None:
    def state() -> tuple[str, int]:
        found = records.run_state(SPEC, tmp_path)
        return found.state, found.nimg

    run = RunPaths(tmp_path / SPEC.run_id)
    assert state() == ("missing", 0)
    put(tmp_path, record(snapshot(100, fid=1.0, kid=1.0)))
    assert state() == ("stopped", 100)
    with Lease(run.lease):
        assert state() == ("running", 100)
    put(tmp_path, record(status="failed", error="why"))
    assert state() == ("failed", 0) and records.run_state(SPEC, tmp_path).note == "why"
    put(tmp_path, record(snapshot(200, fid=1.0), status="finished"))
    assert state() == ("finished", 200)  # nothing is left that could be measured
    assert "not kept at 0.1, 0.2 kimg; force=true" in records.run_state(SPEC, tmp_path).note
    run.snapshots_dir.mkdir()
    run.snapshot(200).touch()
    assert state() == ("incomplete", 200)
    both = snapshot(100, fid=1.0, kid=1.0), snapshot(200, fid=1.0, kid=1.0)
    put(tmp_path, record(*both, status="finished"))
    assert state() == ("finished", 200)
    run.record.write_text("{")
    assert state() == ("damaged", 0)
