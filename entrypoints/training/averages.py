"""A running average of trained weights, which is steadier than the last of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of some parameters.

    Early on it forgets faster than `decay` says, or it would hold the first weights for long: step k has the decay
    (1 + k) / (10 + k) while that is less.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            self.weights[name] = parameter.detach().clone()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights as they are after `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            self.weights[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def publish(self) -> None:
        """Put the average in the place of the weights."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.weights[name])

    @contextmanager
    def published(self) -> Iterator[None]:
        """Put the average in the place of the weights for as long as the context lasts."""
        trained = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.publish()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(trained[name])
