"""torch.compile for the networks of a run, with a way back that says why it was taken."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

# Custom gradients and vectors that move in place would cut a compiled network into pieces.
NOT_COMPILED = frozenset({"gate", "spectral"})

log = logging.getLogger(__name__)


def obstacle(device: torch.device) -> str:
    """Return what compiling lacks on this machine; "" = nothing that is known beforehand."""
    if device.type == "cpu":
        from torch._inductor import config

        given = config.cpp.cxx
        names = [n for n in (given if isinstance(given, tuple) else (given,)) if n]
        if not any(shutil.which(str(name)) for name in [*names, "c++"]):
            return "no C++ compiler is on the path"
    elif not torch.utils._triton.has_triton():
        return "triton is not installed"
    return ""


# Recorded as CUDA graphs, whose replay is one launch; what cannot be recorded is an error that says
# why, where inductor would leave it out silently.
GRAPHS = {"triton.cudagraphs": True, "triton.cudagraph_or_error": True}
# CUDA graphs are warmed up, recorded and replayed for the first time, and that anew after the first
# step, in which the projection's kernels are merged.
RECORDING_STEPS = 4


class Compiling:
    """Compiles networks in place; their state keeps its names.

    The compiler runs in the first step, and CUDA graphs are recorded in the next ones. Should that
    fail, the state from before the step is put back and the step is done again: compiled without
    graphs, or else eagerly.

    Args:
        networks: what is compiled.
        graphs: whether it is recorded as CUDA graphs too.
    """

    def __init__(self, networks: list[nn.Module], device: torch.device, graphs: bool) -> None:
        self.networks = networks
        self.graphs = False
        self.watched = 0  # coming steps in which it can fail
        if why := obstacle(device):
            log.warning("train.compile: %s; going on without", why)
        elif graphs and device.type != "cuda":
            log.warning("train.cuda_graphs: CUDA graphs need a GPU; going on without")
            self._compile(False)
        else:
            self._compile(graphs)

    def _compile(self, graphs: bool) -> None:
        self.graphs, self.watched = graphs, RECORDING_STEPS if graphs else 1
        for network in self.networks:
            network.compile(options=GRAPHS if graphs else None)

    def run(
        self, step: Callable[[], Any], state: Callable[[], Any], load: Callable[[Any], None]
    ) -> Any:
        """Runs a step; falls back where compiling or recording fails."""
        if self.graphs:  # what the step before left in their memory is not needed any more
            torch.compiler.cudagraph_mark_step_begin()
        if not self.watched:
            return step()
        self.watched -= 1
        before = deepcopy(state())
        try:
            return step()
        except Exception as error:
            if not self._falls_back(error):
                raise
        load(before)
        return self.run(step, state, load)

    def _falls_back(self, error: Exception) -> bool:
        """Changes to the next simpler form after an error; returns whether there is one."""
        reason = (str(error).strip().splitlines() or [""])[0]
        why = f"{type(error).__name__}: {reason}; going on without"
        if self.graphs and isinstance(error, RuntimeError):
            log.warning("train.cuda_graphs: %s", why)
            self._compile(False)
        elif type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            log.warning("train.compile: %s", why)
            self.watched = 0
            for network in self.networks:
                network._compiled_call_impl = None
        else:
            return False
        return True
