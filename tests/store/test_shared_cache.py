"""One computes, the others read; whoever dies in the middle is followed by one who waits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.store import lease as claims
from bench.store.lease import Lease
from bench.store.shared_cache import Check, once
from projgan.backbones import build_backbone
from projgan.backbones.registry import WEIGHTS
from projgan.config import Backbone, Data
from projgan.data.dataset import open_dataset

ROOT = Path(__file__).resolve().parents[2]

# Each worker appends a line when it begins to compute and one when it has the result. The first to
# begin finds no `go` file and sleeps there until it is killed.
WORKER = """
import os, sys, time
from pathlib import Path
from bench.store.shared_cache import once
from projgan.files import write_text_atomic

folder = Path(sys.argv[1])
path, go, begun = folder / "value.txt", folder / "go", folder / "begun"

def told(name, text):
    with (folder / name).open("a") as file:  # appended whole: shorter than a page
        file.write(text)

def load():
    return path.read_text() if path.exists() else None

def make(check):
    told("begun", f"{os.getpid()}\\n")
    while not go.exists():
        time.sleep(0.02)
    for _ in range(5):
        check()
        time.sleep(0.02)
    text = f"made by {os.getpid()}"
    write_text_atomic(path, text)
    return text

told("ready", f"{os.getpid()}\\n")
told("got", once(path, load, make) + "\\n")
"""


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_32_processes_of_which_one_is_killed_compute_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen(command, cwd=ROOT) for _ in range(32)]
    try:
        until(lambda: len(lines(tmp_path / "ready")) == 32)
        until(lambda: lines(tmp_path / "begun"))
        (first,) = lines(tmp_path / "begun")
        os.kill(int(first), signal.SIGKILL)
        next(w for w in workers if w.pid == int(first)).wait()
        (tmp_path / "go").touch()
        codes = sorted(worker.wait(timeout=120) for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert codes == [-signal.SIGKILL] + [0] * 31
    _, second = lines(tmp_path / "begun")  # the killed one, and one of those who waited
    assert lines(tmp_path / "got") == [f"made by {second}"] * 31
    assert not list(tmp_path.glob(".*")), "claims and half-written files are gone"


def read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def test_what_is_there_is_read(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    path.write_text("there")
    assert once(path, lambda: read(path), lambda check: "made") == "there"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_is_raised_and_the_next_one_tries(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"

    def fail(check: Check) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        once(path, lambda: read(path), fail)
    assert list(tmp_path.iterdir()) == []
    assert once(path, lambda: read(path), lambda check: "made") == "made"


def forge(path: Path, silent: float) -> Path:
    """The claim of a process on another computer that gave no sign of life for so many seconds."""
    place = path.with_name(f".{path.name}.claim") / "claim.json"
    place.parent.mkdir()
    content = {"token": "x", "host": f"not {socket.gethostname()}", "pid": 1, "birth": "0",
               "time": time.time() - silent, "nimg": 0, "number": 3}  # fmt: skip
    place.write_text(json.dumps(content))
    return place


def test_the_claim_of_a_dead_computer_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    (tmp_path / f".{path.name}.abc.part").write_text("half")
    forge(path, silent=2 * claims.STALE_SECONDS)
    assert once(path, lambda: read(path), lambda check: "made") == "made"
    assert list(tmp_path.iterdir()) == []  # also what the dead one had begun to write


def test_a_living_computer_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    place = forge(path, silent=0)
    got: list[str] = []
    thread = threading.Thread(
        target=lambda: got.append(once(path, lambda: read(path), lambda check: "made here"))
    )
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and not got
    path.write_text("made there")
    place.unlink()
    thread.join(30)
    assert got == ["made there"]


def test_who_loses_the_claim_stops_and_reads(tmp_path: Path) -> None:
    """As after a sleep in which another took the work for abandoned."""
    path = tmp_path / "value.txt"
    began: list[str] = []

    def make(check: Check) -> str:
        began.append("here")
        place = path.with_name(f".{path.name}.claim") / "claim.json"
        place.unlink()
        with Lease(place):  # the other's, with the next number
            path.write_text("made there")
        check()
        raise AssertionError("goes on although another is at it")

    assert once(path, lambda: read(path), make) == "made there"
    assert began == ["here"]


# The same with the real side of a metric: forked from one process that has loaded torch.
DRIVER = """
import os, signal, sys, time, traceback
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from bench.metrics import extractors
from bench.metrics.extractors import make_extractor
from bench.metrics.reference import Reference

folder, count = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)

def load(source):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 6, 2)

    def forward(images):
        seen = folder / f"{os.getpid()}.seen"
        seen.touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
        return {"": network(images.float()).mean((2, 3))}

    return make_extractor("lab", network, source, forward)

extractors.EXTRACTORS["lab"] = replace(extractors.EXTRACTORS["lab"], load=load)
images = np.random.default_rng(0).integers(0, 256, (200, 3, 8, 8), dtype=np.uint8)
children = []
for _ in range(count):
    if not (pid := os.fork()):
        code = 1
        try:
            reference = Reference(images, "print", folder / "data", torch.device("cpu"))
            real = reference.real("lab")[""]
            got = real.statistics.cov.tobytes() + real.kept.tobytes()
            (folder / f"{os.getpid()}.got").write_bytes(got)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    children.append(pid)
while not (seen := list(folder.glob("*.seen"))):
    if os.waitpid(-1, os.WNOHANG)[0]:
        sys.exit("a process ended before it had seen an image")
    time.sleep(0.02)
os.kill(int(seen[0].stem), signal.SIGKILL)
(folder / "go").touch()
codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
sys.exit(codes != [-signal.SIGKILL] + [0] * (count - 1))
"""


def test_the_real_side_is_computed_once_by_32_processes_of_which_one_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path), "32"]
    done = subprocess.run(command, cwd=ROOT, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.seen"))) == 2  # the dead one, and one who computed it all
    got = [path.read_bytes() for path in tmp_path.glob("*.got")]
    assert len(got) == 31 and len(set(got)) == 1
    (cache,) = (tmp_path / "data" / "reference").iterdir()
    assert cache.suffix == ".npz"


# A replaced file at the same path.


def test_replaced_weights_or_images_are_not_served_from_the_cache(tmp_path: Path) -> None:
    from bench.metrics.reference import Reference

    weights, photos = tmp_path / "net.safetensors", tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)

    def draw() -> None:
        for i in range(4):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / f"{i}.png")

    def reference() -> Reference:
        data = open_dataset(Data(name="photos", path=str(photos), resolution=32), tmp_path / "data")
        backbone = Backbone(name="efficientnet_lite0", zoo="lab", weights=str(weights))
        own = build_backbone(backbone, 32)
        return Reference(
            data.images, data.fingerprint, tmp_path / "data", torch.device("cpu"), own=own
        )

    def caches() -> int:
        return len(list((tmp_path / "data" / "reference").iterdir()))

    draw()
    shutil.copyfile(WEIGHTS / "efficientnet_lite0-s0.safetensors", weights)
    first = reference().real("own")["l1"].statistics.mean
    np.testing.assert_array_equal(reference().real("own")["l1"].statistics.mean, first)
    assert caches() == 1
    shutil.copyfile(WEIGHTS / "efficientnet_lite0-s1.safetensors", weights)
    second = reference().real("own")["l1"].statistics.mean
    assert caches() == 2 and np.abs(second - first).max() > 1e-3
    draw()
    third = reference().real("own")["l1"].statistics.mean
    assert caches() == 3 and np.abs(third - second).max() > 1e-3
