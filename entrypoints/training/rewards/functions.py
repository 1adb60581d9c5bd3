"""Rewards that other people wrote: functions that an installed package offers as entry points.

In the package's pyproject.toml:

    [project.entry-points."orchestrator.rewards"]
    roundness = "shapes.rewards:roundness"

The function takes images and prompts, `def roundness(images, prompts) -> list[float]`, and one that judges the images
of a group beside each other also their `groups`.
"""

import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from PIL import Image

from entrypoints.runtime.failures import TrainingError, first_line
from orchestrator.contract.problem import did_you_mean
from orchestrator.contract.rewards import BUILT_IN, ENTRY_POINTS

GROUPS = "groups"
"""Name of the parameter of a groupwise reward."""


class FunctionReward:
    """A function as a reward."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.is_groupwise = GROUPS in inspect.signature(function).parameters

    def scores(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        groups: Sequence[int],
    ) -> list[float | None]:
        """Return what the function returns: a list, or an array of numbers. It gets copies, which it may change."""
        copies = [image.copy() for image in images]
        more = {GROUPS: list(groups)} if self.is_groupwise else {}
        found: Any = self.function(copies, list(prompts), **more)
        if hasattr(found, "tolist"):  # a tensor, or an array
            found = found.tolist()
        return found  # type: ignore[no-any-return]  # whoever calls checks it


def load_function(name: str) -> FunctionReward:
    """Return the reward that an installed package offers; raises TrainingError("reward")."""
    offered = entry_points(group=ENTRY_POINTS)
    found = [entry for entry in offered if entry.name == name]
    if not found:
        known = [*BUILT_IN, *offered.names]
        raise TrainingError(
            "reward",
            f'There is no reward "{name}" where the job runs: no installed package offers it.',
            f"Install its package there, and submit again; {did_you_mean(name, known)}",
        )
    if len(found) > 1:
        values = " and ".join(sorted(entry.value for entry in found))
        raise TrainingError(
            "reward",
            f'Two packages offer the reward "{name}": {values}.',
            "Uninstall one of them, and submit again.",
        )
    try:
        return FunctionReward(name, found[0].load())
    except Exception as error:  # other people's code may raise anything
        raise TrainingError(
            "reward",
            f'The reward "{name}" ({found[0].value}) cannot be loaded: {type(error).__name__}: {first_line(error)}',
            "Mend its package, and submit again.",
        ) from error
