"""What each optimisation of the training step gains: `python tests/benchmarks/performance.py`.

Every variant is timed side by side with the plain path: the two take steps in turn in one process,
and the gain is the median of the ratios. Writes the tables between the marks in
docs/performance.md and the figures as JSON to results/reference/throughput/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.config import grid as grids
from bench.run.throughput import roofline, synchronise
from bench.store.environment import environment
from projgan.config import Backbone, Config, Data, Train
from projgan.errors import unknown
from projgan.files import write_between, write_json_atomic
from projgan.speed import fast
from projgan.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "results" / "reference" / "throughput"
SELF = "python tests/benchmarks/performance.py"
BEGIN, END = f"<!-- measured: {SELF} -->", "<!-- end of what is measured -->"
CONTENDED = 0.9  # of the wall clock: with less processor time others had the machine

# Kernels by what they do, for the profile; the first that a name contains counts.
KINDS = {
    "convolutions": ("convolution", "conv2d", "conv_transpose"),
    "batch norm": ("batch_norm",),
    "matrix products": ("addmm", "::mm", "bmm", "addmv", "::mv", "::dot"),
    "resizing": ("upsample",),
    "gates and activations": ("sigmoid", "glu", "relu", "hardtanh", "silu", "_Gate", "clamp"),
    "optimiser": ("adam",),
    "spectral norm": ("_Spectral",),
    "copies and layout": ("copy_", "contiguous", "clone", "cat", "empty", "as_strided", "reshape"),
}


@dataclass(frozen=True)
class Scene:
    """A training step that is timed.

    Attributes:
        title: over its table.
        config: of the run.
        target: how many times the plain path's speed the project aims at.
        rounds: steps of each variant at most, where all are measured; None = as many as asked for.
        alone: the optimisations that are measured alone. None = all.
        without: whether each is also left out of all the others.
    """

    title: str
    config: Config
    target: float
    rounds: int | None = None
    alone: tuple[str, ...] | None = None
    without: bool = True


def scenes() -> dict[str, Scene]:
    """The steps that targets are set for, on a CPU."""
    lab = grids.load("backbones", only="EfficientNet-lite1").runs[0].config
    full = Config(
        data=Data(resolution=256),
        backbone=Backbone(name="efficientnet_lite0", weights="random"),
        train=Train(batch=4),
    )
    return {
        "lab": Scene("Lab scale: 32 px, batch 16, lab efficientnet_lite1", lab, 1.8),
        "256": Scene(
            "256 px, batch 4, efficientnet_lite0 with random weights",
            full,
            target=1.5,
            rounds=3,
        ),
    }


class Stepper:
    """Steps of one variant, timed.

    Args:
        switches: of `projgan.speed.fast`.
    """

    def __init__(self, cfg: Config, switches: frozenset[str], device: torch.device) -> None:
        self.trainer = Trainer(cfg, device, switches=switches)
        self.batch, r = cfg.train.batch, cfg.data.resolution
        pixels = torch.linspace(0, 40, self.batch * 3 * r * r, device=device).sin()
        self.real = pixels.view(self.batch, 3, r, r)
        self.number = 0
        self.wall = 0.0  # of the last step, seconds
        self.cpu = 0.0  # processor time of the same, all threads

    def step(self) -> None:
        """One training step with its moving average, synchronised at both ends."""
        t, first = self.trainer, self.number * self.batch
        index = torch.arange(first, first + self.batch, device=t.device)
        synchronise(t.device)
        wall, cpu = time.perf_counter(), time.process_time()
        t.number = self.number
        t.step(self.real, index)
        t.update_average(first + self.batch)
        synchronise(t.device)
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.number += 1

    @property
    def seconds(self) -> float:
        """Of the last step: on one thread of a CPU its processor time, which others cannot slow."""
        alone = self.trainer.device.type == "cpu" and torch.get_num_threads() == 1
        return self.cpu if alone else self.wall


def side_by_side(plain: Stepper, other: Stepper, rounds: int) -> dict[str, Any]:
    """Both in turn; how many times the plain path's speed the other one has."""
    ratios, seconds, shares = [], [], []
    other.step()
    for _ in range(rounds):
        plain.step()
        other.step()
        ratios.append(plain.seconds / other.seconds)
        seconds.append(other.seconds)
        shares.append((plain.cpu + other.cpu) / (plain.wall + other.wall))
    return {
        "gain": statistics.median(ratios),
        "gains": ratios,
        "seconds": statistics.median(seconds),
        "processor_share": statistics.median(shares),
    }


def variants(scene: Scene, compiled: bool) -> dict[str, tuple[Config, frozenset[str]]]:
    """What is timed beside the plain path, that path itself among it."""
    cfg = scene.config
    half = replace(cfg, train=replace(cfg.train, precision="bf16"))
    alone = tuple(fast.SWITCHES) if scene.alone is None else scene.alone
    found = {"plain": (cfg, fast.NONE)}
    found |= {f"only {name}": (cfg, frozenset([name])) for name in alone}
    if scene.without:
        found |= {f"all but {name}": (cfg, fast.ALL - {name}) for name in fast.SWITCHES}
    found |= {"all": (cfg, fast.ALL), "all, bf16": (half, fast.ALL)}
    if compiled:
        for name, base in (("all, compiled", cfg), ("all, bf16, compiled", half)):
            found[name] = (replace(base, train=replace(base.train, compile=True)), fast.ALL)
    return found


def measure(
    scene: Scene,
    rounds: int,
    device: torch.device,
    tell: Callable[[str], None],
    compiled: bool,
    only: Collection[str] = (),
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All variants of a step beside the plain one, or those of `only` and what is known of others.

    Args:
        rounds: steps of each variant.
        compiled: torch.compile too.
        only: their names.
        before: the variants that were measured before, with `only`.
    """
    cfg, roof, chosen = scene.config, roofline(device), variants(scene, compiled)
    if only:
        chosen = {name: variant for name, variant in chosen.items() if name in only}
    plain = Stepper(cfg, fast.NONE, device)
    plain.step()
    found = dict(before or {})
    for name, (config, switches) in chosen.items():
        found[name] = side_by_side(plain, Stepper(config, switches, device), rounds)
        tell(f"{scene.title}: {name}: {found[name]['gain']:.3f} times")
    quick = Stepper(cfg, fast.ALL, device)
    return {
        "title": scene.title,
        "target": scene.target,
        "batch": cfg.train.batch,
        "roofline": {"flops": roof.flops, "copy_bytes": roof.copy_bytes},
        "variants": found,
        "flops": {"plain": _flops(plain), "all": _flops(quick)},
        "profile": {"plain": _profile(plain), "all": _profile(quick)},
    }


def _flops(stepper: Stepper) -> int:
    with FlopCounterMode(display=False) as counter:
        stepper.step()
    return int(counter.get_total_flops())


def _profile(stepper: Stepper) -> dict[str, float]:
    """Shares of a step's time by what its kernels do."""
    stepper.step()
    with torch.profiler.profile() as profile:
        stepper.step()
    cuda = stepper.trainer.device.type == "cuda"
    shares = dict.fromkeys([*KINDS, "other, and Python"], 0.0)
    for event in profile.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        kind = next(
            (k for k, parts in KINDS.items() if any(p in event.key for p in parts)),
            "other, and Python",
        )
        shares[kind] += spent
    total = sum(shares.values()) or 1.0
    return {kind: spent / total for kind, spent in shares.items()}


def page(figures: dict[str, Any]) -> str:
    """The measured part of docs/performance.md."""
    env = figures["environment"]
    shares = [
        v["processor_share"] for s in figures["scenes"].values() for v in s["variants"].values()
    ]
    lines = [
        f"Measured {figures['date']} on {env['cpu']}, {env['threads']} thread"
        f"{'' if env['threads'] == 1 else 's'}, torch {env['torch']}, Python {env['python']}, "
        f"device {env['device']}. Gains are medians "
        "over steps of each, in turn with the plain path"
        + (", from processor time." if env["threads"] == 1 else "."),
    ]
    if env["device"] == "cpu" and env["threads"] == 1 and statistics.median(shares) < CONTENDED:
        share = f"{statistics.median(shares):.0%}"
        lines.append("")
        lines.append(
            f"**The machine was shared**: the process had {share} of the wall clock. Its processor "
            "time is counted, but memory and caches were shared too."
        )
    for scene in figures["scenes"].values():
        lines += ["", f"### {scene['title']}", "", *_gains(scene), "", *_limits(scene)]
    return "\n".join(lines) + "\n"


def _gains(scene: dict[str, Any]) -> list[str]:
    found = scene["variants"]
    lines = ["| optimisation | alone | without it | what it does |", "|---|---|---|---|"]
    for name, what in fast.SWITCHES.items():
        alone, rest = (found.get(f"{kind} {name}") for kind in ("only", "all but"))
        lines.append(f"| {name} | {_times(alone)} | {_times(rest)} | {what} |")
    rows = {
        "**all of them, float32**": "all",
        "all, and bfloat16": "all, bf16",
        "all, and compiled": "all, compiled",
        "all, bfloat16 and compiled": "all, bf16, compiled",
    }
    for label, key in rows.items():
        lines.append(f"| {label} | {_times(found.get(key))} | – | together |")
    lines.append("| any of them on a GPU | not measured | – | no GPU was at hand |")
    same, whole = found["plain"]["gains"], found["all"]["gains"]
    reached = "reached" if found["all"]["gain"] >= scene["target"] else "not reached"
    lines.append("")
    lines.append(
        f"Target {scene['target']:g}×: {reached} in float32 ({found['all']['gain']:.2f}×, single "
        f"steps {min(whole):.2f} to {max(whole):.2f}). The plain path beside itself: "
        f"{found['plain']['gain']:.2f}×, single steps {min(same):.2f} to {max(same):.2f}. "
        f"{len(whole)} steps of each."
    )
    return lines


def _times(found: dict[str, Any] | None) -> str:
    return f"{found['gain']:.2f}×" if found else "not measured"


def _limits(scene: dict[str, Any]) -> list[str]:
    roof = scene["roofline"]
    flops, copied = roof["flops"] / 1e9, roof["copy_bytes"] / 1e9
    limit = f"{flops:.1f} GFLOP/s in a float32 matrix product, {copied:.1f} GB/s in a copy."
    lines = [
        f"Roofline: {limit}",
        "",
        "| | s per step | images/s | GFLOP per image | share of the measured peak |",
        "|---|---|---|---|---|",
    ]
    whole = scene["variants"]["all"]
    plain_seconds = whole["seconds"] * whole["gain"]  # those taken in turn with the fast ones
    for label, key, seconds in (
        ("plain", "plain", plain_seconds),
        ("fast", "all", whole["seconds"]),
    ):
        flops = scene["flops"][key]
        lines.append(
            f"| {label} | {seconds:.3f} | {scene['batch'] / seconds:.1f} | "
            f"{flops / scene['batch'] / 1e9:.2f} | {flops / seconds / roof['flops']:.0%} |"
        )
    plain, quick = scene["flops"]["plain"], scene["flops"]["all"]
    floor = plain_seconds * roof["flops"] / quick
    lines.append("")
    lines.append(
        f"Fewer products alone are worth {plain / quick:.2f}×; were all of the rest free and every "
        f"product at the measured peak, the step would be {floor:.2f}× the plain one's speed."
    )
    lines += ["", "| share of a step's time (profile) | plain | fast |", "|---|---|---|"]
    profile = scene["profile"]
    for kind in profile["plain"]:
        lines.append(f"| {kind} | {profile['plain'][kind]:.0%} | {profile['all'][kind]:.0%} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(prog=SELF, description=__doc__)
    parser.add_argument("--scene", choices=["lab", "256"], action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each variant")
    parser.add_argument(
        "--only", action="append", help="one variant again, as 'all'; the others keep their figures"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile too (minutes)")
    args = parser.parse_args(argv)
    chosen = {name: scene for name, scene in scenes().items() if name in (args.scene or [name])}
    for name in args.only or ():
        if any(name not in (known := variants(s, args.compile)) for s in chosen.values()):
            parser.error(unknown("variant", name, list(known)))
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = FIGURES / f"{device.type}.json"
    figures: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(device),
        "scenes": {},
    }
    if (args.scene or args.only) and path.exists():  # the rest keeps its figures
        figures["scenes"] = json.loads(path.read_text(encoding="utf-8"))["scenes"]
    for name, scene in chosen.items():
        most = None if args.only else scene.rounds
        rounds = min(args.rounds, most or args.rounds)
        before = figures["scenes"].get(name, {}).get("variants") if args.only else None
        found = measure(scene, rounds, device, _say, args.compile, args.only or (), before)
        figures["scenes"][name] = found
        write_json_atomic(path, figures)
        publish(PAGE, page(figures))
    return 0


def publish(path: Path, measured: str) -> None:
    """Puts the measured part between the marks of a page."""
    write_between(path, BEGIN, END, measured)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def from_file(path: Path) -> str:
    """The measured part again, from its figures."""
    return page(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
