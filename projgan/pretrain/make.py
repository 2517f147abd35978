"""One lab network from nothing to its file: data, objective, training, held-out accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from projgan import scenes
from projgan.backbones import registry
from projgan.backbones.build import build_trunk, read_weights
from projgan.backbones.lab import SIZE, classifier, extractor_network, show
from projgan.backbones.network import STRIDES, count_params
from projgan.pretrain.card import EXTRACTOR, TEACHER, teacher_of, write_card, write_weights
from projgan.pretrain.loop import Budget, fit
from projgan.pretrain.objectives import (
    Contrastive,
    Distilled,
    Objective,
    SelfSupervised,
    Supervised,
)
from projgan.pretrain.pictures import EXTRACTOR as EXTRACTOR_SEED
from projgan.pretrain.pictures import HELD_OUT, RESOLUTION, TRAIN, as_input, rendered

CLASSES = scenes.CLASSES["pretrain"]
say: Callable[[str], None] = partial(print, flush=True)


def make(name: str, seed: int, budget: Budget, out: Path, data_dir: Path, bf16: bool) -> Path:
    """Trains one network and writes its weights into `out`, and the card anew."""
    started = time.monotonic()
    say(f"{name}, pretraining seed {seed}")
    torch.manual_seed(_stream(name, seed))
    images = training_images(name, budget, data_dir)
    objective = _objective(name, seed, len(images), out)
    losses = fit(objective, images, budget, _stream(name, seed), bf16, say)
    state = objective.shipped()
    facts = {
        "name": name,
        "pretrain_seed": seed,
        "objective": objective.text,
        "data": _data_text(name, len(images)),
        "steps": budget.steps,
        "batch": budget.batch,
        "images_seen": budget.steps * budget.batch,
        "last_loss": round(float(np.mean(losses[-50:])), 4),
        "input_size": SIZE,
        "strides": list(STRIDES),
        "maps": [SIZE // stride for stride in STRIDES],
        **_shape(name),
        "accuracy": None,
        "accuracy_kind": "",
    }
    path = write_weights(out, name, seed, state, facts)
    if name != EXTRACTOR:
        held_out = rendered(data_dir, "pretrain", HELD_OUT, budget.held_out_images, say)
        right = held_out_accuracy(classifier(name, read_weights(path, "")), held_out)
        facts["accuracy"] = round(100 * right, 2)
        facts["accuracy_kind"] = (
            "zero-shot top-1 of 48, %" if name == "r50_clip" else "rendered top-1 of 48, %"
        )
        path = write_weights(out, name, seed, state, facts)
    write_card(out)
    seconds = time.monotonic() - started
    size = path.stat().st_size / 1e6
    say(f"  {path.name}: {size:.2f} MB, accuracy {facts['accuracy']}, {seconds:.0f} s")
    return path


def training_images(name: str, budget: Budget, data_dir: Path) -> NDArray[np.uint8]:
    """uint8 [train_images, 3, 32, 32]; the extractor's are other scenes than the backbones'."""
    if name != EXTRACTOR:
        return rendered(data_dir, "pretrain", TRAIN, budget.train_images, say)
    half = budget.train_images // 2
    kinds = ("clevr", "pretrain")
    parts = [rendered(data_dir, kind, EXTRACTOR_SEED, half, say) for kind in kinds]
    return np.concatenate(parts)


def held_out_accuracy(model: nn.Module, images: NDArray[np.uint8]) -> float:
    """Share of the first len(images) held-out scenes whose main object is named rightly."""
    labels = torch.from_numpy(scenes.labels("pretrain", HELD_OUT, range(len(images))))
    right = 0
    with torch.inference_mode():
        for i in range(0, len(images), 100):
            scores: Tensor = model(show(as_input(images[i : i + 100])))
            right += int((scores.argmax(1) == labels[i : i + 100]).sum())
    return right / len(images)


def _objective(name: str, seed: int, count: int, out: Path) -> Objective:
    if name == EXTRACTOR:
        return SelfSupervised()
    if name == "r50_clip":
        return Contrastive(name, scenes.captions("pretrain", TRAIN, range(count)), CLASSES)
    labels = torch.from_numpy(scenes.labels("pretrain", TRAIN, range(count)))
    if name != "deit":
        return Supervised(name, labels, len(CLASSES))
    teacher = classifier(TEACHER, read_weights(teacher_of(out, seed), "pretrain it again"))
    return Distilled(name, labels, len(CLASSES), teacher)


def _shape(name: str) -> dict[str, object]:
    """Parameters (millions, of the truncated network) and level channels."""
    if name == EXTRACTOR:
        model = extractor_network()
        count = sum(p.numel() for p in model.parameters())
        return {"params_m": count / 1e6, "channels": [model.num_features]}
    network = registry.BACKBONES[name].lab
    assert network is not None
    trunk = build_trunk(network, name, 0, SIZE)
    return {"params_m": count_params(trunk) / 1e6, "channels": list(trunk.channels)}


def _data_text(name: str, count: int) -> str:
    if name == EXTRACTOR:
        return f"{count} scenes, {RESOLUTION} px, half clevr, half pretrain, seed {EXTRACTOR_SEED}"
    return f"{count} pretrain scenes, {RESOLUTION} px, seed {TRAIN}; held out: seed {HELD_OUT}"


def _stream(name: str, seed: int) -> int:
    """One number per network and pretraining seed: initial weights, order and crops."""
    return sum(map(ord, name)) * 1000 + seed
