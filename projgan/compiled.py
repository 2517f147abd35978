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
    """What is missing for compiling here; empty = nothing that is known beforehand."""
    if device.type == "cpu":
        from torch._inductor import config

        given = config.cpp.cxx
        names = [n for n in (given if isinstance(given, tuple) else (given,)) if n]
        if not any(shutil.which(str(name)) for name in [*names, "c++"]):
            return "no C++ compiler is on the path"
    elif not torch.utils._triton.has_triton():
        return "triton is not installed"
    return ""


class Compiling:
    """Compiles networks in place; their state keeps its names.

    The first step is when the compiler runs. Should it fail there, the state from before is put
    back and the step is done again eagerly.

    Args:
        networks: what is compiled.
    """

    def __init__(self, networks: list[nn.Module], device: torch.device) -> None:
        self.networks = networks
        self.waiting = False
        if why := obstacle(device):
            log.warning("train.compile: %s; going on without", why)
            return
        for network in networks:
            network.compile()
        self.waiting = True

    def first(
        self, step: Callable[[], Any], state: Callable[[], Any], load: Callable[[Any], None]
    ) -> Any:
        """Runs a step; falls back where compiling fails."""
        if not self.waiting:
            return step()
        self.waiting = False
        before = deepcopy(state())
        try:
            return step()
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            log.warning("train.compile: %s: %s; going on without", type(error).__name__, reason)
            for network in self.networks:
                network._compiled_call_impl = None
            load(before)
            return step()
