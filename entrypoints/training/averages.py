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
        self.weights = copied(parameters)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights as they are after `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            self.weights[name].lerp_(parameter, 1 - decay)

    def publish(self) -> None:
        """Put the average in the place of the weights."""
        write(self.parameters, self.weights)

    @contextmanager
    def published(self) -> Iterator[None]:
        """Put the average in the place of the weights for as long as the context lasts."""
        with replaced(self.parameters, self.weights):
            yield


@contextmanager
def replaced(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other weights in the place of parameters for as long as the context lasts."""
    trained = copied(parameters)
    write(parameters, weights)
    try:
        yield
    finally:
        write(parameters, trained)


def copied(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return a copy of parameters."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def write(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Write weights into parameters."""
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
