"""What jobs ask for, how runs become jobs, what the queue's words mean; without a cluster."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typed_commands import GRID

from bench.cli import main
from bench.config import grid as grids
from bench.config import slurm_settings
from bench.config.metrics import METRICS
from bench.config.paths import ROOT, SOURCE_NOTE, RunPaths
from bench.config.schema import SlurmFile
from bench.config.spec import RunSpec
from bench.dispatch import slurm, slurm_job, slurm_queue
from bench.dispatch.code_snapshot import freeze
from bench.dispatch.slurm_queue import Entry, Queue
from bench.store import record as records
from bench.store.environment import checkout
from bench.store.eta import estimate
from bench.store.lease import Lease
from projgan.errors import UserError
from projgan.files import write_json_atomic

WITH_RESOURCES = GRID.replace(
    "{label: Two, ", "{label: Two, resources: {gpus: 4, time: 600}, "
).replace("rows:", "resources: {gpus: 2, mem_gb: 20}\nrows:")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("made.yaml").write_text(WITH_RESOURCES)
    return tmp_path


@pytest.fixture
def typed(made: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    def type_(command: str) -> tuple[int, str, str]:
        status = main.main(command.split())
        return (status, *capsys.readouterr())

    return type_


Typed = Callable[[str], tuple[int, str, str]]


def runs() -> tuple[RunSpec, ...]:
    return grids.load("made.yaml").runs


# Settings


def test_the_command_line_wins_over_the_grid_and_the_grid_over_the_file(made: Path) -> None:
    (made / "mine.yaml").write_text("{partition: gpu, gpus: 1, time: 60, cpus: 8}")
    rows = {row.label: row.resources for row in grids.load("made.yaml").rows}
    assert rows["One"] == {"gpus": 2, "mem_gb": 20.0}

    def asked(row: str, *texts: str) -> SlurmFile:
        return slurm_settings.settings(Path("mine.yaml"), texts, rows[row])

    assert (asked("One").gpus, asked("One").time, asked("One").mem_gb) == (2, 60, 20)
    assert (asked("Two").gpus, asked("Two").time, asked("Two").cpus) == (4, 600, 8)
    assert asked("Two", "gpus=1", "constraint=a100|h100").gpus == 1
    assert asked("Two", "constraint=a100|h100").constraint == "a100|h100"
    assert slurm_settings.settings(None) == SlurmFile()  # the file that ships says the same


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("dispatch=slurm dispatch.partitio=gpu", "Did you mean 'dispatch.partition'"),
        ("dispatch=slurm dispatch.time=long", "time=long"),
        ("dispatch=slurm dispatch.time=0", "give 1 or more"),
        ("dispatch=slurm dispatch.time=1", "requeued before it begins"),
        ("dispatch=slurm dispatch.time=1:2:3:4", "give minutes, or DAYS-HOURS:MINUTES:SECONDS"),
        ("dispatch=slurm dispatch.time=-5", "dispatch.time=-5: give minutes"),
        ("dispatch=slurm dispatch.gpus=two", "TYPE:HOW MANY as a100:2"),
        ("dispatch=slurm dispatch.gpus=a100:", "TYPE:HOW MANY as a100:2"),
        ("dispatch=slurm dispatch.gpus=-1", "TYPE:HOW MANY as a100:2"),
        ("dispatch=slurm dispatch.setup=[reboot]", "write it into"),
        ("dispatch=slurm dispatch.options={hold:1}", "write it into"),
        ("dispatch=slurm dispatch.partition=a;reboot", "give a name as sbatch takes it"),
        ("dispatch=slurm dispatch.dry_run=perhaps", "true or false"),
        ("dispatch.time=60", "give dispatch=slurm"),
        ("dispatch=slurm gpus_per_run=2", "a job has dispatch.gpus"),
        ("dispatch=nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("dispatch=slrm", "Did you mean 'slurm'"),
    ],
)
def test_what_is_refused(typed: Typed, made: Path, command: str, words: str) -> None:
    status, out, err = typed(f"grid=made.yaml {command}")
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert words in err and not out
    assert [path.name for path in made.iterdir()] == ["made.yaml"]


@pytest.mark.parametrize(
    "resources",
    ["{setup: [reboot]}", "{options: {hold: ''}}", '{partition: "a\\nreboot"}', "{gpus: -1}",
     "{gpus: many}", "{constraint: 'a b'}"],
)  # fmt: skip
def test_a_grid_from_elsewhere_puts_no_words_into_a_shell(
    typed: Typed, made: Path, resources: str
) -> None:
    (made / "made.yaml").write_text(GRID.replace("rows:", f"resources: {resources}\nrows:"))
    status, _, err = typed("grid=made.yaml do=plan")
    assert status == 2 and err.count("\n") == 1 and "made.yaml" in err


def test_without_sbatch_it_says_so(
    typed: Typed, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.preflight.check", lambda *args: None)
    monkeypatch.setenv("PATH", "")
    status, _, err = typed("grid=made.yaml dispatch=slurm")
    assert status == 1 and "sbatch is not on this machine" in err and err.count("\n") == 1


# Jobs


def test_alike_runs_share_an_array_and_small_ones_a_job(made: Path) -> None:
    rows = {row.label: row.resources for row in grids.load("made.yaml").rows}

    def split(*texts: str) -> list[tuple[int, list[list[str]]]]:
        found = slurm.arrays(
            runs(), lambda run: slurm_settings.settings(None, texts, rows[run.row])
        )
        return [(asked.gpus, [[r.row for r in pack] for pack in part]) for part, asked in found]

    assert split("max_array=9") == [(2, [["One"], ["Three"]]), (4, [["Two"]])]
    assert split("max_array=9", "runs_per_job=2") == [(2, [["One", "Three"]]), (4, [["Two"]])]
    assert split("max_array=1", "gpus=1", "mem_gb=1", "time=600") == [
        (1, [["One"]]), (1, [["Two"]]), (1, [["Three"]]),
    ]  # fmt: skip


def test_the_runs_of_a_job_share_its_gpus(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [slurm_job.share(4, runs) for runs in (1, 2, 3, 9)] == [4, 2, 1, 1] and slurm_job.share(
        0, 1
    ) == 1
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(UserError, match=r"train\.batch=32 cannot be shared by 5 GPUs"):
        slurm.submit("made", runs(), made / "runs", made, lambda run: SlurmFile(gpus=5), print)
    assert not (made / "runs").exists()


def test_a_dry_run_prints_the_scripts_and_leaves_nothing(typed: Typed, made: Path) -> None:
    (made / "mine.yaml").write_text(
        "{setup: ['module load cuda'], warning: 90, parallel: 1, "
        "options: {exclude: 'node[3,4]', hold: true}}"
    )
    status, out, err = typed("grid=made.yaml dispatch=mine.yaml dispatch.dry_run=true")
    assert status == 0 and not err and out.count("#!/bin/bash") == 2
    for line in ("--array=0-1%1", "--gpus-per-node=2", "--gpus-per-node=4", "--time=600",
                 "--mem=20480M", "--signal=USR2@90", "--requeue",
                 "--exclude='node[3,4]'", "--hold"):  # fmt: skip
        assert f"#SBATCH {line}\n" in out, line
    assert out.index("module load cuda") < out.index("export PYTHONPATH=") < out.index("srun ")
    assert sorted(path.name for path in made.iterdir()) == ["made.yaml", "mine.yaml"]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("4:00:00", 240), ("04:30:00", 270), ("2-00:00:00", 2880),
     ("1-12", 2160), ("1-12:30", 2190), ("0-0:1:1", 2)],
)  # fmt: skip
def test_a_time_is_read_as_sbatch_reads_it(
    typed: Typed, made: Path, text: str, minutes: int
) -> None:
    (made / "made.yaml").write_text(GRID)
    (made / "mine.yaml").write_text(f"{{time: {text}, warning: 30}}")
    for asked in (f"slurm dispatch.time={text} dispatch.warning=30", "mine.yaml"):
        status, out, err = typed(f"grid=made.yaml only=One dispatch={asked} dispatch.dry_run=true")
        assert status == 0 and f"#SBATCH --time={minutes}\n" in out, err


def test_gpus_may_have_a_type(typed: Typed, made: Path) -> None:
    resources = "resources: {gpus: a100:4, time: 1-00}"
    (made / "made.yaml").write_text(GRID.replace("rows:", f"{resources}\nrows:"))
    (made / "mine.yaml").write_text("{gpus: h100:2}")
    for command, asked in {
        "dispatch=slurm": "a100:4",
        "dispatch=mine.yaml dispatch.gpus=2": "a100:2",
        "dispatch=mine.yaml dispatch.gpus=v100:8": "v100:8",
    }.items():
        out = typed(f"grid=made.yaml only=One {command} dispatch.dry_run=true")[1]
        assert f"#SBATCH --gpus-per-node={asked}\n" in out and "#SBATCH --time=1440\n" in out
    out = typed("grid=made.yaml only=One dispatch=slurm dispatch.gpus=0 dispatch.dry_run=true")[1]
    assert "--gpus" not in out
    (made / "mine.yaml").write_text("{gpus: many}")
    status, _, err = typed("grid=made.yaml dispatch=mine.yaml")
    assert status == 2 and "mine.yaml: dispatch.gpus=many" in err


def test_what_submitit_adds_can_be_left_out(typed: Typed, made: Path) -> None:
    command = "grid=made.yaml only=One dispatch=mine.yaml dispatch.dry_run=true"
    (made / "mine.yaml").write_text("{gpus: 1}")
    assert "--wckey=submitit" in typed(command)[1]
    (made / "mine.yaml").write_text("{options: {wckey: false, nodes: off, requeue: no, hold: yes}}")
    status, out, err = typed(command)
    assert status == 0 and "#SBATCH --hold\n" in out, err
    assert not any(f"--{name}" in out for name in ("wckey", "nodes", "requeue"))
    (made / "mine.yaml").write_text("{options: {output: false}}")
    status, _, err = typed(command)
    assert status == 2 and "dispatch.options: output: jobs are found and warned by it" in err


def test_what_is_unpickled_lies_in_a_folder_of_our_own(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / ".slurm"
    folder.mkdir(parents=True, mode=0o777)
    assert slurm._private(folder) == folder and folder.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to("/")
    if os.getuid():
        with pytest.raises(UserError, match="belongs to another user"):
            slurm._private(link)
    else:
        os.chown(folder, 1, 1)
        with pytest.raises(UserError, match="belongs to another user"):
            slurm._private(folder)


def test_a_copy_of_the_source_is_named_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = freeze(tmp_path)
    assert freeze(tmp_path) == first and first.parent == tmp_path / ".slurm" / "source"
    for name in ("bench/dispatch/slurm.py", "projgan/train.py", "experiments/scales/lab.yaml"):
        assert (first / name).read_bytes() == (ROOT / name).read_bytes()
    assert any(first.rglob("*.safetensors")) and not any(first.rglob("__pycache__"))
    assert checkout(first) == checkout(ROOT) != (None, None)
    assert json.loads((first / SOURCE_NOTE).read_text())["commit"] == checkout(ROOT)[0]

    other = tmp_path / "other"
    (other / "bench").mkdir(parents=True)
    (other / "bench" / "new.py").write_text("x = 1")
    monkeypatch.setattr(
        "bench.dispatch.code_snapshot.ROOT", other
    )  # no git there: the packages alone
    second = freeze(tmp_path)
    assert second != first and (second / "bench" / "new.py").exists()
    (other / "bench" / "new.py").write_text("x = 2")
    assert freeze(tmp_path) != second


def prepared(made: Path) -> tuple[RunSpec, RunPaths, slurm_job.Job]:
    """A run of a job with a limit of an hour."""
    spec = runs()[0]
    paths = RunPaths(made / "runs" / spec.run_id)
    write_json_atomic(paths.spec, spec.to_json())
    records.save(paths.record, records.new(spec, "now"))
    return spec, paths, slurm_job.Job((spec.run_id,), str(made / "runs"), str(made), 0, 60, 120)


@pytest.fixture
def submitit_job(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7",
                       "SUBMITIT_FOLDER": str(made)}.items():  # fmt: skip
        monkeypatch.setenv(key, value)


@pytest.mark.usefixtures("submitit_job")
def test_a_job_is_requeued_while_it_gets_on(made: Path) -> None:
    _, paths, job = prepared(made)
    for i in range(20):
        job.before, job.began = job.done(), time.monotonic() - 3400
        paths.checkpoint.write_text(f"step {i}")
        following = job.checkpoint()
        assert following is not None
        job = following.function
        assert job.idle == 0 and not job.before
    assert records.load(paths.record)["error"] is None  # type: ignore[index]


@pytest.mark.usefixtures("submitit_job")
def test_a_job_without_progress_is_given_up_and_has_not_failed(made: Path) -> None:
    spec, _, job = prepared(made)
    for _ in range(5):  # preempted early: tells nothing
        job.before, job.began = job.done(), time.monotonic() - 3000
        following = job.checkpoint()
        assert following is not None
        job = following.function
    for idle in (1, 2):
        job.before, job.began = job.done(), time.monotonic() - 3400
        following = job.checkpoint()
        assert following is not None and following.function.idle == idle
        job = following.function
    job.before, job.began = job.done(), time.monotonic() - 3400
    assert job.checkpoint() is None
    at = records.run_state(spec, made / "runs")
    assert at.state == "stopped" and "no progress in 3 sessions of 60 minutes" in at.note


def test_a_failed_run_is_opened_again_before_it_is_submitted(made: Path) -> None:
    spec, paths, _ = prepared(made)
    records.save(paths.record, records.new(spec, "now") | {"status": "failed", "error": "no luck"})
    slurm._reopen(paths, anew=False)
    assert records.run_state(spec, made / "runs").state == "stopped"
    slurm._reopen(paths, anew=True)
    assert records.run_state(spec, made / "runs").state == "missing" and paths.spec.exists()


# The queue

NOTE = {"name": "made-1", "index": 0, "id": "12_0", "runs": ["0123456789ab"], "submitted": "then",
        "log": "12_0.log", "cancelled": None}  # fmt: skip


def job_of(spec: RunSpec, made: Path, **changes: object) -> slurm_queue.QueuedJob:
    job = slurm_queue.QueuedJob("made-1", 0, "12_0", (spec.run_id,), "then", "12_0.log")
    job = dataclasses.replace(job, **changes)  # type: ignore[arg-type]
    job.save(made / "runs")
    return job


def ask(monkeypatch: pytest.MonkeyPatch, queue: Queue, ended: dict[str, str] | None = None) -> None:
    monkeypatch.setattr(slurm_queue, "ask_queue", lambda asked: queue if [*asked] else Queue({}))
    monkeypatch.setattr(slurm_queue, "ask_accounting", lambda ids: ended or {})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry("12_0", "PENDING", "Priority", ""), "job 12_0 waits (Priority)"),
        (Entry("12_0", "PENDING", "launch_failed_requeued_held", ""), "scontrol release 12_0"),
        (Entry("12_0", "RUNNING", "None", "node2"), "running on node2"),
    ],
)
def test_a_run_that_waits(
    made: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry, words: str
) -> None:
    spec = runs()[0]
    job_of(spec, made)
    ask(monkeypatch, Queue({("made-1", 0): entry}))
    (at,) = slurm_queue.run_states([spec], made / "runs")
    assert at.state == "queued" and words in at.note


@pytest.mark.parametrize(
    ("ended", "changes", "words"),
    [
        ({}, {}, "job 12_0 has left the queue; its log is 12_0.log"),
        ({"12_0": "TIMEOUT"}, {}, "ended as timeout"),
        ({"12_0": "NODE_FAIL"}, {"cancelled": "then"}, "ended as cancelled"),
    ],
)
def test_a_run_whose_job_is_gone_is_to_be_done_again(
    made: Path, monkeypatch: pytest.MonkeyPatch, ended: dict[str, str],
    changes: dict[str, object], words: str,
) -> None:  # fmt: skip
    spec = runs()[0]
    job_of(spec, made, **changes)
    ask(monkeypatch, Queue({}), ended)
    (at,) = slurm_queue.run_states([spec], made / "runs")
    assert at.state == "missing" and words in at.note and not at.taken


def test_a_job_that_was_never_submitted_is_none(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = runs()[0]
    job_of(spec, made, id=None)
    ask(monkeypatch, Queue({}))
    assert slurm_queue.run_states([spec], made / "runs") == [records.RunState("missing")]


def test_a_controller_that_is_away_leaves_runs_where_they_are(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, waiting = runs()[:2]
    for spec in (done, waiting):
        job_of(spec, made)
    _finish(done, made)
    ask(monkeypatch, Queue({}, "squeue does not answer"))
    first, second = slurm_queue.run_states([done, waiting], made / "runs")
    assert first.state == "finished"
    assert second.state == "queued" and "squeue does not answer" in second.note


def test_an_owner_elsewhere_without_its_job_is_dead_when_it_is_silent(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = runs()[0]
    job_of(spec, made)
    ask(monkeypatch, Queue({}))
    paths = RunPaths(made / "runs" / spec.run_id)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    with Lease(paths.lease):
        text = json.loads(paths.lease.read_text())
    assert text["job"] == "12_0"
    for age, state in ((20, "running"), (120, "stopped")):
        paths.lease.write_text(
            json.dumps(text | {"host": "far", "time": time.time() - age, "moved": time.time()})
        )
        (at,) = slurm_queue.run_states([spec], made / "runs")
        assert at.state == state, age


def test_a_note_is_read_back(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    run.job.write_text(json.dumps(NOTE))
    job = slurm_queue.load(run)
    assert job is not None and dataclasses.asdict(job) == NOTE | {"runs": ("0123456789ab",)}


@pytest.mark.parametrize("content", [
    "", "[]", "{", '{"name": 3}', '{"runs": 5}',
    json.dumps(NOTE | {"runs": ["../../elsewhere"]}), json.dumps(NOTE | {"name": "a --help"}),
    json.dumps(NOTE | {"index": "0"}),
])  # fmt: skip
def test_a_damaged_note_tells_nothing(made: Path, content: str) -> None:
    spec = runs()[0]
    paths = RunPaths(made / "runs" / spec.run_id)
    paths.dir.mkdir(parents=True)
    paths.job.write_text(content)
    assert slurm_queue.run_states([spec], made / "runs") == [records.RunState("missing")]


# The estimate


def _finish(spec: RunSpec, made: Path, seconds: float = 3600.0, device: str = "an H100") -> None:
    record = records.new(spec, "now") | {
        "status": "finished",
        "environment": {"device": device},
        "time": {"train_s": seconds, "eval_s": 0.0, "total_s": seconds},
        "snapshots": [
            {"nimg": spec.total_images, "metrics": {}, "train_seconds": 1.0,
             "versions": {key: METRICS[key].version for key in records.wanted_keys(spec)},
             "missing": dict.fromkeys(records.wanted_keys(spec), "-"),
             "eval": {**records.protocol(spec)}},
        ],
    }  # fmt: skip
    records.save(RunPaths(made / "runs" / spec.run_id).record, record)


def test_what_is_left_is_estimated_from_runs_like_it(typed: Typed, made: Path) -> None:
    grid = grids.load("made.yaml", seeds=[0, 1])
    first = grid.runs[0]
    said = typed("grid=made.yaml do=plan dispatch=slurm")[1]
    assert "hours" not in said and "3 runs to submit, as 3 jobs in 2 arrays" in said
    _finish(first, made)
    states = [(spec, records.run_state(spec, made / "runs")) for spec in grid.runs]
    found = estimate(states, made / "runs", lambda spec: 2)
    assert (found.hours, found.known, found.unknown) == (pytest.approx(2), 1, 4)
    assert estimate(states, made / "runs", lambda spec: 0).known == 0  # not on a CPU
    out = typed("grid=made.yaml seeds=[0,1] do=plan dispatch=slurm dispatch.gpus=1")[1]
    assert "about 1 GPU-hours left, from measured throughput, and 4 runs like which" in out
