"""Seconds of every part of a training step, measured on sampled steps only.

One step in `SAMPLE_EVERY` is divided by a lap timer: each mark puts the time since the mark before
it to one part. The backward pass is divided where gradients arrive at the tensors between two
networks. A sampled step begins and ends with the device's work done, so that neither it nor the
steps beside it have the other's work on their clock, and is kept out of the throughput; the other
steps carry no clock but the run's own.

On a CPU a lap is the processor time of the thread that trains, and what the wall clock shows
beyond it is `idle`: the process was ready and something else had the core, or it slept. On a GPU a
lap is the time between two events on its stream, which nothing waits for before the step's end; a
gap in which it waited for the host counts for the part that came next, so `idle` is not measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

SAMPLE_EVERY = 32  # steps
CONTENDED = 0.1  # idle share of the sampled steps from which a machine counts as shared

# Parts of a step in its order; `rest` is the time that no mark explains.
PARTS = ("data", "augmentation", "generator", "backbone", "projection", "discriminator",
         "optimiser", "average", "idle", "rest")  # fmt: skip


class StepTimer:
    """Seconds that each part of the training steps of one session took.

    Attributes:
        active: whether the current step is divided into parts.
        steps: steps that were divided.
        seconds: wall clock of these steps.
        parts: seconds by part, summed over these steps.
        outside: seconds of the session by what it did: training, checkpoints, evaluation.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.active = False
        self.steps = 0
        self.seconds = 0.0  # wall clock of sampled steps
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.outside = {"training": 0.0, "checkpoint": 0.0, "evaluation": 0.0}
        self._started = time.perf_counter()
        self._laps: list[tuple[str, Any]] = []  # of the step that is divided: (part, its end)

    @staticmethod
    def samples(number: int) -> bool:
        """Return whether the step of this number is divided into parts."""
        return number % SAMPLE_EVERY == SAMPLE_EVERY // 2

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the step of this number of the session, from 1; samples one in `SAMPLE_EVERY`."""
        if not self.samples(number):
            yield
            return
        self.synchronise()
        began = time.perf_counter()
        self._laps = []
        self.active = True
        self.mark("")
        try:
            yield
        finally:
            self.mark("rest")
            self.active = False
        self.synchronise()
        wall = time.perf_counter() - began
        self.seconds += wall
        self.steps += 1
        explained = self._add_laps()
        self.parts["rest"] += wall - explained

    def mark(self, part: str) -> None:
        """Adds the time since the last mark to a part."""
        if self.active:
            self._laps.append((part, self._clock()))

    def _add_laps(self) -> float:
        """Adds the laps of a step to their parts; returns their sum in seconds."""
        total = 0.0
        for (_, start), (part, end) in pairwise(self._laps):
            if self.device.type == "cuda":
                wall = own = start.elapsed_time(end) / 1000
            else:
                wall = end[0] - start[0]
                own = min(wall, end[1] - start[1])
            self.parts[part] += own
            self.parts["idle"] += wall - own
            total += wall
        return total

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
        """Adds the time of a block between steps to `outside`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.outside[what] += time.perf_counter() - started

    def summary(self, steady_step: float | None) -> dict[str, Any] | None:
        """Return the shares of the parts, as a record keeps them; None = no step was sampled yet.

        Args:
            steady_step: seconds of a step that was not sampled, for comparison; None = unknown.
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

    def _clock(self) -> Any:
        """Wall clock and this thread's processor time; on a GPU an event on its stream."""
        if self.device.type != "cuda":
            return time.perf_counter(), time.thread_time()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def synchronise(self) -> None:
        """Waits until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
