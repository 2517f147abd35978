"""Where a run's time goes: every part of a training step measured, on sampled steps only.

One step in `SAMPLE_EVERY` is divided by a lap timer: each mark waits for the device and puts the
time since the mark before it on one account. The backward pass is divided where gradients arrive at
the tensors between two networks. Sampled steps are kept out of the throughput, since waiting for
the device slows them; the other steps carry no clock but the run's own.

On a CPU a lap is the processor time of the thread that trains, and what the wall clock shows
beyond it is `idle`: the process was ready and something else had the core, or it slept. On a GPU a
lap is wall time between two synchronisations, and the device's idling is not measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SAMPLE_EVERY = 32  # steps
CONTENDED = 0.1  # idle share of the sampled steps from which a machine counts as shared

# Accounts of a step in its order; `rest` is what no mark explains.
PARTS = ("data", "augmentation", "generator", "backbone", "projection", "discriminator",
         "optimiser", "average", "idle", "rest")  # fmt: skip


class Ledger:
    """The accounts of one session."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.active = False
        self.steps = 0
        self.seconds = 0.0  # wall clock of sampled steps
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.outside = {"training": 0.0, "checkpoint": 0.0, "evaluation": 0.0}
        self._started = time.perf_counter()
        self._begun = (0.0, 0.0)
        self._last = (0.0, 0.0)

    @staticmethod
    def samples(number: int) -> bool:
        """Whether the step of this number is divided."""
        return number % SAMPLE_EVERY == SAMPLE_EVERY // 2

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the step of this number of the session, from 1; samples one in `SAMPLE_EVERY`."""
        if not self.samples(number):
            yield
            return
        self._begun = self._last = self._now()
        self.active = True
        before = sum(self.parts.values())
        try:
            yield
        finally:
            self.mark("rest")
            self.active = False
        wall = self._now()[0] - self._begun[0]
        self.seconds += wall
        self.steps += 1
        self.parts["rest"] += wall - (sum(self.parts.values()) - before)

    def mark(self, part: str) -> None:
        """Puts the time since the last mark on an account."""
        if not self.active:
            return
        now = self._now()
        wall = now[0] - self._last[0]
        own = wall if self.device.type == "cuda" else min(wall, now[1] - self._last[1])
        self.parts[part] += own
        self.parts["idle"] += wall - own
        self._last = now

    def when_gradient_arrives(self, part: str, tensors: Sequence[Tensor]) -> None:
        """Marks a part as the backward pass leaves it, at the first of these tensors.

        Autograd goes backward in the order of the forward pass: a network's own operators are all
        done before the first one of the network before it.
        """
        if not self.active:
            return
        waiting = [part]

        def arrived(_: Tensor) -> None:
            if waiting:
                self.mark(waiting.pop())

        for tensor in tensors:
            if tensor.requires_grad:
                tensor.register_hook(arrived)

    @contextmanager
    def outside_steps(self, what: str) -> Iterator[None]:
        """Puts the time of a block between steps on an account of the session."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.outside[what] += time.perf_counter() - started

    def summary(self, steady_step: float | None) -> dict[str, Any] | None:
        """What a record keeps; None = no step was sampled yet.

        Args:
            steady_step: seconds of a step that was not sampled, for comparison.
        """
        if not self.steps:
            return None
        whole = time.perf_counter() - self._started
        shares = {name: spent / self.seconds for name, spent in self.parts.items()}
        if self.device.type == "cuda":
            shares.pop("idle")
        return {
            "sampled_steps": self.steps,
            "sampled_step_s": self.seconds / self.steps,
            "steady_step_s": steady_step,
            "shares": shares,
            "session": {"wall_s": whole, **{f"{k}_s": v for k, v in self.outside.items()},
                        "rest_s": whole - sum(self.outside.values())},
            "contended": self.device.type != "cuda" and shares["idle"] > CONTENDED,
        }  # fmt: skip

    def _now(self) -> tuple[float, float]:
        """Wall clock and this thread's processor time, once the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.thread_time()
