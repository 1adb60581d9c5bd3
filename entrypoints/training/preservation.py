"""Differential preservation: the base model itself says what the class has to look like, instead of images of it.

DreamBooth holds the class in place by images of it that the base drew (arXiv 2208.12242, sec. 3.2). The base's
prediction for the class prompt says the same without an image, for any noisy latents: those of the subject are at hand.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.training.denoising import Batch, DenoisingObjective, PromptEncoder, Stream, weighted_mse
from orchestrator.contract.recipes.dreambooth import DreamBooth

Untuned = Callable[[], AbstractContextManager[BaseModel]]
"""Gives a context with the base model as it was before it was tuned."""


class DifferentialObjective(DenoisingObjective):
    """Denoising loss on the subject's images, and how far the class has moved on the same noisy latents."""

    def __init__(
        self,
        base: BaseModel,
        recipe: DreamBooth,
        stream: Stream,
        encoder: PromptEncoder,
        untuned: Untuned,
    ) -> None:
        super().__init__(base, recipe, [stream], encoder)
        self.class_prompt = recipe.class_prompt
        self.weight = recipe.prior_loss_weight
        self.untuned = untuned

    def _loss(self, parts: Sequence[Batch]) -> Tensor:
        """Return the denoising loss plus weight times the distance between the predictions for the class."""
        (batch,) = parts
        return super()._loss(parts) + self.weight * self._drift(batch)

    def _drift(self, batch: Batch) -> Tensor:
        """Return the mean squared distance of what is predicted for the class from what the base predicts for it."""
        noisy = self.base.process.noised(batch.latents, batch.noise, batch.times)
        prompts = [self.class_prompt] * len(noisy)
        with torch.no_grad(), self.untuned() as untuned:
            conditions = untuned.framed(untuned.encode_prompts(prompts), batch.framings)
            wanted = untuned.predict(noisy, batch.times, conditions)
        conditions = self.base.framed(self.encoder(prompts), batch.framings)
        predicted = self.base.predict(noisy, batch.times, conditions)
        return weighted_mse(predicted, wanted, None)
