"""The command line as a user types it: exit status, what goes where, one line for a mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_training
import pytest
from fake_training import Engine
from typed_commands import GRID

from bench.cli import main
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.dispatch import inprocess
from bench.store import record as records
from bench.store.lease import Lease
from projgan.config import Config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a grid file, entered."""
    monkeypatch.chdir(tmp_path)
    Path("made.yaml").write_text(GRID)
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Training in milliseconds; no weights needed, no pictures drawn."""
    monkeypatch.setattr("bench.report.build._pictures", lambda *args: {})
    for check in ("_check_networks", "_check_extractors"):
        monkeypatch.setattr(f"bench.run.preflight.{check}", lambda *args: None)
    return fake_training.install(monkeypatch)


@pytest.fixture
def bench(made: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    """Types a command; gives exit status, standard output and errors."""

    def typed(command: str) -> tuple[int, str, str]:
        here = ["dispatch=inprocess"] if "grid=" in command and "dispatch=" not in command else []
        status = main.main([*command.split(), *here])
        out, err = capsys.readouterr()
        return status, out, err

    return typed


Bench = Callable[[str], tuple[int, str, str]]


def test_alone_it_lists_the_grids(bench: Bench) -> None:
    for command in ("", "do=list"):
        status, out, err = bench(command)
        assert status == 0 and not err
        assert "Table 2, ten" in out and "smoke" in out


def test_help(bench: Bench) -> None:
    assert "do=plan" in bench("--help")[1]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grid=mad.yaml", "no such file"),
        ("grid=backbone", "Did you mean 'backbones'"),
        ("grid=made.yaml do=rum", "Did you mean 'run'"),
        ("grid=made.yaml scal=lab", "Did you mean 'scale'"),
        ("grid=made.yaml scale=lap", "Did you mean 'lab'"),
        ("grid=made.yaml train.bach=2", "Did you mean 'train.batch'"),
        ("grid=made.yaml train.batch=two", "train.batch=two: give a whole number"),
        ("grid=made.yaml train.batch=8 train.batch=16", "given twice"),
        ("grid=made.yaml backbone.name=vit", "contradicts row 'One'"),
        ("grid=made.yaml only=Four", "Unknown row 'Four'"),
        ("grid=made.yaml seeds=a", "seeds=a: give whole numbers"),
        ("grid=made.yaml seeds=-1", "give whole numbers from 0"),
        ("grid=made.yaml seeds=", "give whole numbers"),
        ("grid=made.yaml force=yess", "Unknown value of force"),
        ("grid=made.yaml dispatch=slrm", "Unknown dispatch 'slrm'"),
        ("grid=made.yaml runs_dir=", "runs_dir= needs a value"),
        ("grid=made.yaml plan", "'plan' is not key=value"),
        ("grid=made.yaml data.path=nowhere", "no such file or folder"),
        ("grid=made.yaml data.name=church", "data.path=PATH"),
        ("grid=made.yaml generator.name=fastgann", "Did you mean 'fastgan'"),
        ("grid=made.yaml do=plan generator.name=fastgann", "Did you mean 'fastgan'"),
        ("grid=made.yaml do=plan dispatch=locl", "Did you mean 'local'"),
        ("grid=made.yaml do=plan backbone.pretrain_seed=2", "pretrained with 0 and 1"),
        ("grid=made.yaml runs_dir=made.yaml", "is a file"),
        ("grid=made.yaml results_dir=made.yaml/x", "is a file"),
        ("do=plan", "grid=NAME is missing"),
        ("train.batch=8", "grid=NAME is missing"),
    ],
)
def test_what_is_refused(bench: Bench, made: Path, command: str, words: str) -> None:
    status, out, err = bench(command)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert words in err and "Traceback" not in out + err
    assert [p.name for p in made.iterdir()] == ["made.yaml"]  # nothing is left behind


def test_an_empty_data_folder_is_refused(bench: Bench, made: Path) -> None:
    (made / "photos").mkdir()
    (made / "photos" / "readme.txt").write_text("no image")
    status, _, err = bench("grid=made.yaml data.name=mine data.path=photos")
    assert status == 2 and err.count("\n") == 1
    assert "data.path=photos: a folder without a PNG" in err
    assert not Path("runs").exists()


def test_a_disk_that_fills_up_while_reporting_is_one_line(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "results/made/table.md")

    monkeypatch.setattr("bench.report.build.write_bytes_atomic", full)
    status, _, err = bench("grid=made.yaml")
    assert status == 1 and err == "error: results/made/table.md: No space left on device\n"
    assert bench("grid=made.yaml do=status")[1].count("finished") >= 3  # the runs are kept


def test_an_unwritable_folder_is_refused(bench: Bench, made: Path) -> None:
    status, _, err = bench("grid=made.yaml runs_dir=/proc/runs")
    assert status == 2 and "runs_dir=/proc/runs" in err and err.count("\n") == 1


def test_missing_weights_are_refused_before_anything_runs(
    bench: Bench, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projgan.backbones.registry.WEIGHTS", made / "nowhere")
    status, _, err = bench("grid=made.yaml")
    assert status == 2 and err.startswith("error: row 'One':") and "projgan.pretrain" in err
    status, _, err = bench("grid=made.yaml only=Three")  # has no backbone, but is measured
    assert status == 2 and err.startswith("error: eval.metrics:") and err.count("\n") == 1
    assert [p.name for p in made.iterdir()] == ["made.yaml"]


def test_a_map_too_small_is_refused_before_anything_runs(bench: Bench, made: Path) -> None:
    status, _, err = bench(
        "grid=made.yaml only=One backbone.weights=random "
        "backbone.input_size=32 projection.kind=none"
    )
    assert status == 2 and "discriminator.layers" in err


def test_plan_run_status_report(bench: Bench, engine: Engine, made: Path) -> None:
    _, out, _ = bench("grid=made.yaml do=plan")
    assert out.count("missing") == 4 and "3 runs (3 missing), 0.384 of 0.384 kimg left" in out
    assert not Path("runs").exists()

    status, out, err = bench("grid=made.yaml")
    assert status == 0 and not err
    assert "[3/3] Three: finished in" in out and "3 runs to do, 0 done before" in out
    assert Path("results/made/table.md").is_file()

    status, out, _ = bench("grid=made.yaml do=status")
    assert status == 0 and out.count("fd_lab 1") == 3 and "3 of 3 runs finished" in out
    table = Path("results/made/table.md")
    before = table.read_text()
    table.unlink()
    assert bench("grid=made.yaml do=report")[0] == 0 and table.read_text() == before

    engine.trained.clear()
    status, out, _ = bench("grid=made.yaml")
    assert status == 0 and engine.trained == [] and "One" in out  # the table again


def test_a_failed_run_is_a_row_and_the_others_finish(bench: Bench, engine: Engine) -> None:
    def fail(cfg: Config, nimg: int) -> None:
        if cfg.backbone.name == "vit":
            raise RuntimeError("no luck")

    engine.fail = fail
    status, out, err = bench("grid=made.yaml")
    assert status == 1 and "Traceback" not in out + err
    assert "[2/3] Two: failed: RuntimeError: no luck" in out
    assert "[3/3] Three: finished" in out
    assert "1 run failed; force=failed tries again" in err
    assert "failed" in Path("results/made/table.md").read_text()

    engine.fail = lambda cfg, nimg: None
    engine.trained.clear()
    assert bench("grid=made.yaml")[0] == 1 and engine.trained == []  # still a row that failed
    assert bench("grid=made.yaml force=failed")[0] == 0
    assert {name for name, _ in engine.trained} == {"vit"}


def test_a_run_left_alone_is_not_a_success(bench: Bench, engine: Engine) -> None:
    bench("grid=made.yaml only=One")
    (folder,) = Path("runs").iterdir()
    RunPaths(folder).record.unlink()
    with Lease(RunPaths(folder).lease):
        status, out, err = bench("grid=made.yaml")
    assert status == 1 and "[1/3] One: left alone" in out and "[3/3] Three: finished" in out
    assert "1 run not finished" in err and "the same command goes on" in err
    assert bench("grid=made.yaml")[0] == 0


def test_a_run_that_died_is_not_a_success_and_goes_on(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(runs: list[RunSpec], runs_dir: Path, *rest: object) -> None:
        record = records.new(runs[0], "now") | {"error": "the worker died (status 1)"}
        records.save(RunPaths(runs_dir / runs[0].run_id).record, record)

    monkeypatch.setitem(main.BACKENDS, "inprocess", dies)
    status, _, err = bench("grid=made.yaml only=One")
    assert status == 1 and "1 run not finished (One" in err and "the worker died" in err
    assert "the worker died" in bench("grid=made.yaml do=plan")[1]
    monkeypatch.setitem(main.BACKENDS, "inprocess", inprocess.dispatch)
    assert bench("grid=made.yaml only=One")[0] == 0


@pytest.fixture
def answering() -> Iterator[Callable[[int, signal.Handlers], None]]:
    """Sets what answers a signal, whatever this process was started with, such as by nohup."""
    before: dict[int, Any] = {}

    def answer(number: int, handler: signal.Handlers) -> None:
        before.setdefault(number, signal.signal(number, handler))

    yield answer
    for number, handler in before.items():
        signal.signal(number, handler)


Answering = Callable[[int, signal.Handlers], None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_asked_to_end_is_ctrl_c(
    bench: Bench, engine: Engine, answering: Answering, number: signal.Signals
) -> None:
    answering(number, signal.SIG_DFL)
    engine.fail = lambda cfg, nimg: os.kill(os.getpid(), number)
    status, _, err = bench("grid=made.yaml")
    assert status == 130 and err == "interrupted; run the same command again to continue\n"
    assert signal.getsignal(number) is signal.SIG_DFL
    assert not list(Path("runs").glob("*/claim.json"))


def test_under_nohup_a_terminal_may_close(
    bench: Bench, engine: Engine, answering: Answering
) -> None:
    answering(signal.SIGHUP, signal.SIG_IGN)
    engine.fail = lambda cfg, nimg: os.kill(os.getpid(), signal.SIGHUP)
    assert bench("grid=made.yaml")[0] == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_suite_passes_under_nohup() -> None:
    words = ["nohup", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__,
             "-k", "asked_to_end"]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_force_does_everything_again(bench: Bench, engine: Engine) -> None:
    bench("grid=made.yaml")
    engine.trained.clear()
    bench("grid=made.yaml force=true only=One")
    assert {name for name, _ in engine.trained} == {"resnet18"}


def test_only_leaves_the_others_in_the_report(bench: Bench, engine: Engine) -> None:
    assert bench("grid=made.yaml only=Two")[0] == 0
    table = Path("results/made/table.md").read_text()
    assert "Two" in table and "One" in table  # as a row that is missing


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(bench: Bench, engine: Engine) -> None:
    def fail(cfg: Config, nimg: int) -> None:
        if cfg.backbone.name == "vit" and nimg == 64:
            raise KeyboardInterrupt

    engine.fail = fail
    status, out, err = bench("grid=made.yaml")
    assert status == 130 and err == "interrupted; run the same command again to continue\n"
    assert "Traceback" not in out
    assert "stopped" in bench("grid=made.yaml do=status")[1]
    engine.fail = lambda cfg, nimg: None
    engine.trained.clear()
    assert bench("grid=made.yaml")[0] == 0
    assert [n for name, n in engine.trained if name == "vit"] == [96, 128]


def test_a_full_disk_stops_the_grid_with_one_line(bench: Bench, engine: Engine) -> None:
    def fail(cfg: Config, nimg: int) -> None:
        if cfg.backbone.name == "vit":
            raise OSError(28, "No space left on device")

    engine.fail = fail
    status, out, err = bench("grid=made.yaml")
    assert status == 1 and err.count("\n") == 1 and "No space left on device" in err
    assert "make room" in err and "Traceback" not in out + err


def test_a_damaged_record_is_named_and_done_again(bench: Bench, engine: Engine) -> None:
    bench("grid=made.yaml")
    (record,) = [
        RunPaths(path).record
        for path in Path("runs").iterdir()
        if '"vit"' in RunPaths(path).spec.read_text()
    ]
    record.write_text(record.read_text()[:200])
    assert f"{record}: damaged record" in bench("grid=made.yaml do=status")[1]
    status, out, _ = bench("grid=made.yaml")
    assert status == 0 and f"note: {record}: damaged record" in out
    assert record.with_name("record.json.damaged-1").exists()


def test_an_override_is_another_run(bench: Bench, engine: Engine) -> None:
    bench("grid=made.yaml")
    engine.trained.clear()
    assert bench("grid=made.yaml train.batch=16")[0] == 0 and len(engine.trained) == 3 * 8
    assert len(list(Path("runs").iterdir())) == 6


def test_the_command_itself(made: Path) -> None:
    def typed(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "run_bench.py"), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    plan = typed("grid=backbones", "do=plan")
    assert plan.returncode == 0 and plan.stdout.count("\n") == 12 and not plan.stderr
    wrong = typed("grid=backbones", "train.bach=3")
    assert wrong.returncode == 2 and not wrong.stdout
    assert wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_real_ctrl_c(made: Path) -> None:
    """The signal itself, while images are rendered: one line, status 130, and no claim left."""
    command = [sys.executable, str(ROOT / "run_bench.py"), "grid=made.yaml", "only=Three",
               "train.total_kimg=100", "data.images=20000"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        deadline = time.monotonic() + 60
        while not list(Path("runs").glob("*/log.txt")):  # written inside the claim
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted; run the same command again to continue\n"
    assert "Traceback" not in out and not list(Path("runs").glob("*/claim.json"))
