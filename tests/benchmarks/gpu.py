"""What a training step costs on one GPU, by precision and form: `python tests/benchmarks/gpu.py`.

Each form takes steps in turn with the plain path, whose float32 products do without TF32. What is
known is written after every form, so that a job that ends early loses the rest only. The networks
have random weights; nothing is fetched. On a CPU it runs at small sizes, which tries the program.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from performance import FIGURES, Stepper, side_by_side

from bench.run.throughput import flops_per_image, roofline
from bench.store.environment import environment
from projgan import fast
from projgan.config import Backbone, Config, Data, Discriminator, Generator, Train
from projgan.files import write_json_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

# Resolution and images a step: what a data-centre GPU is asked for, and what a CPU can try.
SIZES = {"cuda": ((256, 64), (512, 32)), "cpu": ((32, 4),)}
ROUNDS = 10


@dataclass(frozen=True)
class Form:
    """A form of the step.

    Attributes:
        target: how many times the plain path's speed the project aims at; None = no target.
        fast: the faster forms of `projgan.fast`, which compute the same.
        tf32: float32 products in TF32.
        train: other fields of the configuration.
    """

    name: str
    target: float | None = None
    fast: bool = True
    tf32: bool = False
    train: tuple[tuple[str, Any], ...] = ()


BF16 = ("precision", "bf16")
COMPILED = ("compile", True)
# The most valuable first: a job may end before the last one.
FORMS = (
    Form("plain, beside itself", fast=False),
    Form("fast", 1.5),
    Form("fast, TF32", 2.0, tf32=True),
    Form("fast, bfloat16", 3.0, tf32=True, train=(BF16,)),
    Form("fast, bfloat16, compiled, CUDA graphs", 3.5, tf32=True,
         train=(BF16, COMPILED, ("cuda_graphs", True))),
    Form("fast, bfloat16, compiled", tf32=True, train=(BF16, COMPILED)),
    Form("fast, TF32, compiled", tf32=True, train=(COMPILED,)),
)  # fmt: skip


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Allows TF32 in products and convolutions, or forbids it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class InPrecision(Stepper):
    """Steps in TF32 or without, whatever the other of a pair has."""

    def __init__(self, cfg: Config, form: Form, device: torch.device) -> None:
        super().__init__(cfg, fast.ALL if form.fast else fast.NONE, device)
        self.tf32 = form.tf32

    def step(self) -> None:
        with tf32(self.tf32):
            super().step()


def configuration(resolution: int, batch: int) -> Config:
    """The paper's method on images of a size; a small one on a CPU."""
    small = resolution < 128
    return Config(
        data=Data(resolution=resolution),
        generator=Generator(width=8) if small else Generator(),
        discriminator=Discriminator(width=32) if small else Discriminator(),
        backbone=Backbone(name="efficientnet_lite1", weights="random"),
        train=Train(batch=batch),
    )


def measure(cfg: Config, form: Form, device: torch.device, rounds: int) -> dict[str, Any]:
    """One form beside the plain path, its memory and its share of the roofline."""
    own = replace(cfg, train=replace(cfg.train, **dict(form.train)))
    plain = InPrecision(cfg, FORMS[0], device)
    plain.step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    other = InPrecision(own, form, device)
    for _ in range(6 if form.train else 1):  # compiling, and recording graphs
        other.step()
    found = side_by_side(plain, other, rounds)
    speed = cfg.train.batch / found["seconds"]
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    with tf32(False):
        share = flops_per_image(cfg) * speed / roofline(device).flops
    return {
        "form": form.name,
        "target": form.target,
        "gain": found["gain"],
        "gains": found["gains"],
        "images_per_s": speed,
        "s_per_kimg": 1000 / speed,
        "peak_mb_of_both": peak,
        "share_of_float32_peak": share,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the time allows, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file (default: by the card's name)")
    parser.add_argument("--seconds", type=float, default=240, help="no form is begun after these")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args(argv)
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu-trial"
    out: Path = args.out or FIGURES / f"{card.lower().replace(' ', '-')}.json"
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "card": card,
        "environment": environment(device),
        "sizes": [],
    }
    for resolution, batch in SIZES[device.type]:
        cfg = configuration(resolution, batch)
        forms: list[dict[str, Any]] = []
        report["sizes"].append({"resolution": resolution, "batch": batch, "forms": forms})
        for form in FORMS:
            found: dict[str, Any]
            if time.monotonic() - started > args.seconds:
                found = {"form": form.name, "not_measured": "out of time"}
            elif COMPILED in form.train and device.type == "cpu":
                found = {"form": form.name, "not_measured": "minutes of compiling, for a trial"}
            else:
                try:
                    found = measure(cfg, form, device, args.rounds)
                except Exception as error:  # the other forms are measured all the same
                    reason = (str(error).splitlines() or [""])[0]
                    found = {"form": form.name, "not_measured": f"{type(error).__name__}: {reason}"}
            forms.append(found)
            write_json_atomic(out, report)
            print(f"{resolution} px, batch {batch}: {json.dumps(found)}", flush=True)
            gc.collect()
            torch.compiler.reset()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(f"written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
