"""Optimizers by the recipe's name for them, and their state as tensors and numbers that a checkpoint can hold."""

import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.mixins import Optimised

Numbers = dict[str, int | float]
"""What an optimizer keeps beside tensors, by its own names."""


def adamw(recipe: Optimised, parameters: list[nn.Parameter]) -> Optimizer:
    """Return AdamW (arXiv 1711.05101)."""
    return torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def adafactor(recipe: Optimised, parameters: list[nn.Parameter]) -> Optimizer:
    """Return Adafactor (arXiv 1804.04235): of the second moments it keeps the sums of rows and columns."""
    return torch.optim.Adafactor(
        parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )


def prodigy(recipe: Optimised, parameters: list[nn.Parameter]) -> Optimizer:
    """Return Prodigy (arXiv 2306.06101): AdamW with a rate that it estimates; the recipe's is a factor of it.

    With the corrections that its authors advise for diffusion models: https://github.com/konstmish/prodigy
    """
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise _missing("prodigyopt", recipe) from error
    with redirect_stdout(sys.stderr):  # it prints a remark, and stdout is for events
        optimizer: Optimizer = Prodigy(
            parameters,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
    return optimizer


def adamw8bit(recipe: Optimised, parameters: list[nn.Parameter]) -> Optimizer:
    """Return AdamW with moments of 8 bits (arXiv 2110.02861), which only GPUs compute."""
    if parameters[0].device.type != "cuda":
        raise TrainingError(
            "settings",
            "optimizer=adamw8bit needs a GPU, and this machine has none that torch can use.",
            "Submit again with -s optimizer=adamw, or on an instance with a GPU.",
        )
    return with_8_bits(recipe, parameters)


def with_8_bits(recipe: Optimised, parameters: list[nn.Parameter]) -> Optimizer:
    """Return AdamW with moments of 8 bits on any device; those of fewer than 4096 numbers keep 32."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise _missing("bitsandbytes", recipe) from error
    optimizer: Optimizer = AdamW8bit(
        parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    return optimizer


OPTIMIZERS: Mapping[str, Callable[[Optimised, list[nn.Parameter]], Optimizer]] = {
    "adamw": adamw,
    "adafactor": adafactor,
    "prodigy": prodigy,
    "adamw8bit": adamw8bit,
}
"""By the recipe's `optimizer`."""


def _missing(package: str, recipe: Optimised) -> TrainingError:
    return TrainingError(
        "settings",
        f"optimizer={recipe.optimizer} needs the package {package}, which is not installed.",
        f"pip install {package}, or submit again with -s optimizer=adamw.",
    )


class SecondRate(NamedTuple):
    """A learning rate of their own for some parameters, which are not decayed."""

    names: Collection[str]
    """Of these parameters."""
    of_step: Callable[[int], float]
    """The rate of a step, counted from 0."""


class SavedOptimizer:
    """An optimizer whose state goes into checkpoints and comes back from them."""

    def __init__(
        self,
        recipe: Optimised,
        parameters: Mapping[str, nn.Parameter],
        second: SecondRate | None = None,
    ) -> None:
        self.parameters = parameters
        self.second = second
        apart = second.names if second is not None else ()
        first = [parameter for name, parameter in parameters.items() if name not in apart]
        self.optimizer = OPTIMIZERS[recipe.optimizer](recipe, first)
        if second is not None:
            others = [parameter for name, parameter in parameters.items() if name in apart]
            self.optimizer.add_param_group({"params": others, "weight_decay": 0.0})
        self._group = self.optimizer.param_groups[0]
        self._first = dict(self._group)  # as it was before the first step

    def set_rate(self, rate: float, step: int) -> None:
        """Set the learning rate of a step, and the second one."""
        self._group["lr"] = rate
        if self.second is not None:
            self.optimizer.param_groups[1]["lr"] = self.second.of_step(step)

    def tensors(self) -> Iterable[tuple[str, str, Tensor]]:
        """Yield kind, name of the parameter, and value of everything that is kept of each parameter.

        A number that is no tensor becomes one of 64 bits, which no optimizer keeps itself.
        """
        for name, parameter in self.parameters.items():
            for kind, value in self.optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    yield kind, name, value
                elif isinstance(value, int | float):
                    wide = torch.float64 if isinstance(value, float) else torch.int64
                    yield kind, name, torch.tensor(value, dtype=wide)

    def restore_tensor(self, kind: str, name: str, value: Tensor) -> None:
        """Take over what `tensors` gave."""
        is_number = value.ndim == 0 and value.dtype in (torch.float64, torch.int64)
        parameter = self.parameters[name]
        self.optimizer.state[parameter][kind] = value.item() if is_number else value

    def numbers(self) -> Numbers:
        """Return what is kept for all parameters together and is no longer as it was at the start."""
        found: Numbers = {}
        for name, value in self._group.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and name != "lr" and value != self._first.get(name) and math.isfinite(value):
                found[name] = value
        return found

    def restore_numbers(self, numbers: Mapping[str, Any]) -> None:
        """Take over what `numbers` gave."""
        self._group.update(numbers)
