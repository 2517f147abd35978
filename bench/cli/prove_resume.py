"""Proof that a run which is killed and goes on equals, to the bit, one that was never touched.

Trains a short run straight, and again in processes that are killed by SIGKILL one after the other:
before, in and after training steps, inside the writing of checkpoints, and while measuring. Each
next process goes on with what the one before left. Then everything is compared: networks, average,
optimisers, projection, every step's batch and losses, every metric, every kept file.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bench.run.measuring
import bench.run.runner
import projgan.backbones.lab  # with all that it imports: once here and not in every process
import projgan.checkpoint
import projgan.files
import projgan.train
import projgan.trainer
from bench.cli.options import Options
from bench.config.paths import RunPaths
from bench.config.spec import RunSpec
from bench.config.terminal import aligned
from bench.store import record as records
from projgan.checkpoint import load_checkpoint, read_checkpoint
from projgan.errors import UserError
from projgan.files import replacing, write_json_atomic

PLACES = ("before the step", "between D and G", "after the step", "writing the checkpoint",
          "swapping the checkpoints", "measuring")  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """A place where a process dies: the first such one from so many images on."""

    nimg: int
    place: str
    share: float  # of the checkpoint's bytes that are written before

    def __str__(self) -> str:
        if self.place in PLACES[3:]:
            return f"{self.place} at {self.nimg} images or next"
        return f"{self.place} from {self.nimg} images on"


def shortened(spec: RunSpec, steps: int) -> RunSpec:
    """The run with a budget of 2 x `steps` steps, measured four times on few images."""
    batch = spec.config.train.batch
    train = replace(spec.config.train, total_kimg=2 * steps * batch / 1000)
    every = max(steps // 2, 1) * batch / 1000
    measured = replace(
        spec.eval, every_kimg=every, also_at_kimg=(), fake=min(spec.eval.fake, 64),
        real=min(spec.eval.real or 256, 256),
    )  # fmt: skip
    return replace(spec, config=replace(spec.config, train=train), eval=measured)


def plan(spec: RunSpec, kills: int, seed: int) -> list[Kill]:
    """Where to kill, in the order in which a run comes by; each place at least once if it can."""
    draw = random.Random(seed)
    batch, total = spec.config.train.batch, spec.total_images
    places = [*draw.sample(PLACES, k=min(kills, len(PLACES)))]
    places += [draw.choice(PLACES) for _ in range(kills - len(places))]
    drawn = [Kill(draw.randrange(0, total, batch), place, draw.random()) for place in places]

    def comes(kill: Kill) -> tuple[int, bool]:
        """After how many images; measuring waits for the next snapshot, and goes before what
        lies behind it: a kill that let the run pass a snapshot would leave none for the others.
        """
        if kill.place != "measuring":
            return kill.nimg, True
        return next(nimg for nimg in spec.snapshot_at if nimg > kill.nimg), False

    return sorted(drawn, key=comes)


def prove(spec: RunSpec, options: Options, echo: Callable[[str], None]) -> bool:
    """Proves it for one run, prints a table, and says whether all is equal.

    The runs lie in a folder of `runs_dir`, which is kept where there is a difference.

    Args:
        spec: what is trained; its budget becomes 2 x `steps` steps. Its seed decides where it is
            killed.
        options: of do=prove-resume.
        echo: takes lines for the user.

    Raises:
        UserError: a process did not end as it should; the message names its log.
    """
    steps, kills, runs_dir = options.steps, options.kills, options.runs_dir
    spec = shortened(spec, steps)
    runs_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="prove-resume-", dir=runs_dir))
    echo(f"{spec.label}: {2 * steps} steps of {spec.config.train.batch} images, {kills} kills")
    straight, resumed = (RunPaths(folder / name) for name in ("straight", "resumed"))
    for run in (straight, resumed):
        write_json_atomic(run.spec, spec.to_json())
    _child(straight, options.data_dir, None)
    for number, kill in enumerate(plan(spec, kills, spec.config.train.seed), start=1):
        was_killed = _child(resumed, options.data_dir, kill) == -signal.SIGKILL
        outcome = f"killed {kill}" if was_killed else f"came to its end before: {kill}"
        echo(f"[{number}/{kills}] {outcome}")
    _child(resumed, options.data_dir, None)
    one, other = dict(_facts(straight)), dict(_facts(resumed))
    lines = [["", "straight", "killed", ""]]
    for name in dict.fromkeys([*one, *other]):
        values = [facts.get(name, "missing") for facts in (one, other)]
        verdict = "equal" if values[0] == values[1] else "DIFFERENT"
        lines.append([name, *(value[:16] for value in values), verdict])
    for line in aligned(lines):
        echo(line)
    if one == other:
        shutil.rmtree(folder)
        echo("A run that is killed and goes on equals one that was never touched, to the bit")
        return True
    echo(f"They differ; both runs are kept in {folder}")
    return False


def _facts(run: RunPaths) -> Iterator[tuple[str, str]]:
    """What is compared: name -> hash."""
    state = read_checkpoint(run.checkpoint)
    yield "images shown", str(state["nimg"])
    for name, part in state["trainer"].items():
        yield name, _digest(part)
    steps = _steps(run).read_text(encoding="utf-8").splitlines()
    yield "batches and losses", _digest(sorted(set(steps)))
    record = records.load(run.record)
    if record is None:
        raise UserError(f"{run.record} is missing; see {run.log}")
    yield "status", record["status"]
    for snapshot in record["snapshots"]:
        yield f"metrics at {snapshot['nimg']}", _digest(snapshot["metrics"])
    for file in sorted([*run.snapshots_dir.iterdir(), *run.samples_dir.iterdir()]):
        yield file.name, hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(value: Any) -> str:
    """SHA-256 of tensors, numbers and texts in nested dicts and lists."""
    sha = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            sha.update(f"{item.dtype} {tuple(item.shape)}".encode())
            sha.update(item.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                sha.update(str(key).encode())
                add(item[key])
        elif isinstance(item, list | tuple):
            for part in item:
                add(part)
        else:
            sha.update(repr(item).encode())

    add(value)
    return sha.hexdigest()


def _steps(run: RunPaths) -> Path:
    """The log of every step: a step that is done twice has two lines, which must be alike."""
    return run.dir / "steps.txt"


def _child(run: RunPaths, data_dir: Path, kill: Kill | None) -> int:
    """Goes on with a run in a process of its own; returns its exit status, negative = a signal.

    It is forked: torch is imported once, and nothing of it has been used here.
    """
    if (child := os.fork()) == 0:
        status = 1
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            _watch(run, kill)
            record = bench.run.runner.execute(run.dir, data_dir)
            status = 0 if record["status"] == "finished" else 1
        except BaseException:
            with run.log.open("a", encoding="utf-8") as log:
                traceback.print_exc(file=log)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL) or (kill is None and status != 0):
        kept = run.log.read_text(encoding="utf-8").strip().splitlines() if run.log.exists() else []
        raise UserError(f"the run failed: {kept[-1] if kept else status}; see {run.log}")
    return status


def _watch(run: RunPaths, kill: Kill | None) -> None:
    """Logs every step of this process, and lets it die where it shall."""
    state = load_checkpoint(run.checkpoint)
    seen = int(state["nimg"]) if state else 0  # of a run whose training is over, too

    def reached(place: str, nimg: int) -> bool:
        return kill is not None and kill.place == place and nimg >= kill.nimg

    class Watched(projgan.trainer.Trainer):
        def step(self, real: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal seen
            seen = int(index[0])
            if reached("before the step", seen):
                _die()
            losses = super().step(real, index)
            if reached("after the step", seen):
                _die()
            values = " ".join(float(loss).hex() for loss in losses)
            with _steps(run).open("a", encoding="utf-8") as log:
                log.write(f"{seen} {_digest(real)} {values}\n")
            seen += len(index)
            return losses

        def generator_loss(self, real: Tensor, index: Tensor) -> Tensor:
            if reached("between D and G", seen):  # D has made its step, G has not
                _die()
            return super().generator_loss(real, index)

    def write(path: Path, data: bytes, keep: Path | None = None) -> None:
        with replacing(path, keep) as file:
            if kill is not None and reached("writing the checkpoint", seen):
                file.write(data[: int(kill.share * len(data))])
                file.flush()
                _die()
            if reached("swapping the checkpoints", seen):
                _die_between_renames()
            file.write(data)

    training: Any = projgan.train
    writing: Any = projgan.checkpoint
    measuring: Any = bench.run.measuring
    measure = measuring.evaluate

    def evaluate(*arguments: Any, **named: Any) -> Any:
        if reached("measuring", seen):
            _die()
        return measure(*arguments, **named)

    training.Trainer, writing.write_bytes_atomic = Watched, write
    measuring.evaluate = evaluate


def _die_between_renames() -> None:
    """From now on the process dies when the old state has been moved and the new one not yet."""
    rename = os.replace

    def replace_and_die(source: Any, target: Any) -> None:
        with suppress(FileNotFoundError):  # the first checkpoint has none before it
            rename(source, target)
        _die()

    os.replace = replace_and_die  # type: ignore[assignment]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
