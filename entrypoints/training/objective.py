"""What the training loop minimises, whatever the method."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from entrypoints.runtime.ranks import Ranks


class Objective(Protocol):
    """Where a step's losses come from.

    What is random in a step follows from the seed and the step's number, so that it need not be saved. What cannot be
    computed again, such as samples of a policy that has been trained since, is the objective's state: it is saved with
    each checkpoint and restored from it.
    """

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield this rank's loss for each forward pass of a step, counted from 0; their mean is the step's loss."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """Return what a resumed run could not compute again."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned when the checkpoint was written."""
        ...

    def measures(self) -> Mapping[str, float]:
        """Return the figures of the latest step that are worth following beside its loss, by name."""
        ...
