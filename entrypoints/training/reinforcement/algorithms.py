"""What differs by the algorithm: how a round is drawn, and what is learned from a batch of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.training.averages import replaced
from entrypoints.training.denoising import PromptEncoder
from entrypoints.training.reinforcement import ddpo, nft
from entrypoints.training.reinforcement.figures import CLIP_FRACTION, KL, POLICY_CHANGE, RATIO_CHANGE, StepFigures
from entrypoints.training.reinforcement.rollouts import Asked, Drawn, Sampler
from orchestrator.contract.recipes.rlhf import Rlhf


@dataclass(frozen=True)
class RoundBatch:
    """Some images of a round, drawn together, with what was made of their rewards."""

    asked: Sequence[Asked]
    drawn: Drawn
    """On the device."""
    advantages: Tensor
    """(samples,), float32 on the device."""
    sampler_weights: Mapping[str, Tensor]
    """What drew them, by the names of the trained parameters."""

    @property
    def prompts(self) -> list[str]:
        """Of each image."""
        return [one.prompt for one in self.asked]


class Algorithm(Protocol):
    """A way to draw rounds and to learn from them."""

    sampler: Sampler
    """Draws the images of a round."""

    def losses(self, batch: RoundBatch, random: torch.Generator, figures: StepFigures) -> Iterator[Tensor]:
        """Yield the loss of each moment at which a step learns from a batch, and add what is followed.

        Args:
            batch: Some images of the round, those that were drawn together.
            random: Chooses the moments; keyed by rank, step and batch, so that a resumed step learns at the same ones.
            figures: Of the step: divergences, ratios and changes of predictions are added.
        """
        ...


class Ddpo:
    """DDPO: learns from the steps of the sampler."""

    def __init__(self, recipe: Rlhf, policy: ddpo.Policy, sampler: Sampler, tuner: Tuner) -> None:
        """Prepare to learn.

        Args:
            recipe: How far a step may move, and how much it is held near the base model.
            policy: What draws, and is trained.
            sampler: Draws batches with their paths.
            tuner: The adapter, which is turned off for what the base model would draw.
        """
        self.recipe = recipe
        self.policy = policy
        self.sampler = sampler
        self.tuner = tuner

    def losses(self, batch: RoundBatch, random: torch.Generator, figures: StepFigures) -> Iterator[Tensor]:
        """Yield the loss of each of some steps of the sampler, all images of the batch at the same one.

        Raises ValueError for images whose path is not known.
        """
        recipe = self.recipe
        path = batch.drawn.path
        if path is None:
            raise ValueError("the images have no path")
        with apart():
            conditions = self.policy.conditions_of(batch.prompts)
        steps = len(self.policy.sampler.timesteps)
        for number in ddpo.drawn_steps(steps, recipe.moments, random):
            reference = None
            if recipe.kl_weight:
                noisy = path.latents[number]
                with apart(), self.tuner.untuned(no_copy):
                    reference = self.policy.transition(number, noisy, conditions)
            step = ddpo.repeat_step(self.policy, path, number, conditions)
            loss = ddpo.clipped_loss(step.ratio, batch.advantages, recipe.clip_range)
            change = step.ratio.detach() - 1
            is_clipped = change.abs() > recipe.clip_range
            figures.add(RATIO_CHANGE, change)
            figures.add(CLIP_FRACTION, is_clipped)
            if reference is not None:
                divergence = step.transition.divergence(reference).mean()
                figures.add(KL, divergence)
                loss = loss + recipe.kl_weight * divergence
            yield loss


class Nft:
    """DiffusionNFT: learns from noise that is added to the images."""

    def __init__(self, recipe: Rlhf, base: BaseModel, sampler: Sampler, tuner: Tuner) -> None:
        """Prepare to learn.

        Args:
            recipe: How far the two implied models lie apart, and how much the model is held near the base model.
            base: The model, with the adapter that is trained.
            sampler: Draws batches, in any way.
            tuner: The adapter, whose weights are replaced by those that drew, or turned off.
        """
        self.recipe = recipe
        self.base = base
        self.sampler = sampler
        self.tuner = tuner
        self.encoder = PromptEncoder(base, frozen=True)

    def losses(self, batch: RoundBatch, random: torch.Generator, figures: StepFigures) -> Iterator[Tensor]:
        """Yield the loss at each of some times."""
        recipe = self.recipe
        process = self.base.process
        latents = batch.drawn.latents
        good = nft.optimality(batch.advantages, recipe.advantage_clip)
        with apart():
            conditions = self.encoder(batch.prompts)
        for _ in range(recipe.moments):
            times = process.times(len(latents), random)
            times = times.to(latents.device)
            noise = torch.randn(latents.shape, generator=random)
            noise = noise.to(latents)
            noisy = process.noised(latents, noise, times)
            noised = nft.Noised(latents, noisy, times)
            with apart(), replaced(self.tuner.parameters, batch.sampler_weights):
                old = self.base.predict(noisy, times, conditions)
            reference = None
            if recipe.kl_weight:
                with apart(), self.tuner.untuned(no_copy):
                    reference = self.base.predict(noisy, times, conditions)
            prediction = self.base.predict(noisy, times, conditions)
            loss = nft.two_sided_loss(process, noised, prediction, old, good, recipe.nft_strength)
            change = prediction.detach() - old
            figures.add(POLICY_CHANGE, change.square().mean())
            if reference is not None:
                away = prediction.float() - reference.float()
                divergence = away.square().mean()
                figures.add(KL, divergence)
                loss = loss + recipe.kl_weight * divergence
            yield loss


@contextmanager
def apart() -> Iterator[None]:
    """Compute without gradients, and leave nothing of it to what is computed with them.

    autocast keeps the weights that it has rounded. Rounded without gradients, they would have none afterwards either;
    rounded while others stood in their place, they would be those.
    """
    torch.clear_autocast_cache()
    with torch.no_grad():
        yield
    torch.clear_autocast_cache()


def no_copy() -> BaseModel:
    """Never called: an adapter is turned off, and needs no second model."""
    raise ValueError("the adapter cannot be turned off")
