"""The card of the shipped weights: what they are and how they were made, read off their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projgan.backbones.registry import BACKBONES, shipped_name
from projgan.errors import DataError
from projgan.files import sha256_of, write_bytes_atomic, write_json_atomic, write_text_atomic

EXTRACTOR = "fd_lab"
TEACHER = "efficientnet_lite4"  # deit's


def write_weights(folder: Path, name: str, seed: int, state: dict[str, Tensor], facts: Any) -> Path:
    """Writes float16 tensors with `facts` as the file's metadata; returns the file."""
    from safetensors.torch import save

    half = {
        key: value.detach().to(torch.float16).contiguous()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    path = folder / f"{shipped_name(name, seed)}.safetensors"
    write_bytes_atomic(path, save(half, {"card": json.dumps(facts)}))
    return path


def teacher_of(folder: Path, seed: int) -> Path:
    """The weights of deit's teacher.

    Raises:
        DataError: they are not there yet.
    """
    path = folder / f"{shipped_name(TEACHER, seed)}.safetensors"
    if not path.is_file():
        raise DataError(f"{path}: deit's teacher is missing; pretrain {TEACHER} first")
    return path


def read_facts(path: Path) -> dict[str, Any]:
    """The metadata that `write_weights` put into a file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["card"])
    return facts


def write_card(folder: Path) -> None:
    """Writes card.json and CARD.md from the weights' files that lie in `folder`."""
    order = [*BACKBONES, EXTRACTOR]
    networks: dict[str, Any] = {}
    files = {path.stem: path for path in sorted(folder.glob("*-s*.safetensors"))}
    for stem in sorted(files, key=lambda s: (order.index(s.rsplit("-s", 1)[0]), s)):
        path = files[stem]
        facts = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        networks[stem] = {**facts, **read_facts(path)}
    write_json_atomic(folder / "card.json", {"schema": 1, "networks": networks})
    write_text_atomic(folder / "CARD.md", _as_text(networks))


def _as_text(networks: dict[str, Any]) -> str:
    lines = [
        "# The lab networks' weights",
        "",
        "Small networks of the paper's families, pretrained on rendered scenes with equal budgets:",
        "the same number of images, batch and schedule for each. `python -m projgan.pretrain`",
        "makes them again (to the bit on the same machine with one thread) and writes this card.",
        "",
        "Accuracy is on held-out scenes, of the float16 weights as they ship. All see images at",
        "64 px and give maps at strides 4/8/16/32, that is 16/8/4/2 px, and 32/16/8/4 px after",
        "cross-scale mixing. That leaves room for equal logit maps of 2x2 at most on all levels,",
        "and of 4x4 at most after mixing. fd_lab is the metric's: other scenes, no labels;",
        "its distance sees colours, places and missing modes well, shapes and mild blur hardly.",
        "",
        "| weights | params M | channels | learned from | images seen | accuracy | kB | SHA-256 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stem, n in networks.items():
        accuracy = "" if n["accuracy"] is None else f"{n['accuracy']:.1f} ({n['accuracy_kind']})"
        channels = "/".join(map(str, n["channels"]))
        lines.append(
            f"| {stem} | {n['params_m']:.3f} | {channels} | {n['objective']} | {n['images_seen']}"
            f" | {accuracy} | {n['bytes'] / 1000:.0f} | {n['sha256'][:12]} |"
        )
    return "\n".join(lines) + "\n"
