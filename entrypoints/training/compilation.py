"""The denoiser compiled by torch.compile, for training alone: what draws would compile it again for each size."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class CompiledForward:
    """A module whose forward pass is compiled while this lasts."""

    def __init__(self, module: nn.Module, *, enabled: bool, backend: str = "inductor") -> None:
        self.module = module
        self.enabled = enabled
        self.forward = module.forward
        if enabled:
            self.forward = torch.compile(module.forward, backend=backend)
            module.forward = self.forward

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
            del self.module.forward  # the instance's; the class has its own
