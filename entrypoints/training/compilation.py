"""The denoiser compiled by torch.compile, for training alone: what draws would compile it again for each size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from entrypoints.runtime.failures import TrainingError, first_line

COMPILER_MODULES = ("torch._dynamo", "torch._inductor")
"""Where the errors of torch.compile are defined."""


class CompiledForward:
    """A module whose forward pass is compiled while this lasts."""

    def __init__(self, module: nn.Module, *, enabled: bool, backend: Any = "inductor") -> None:
        self.module = module
        self.enabled = enabled
        self._own = module.forward
        self._compiled = torch.compile(module.forward, backend=backend) if enabled else module.forward
        if enabled:
            module.forward = self.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled code; raises TrainingError("recipe") where the machine cannot compile it."""
        try:
            return self._compiled(*args, **kwargs)
        except Exception as error:
            if not type(error).__module__.startswith(COMPILER_MODULES):
                raise
            raise TrainingError(
                "recipe",
                f"The denoiser cannot be compiled on this machine: {first_line(error)}",
                "Submit again with -s compile=false.",
            ) from error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run the module's own code for as long as the context lasts."""
        self.remove()
        try:
            yield
        finally:
            if self.enabled:
                self.module.forward = self.forward

    def remove(self) -> None:
        """Return to the module's own code."""
        if self.enabled:
            self.module.forward = self._own
