"""The denoising loss of a ControlNet (arXiv 2302.05543, eq. 10), which alone is trained."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from entrypoints.models.base import BaseModel
from entrypoints.training.denoising import Batch, DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.watchdog import Probe
from orchestrator.contract.figures import CONTROL_MEASURES
from orchestrator.contract.mixins import Denoising

NAMES = tuple(measure.name for measure in CONTROL_MEASURES)
"""Of what is followed beside the loss."""


class ControlObjective(DenoisingObjective):
    """Denoising loss of the frozen base model with the residuals of a ControlNet."""

    def __init__(
        self,
        base: BaseModel,
        recipe: Denoising,
        stream: Stream,
        encoder: PromptEncoder,
        network: nn.Module,
    ) -> None:
        super().__init__(base, recipe, [stream], encoder)
        self.network = network
        self.followed: dict[str, float] = {}
        """What was measured when conditions were looked at last, by `NAMES`; nothing before the first time."""
        self.obeys = False
        """Whether conditions were clearly obeyed at any time so far."""

    def predicted(self, batch: Batch, noisy: Tensor, times: Tensor) -> Tensor:
        """Return what the base model predicts with the residuals for the batch's condition pictures."""
        if batch.pictures is None:
            raise ValueError("the stream has no conditions")
        conditions = self.base.framed(self.encoder(batch.prompts), batch.framings)
        residuals = self.base.residuals(self.network, noisy, times, conditions, batch.pictures)
        return self.base.predict(noisy, times, conditions, residuals)

    def probe(self, samples: int, *, told: float = 1.0, shift: int = 0) -> Probe | None:
        """Return the loss of some samples, little of which depends on the conditions."""
        probe = super().probe(samples, told=told, shift=shift)
        if probe is None:
            return None
        return replace(probe, falls=False)

    def state(self) -> Mapping[str, Tensor]:
        """Return what was measured so far: a resumed run goes on with its curve."""
        if not self.followed:
            return {}
        state = {name: torch.tensor(figure, dtype=torch.float64) for name, figure in self.followed.items()}
        return {**state, "obeys": torch.tensor(self.obeys)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what was measured so far."""
        if state:
            self.followed = {name: float(state[name]) for name in NAMES if name in state}
            self.obeys = bool(state["obeys"])

    def measures(self) -> Mapping[str, float]:
        """Return what was measured when conditions were looked at last."""
        return self.followed
