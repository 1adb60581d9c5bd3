"""What one optimizer step minimises: draws keyed by the step, cut into forward passes, one loss for each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from entrypoints.models.base import Conditions
from entrypoints.models.ddpm import add_noise, min_snr_weights, training_target
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.randomness import generator, pictures_at
from entrypoints.training.latents import Latents
from entrypoints.training.loss import weighted_mse, with_prior
from orchestrator.contract.recipe import Recipe

PromptsOf = Callable[[list[int], torch.Generator], list[str]]
"""Pictures of a stream (and a generator for choices) to their prompts."""


@dataclass(frozen=True)
class Stream:
    """One kind of training picture: the subject's, or its class's."""

    name: str
    latents: Latents
    prompts_of: PromptsOf
    weight: float = 1.0


class PromptEncoder:
    """Prompts to conditions; each prompt is encoded only once while the text encoder is frozen."""

    def __init__(self, base: BaseModel, *, frozen: bool) -> None:
        self.base = base
        self.frozen = frozen
        self._known: dict[str, Conditions] = {}

    def __call__(self, prompts: list[str]) -> Conditions:
        """Return the conditions of a batch of prompts."""
        if not self.frozen:
            return self.base.encode_prompts(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _row(self, prompt: str) -> Conditions:
        if prompt not in self._known:
            with torch.no_grad():
                self._known[prompt] = self.base.encode_prompts([prompt])
        return self._known[prompt]


@dataclass(frozen=True)
class Draw:
    """All that is random in a stream's share of a step (or of a forward pass); first dimension: the sample."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompts: list[str]

    def part(self, number: int, size: int) -> "Draw":
        """Return the samples of one forward pass."""
        some = slice(number * size, (number + 1) * size)
        return Draw(self.latents[some], self.noise[some], self.timesteps[some], self.prompts[some])


class Objective:
    """Denoising loss over one or more streams (their samples share the forward pass)."""

    def __init__(self, base: BaseModel, recipe: Recipe, streams: list[Stream], encoder: PromptEncoder) -> None:
        self.base = base
        self.recipe = recipe
        self.streams = streams
        self.encoder = encoder
        self.alphas_cumprod = base.alphas_cumprod()

    def losses(self, step: int, rank: int = 0, ranks: int = 1) -> Iterator[Tensor]:
        """Yield the loss of each forward pass of a step; their mean is the step's loss."""
        random = generator(self.recipe.seed, "step", rank, step)
        draws = [self._draw(stream, step * ranks + rank, random) for stream in self.streams]
        for number in range(self.recipe.gradient_accumulation):
            yield self._loss([draw.part(number, self.recipe.batch_size) for draw in draws])

    def _draw(self, stream: Stream, turn: int, random: torch.Generator) -> Draw:
        """Draw a whole step at once, so that splitting it into more forward passes changes nothing."""
        samples = self.recipe.batch_size * self.recipe.gradient_accumulation
        indices = pictures_at(self.recipe.seed, stream.name, turn * samples, samples, len(stream.latents))
        moments = stream.latents.moments_of(indices, random)
        mean, deviation = moments[:, 0], moments[:, 1]  # (samples, channels, height, width)
        posterior, noise = (torch.randn(mean.shape, generator=random).to(mean) for _ in range(2))
        timesteps = torch.randint(len(self.alphas_cumprod), (samples,), generator=random)
        prompts = stream.prompts_of(indices, random)
        return Draw(mean + deviation * posterior, noise, timesteps.to(mean.device), prompts)

    def _loss(self, draws: list[Draw]) -> Tensor:
        latents, noise, timesteps = (
            torch.cat([getattr(draw, name) for draw in draws]) for name in ("latents", "noise", "timesteps")
        )
        signal = self.alphas_cumprod[timesteps]
        conditions = self.encoder([prompt for draw in draws for prompt in draw.prompts])
        prediction = self.base.predict(add_noise(latents, noise, signal), timesteps, conditions)
        target = training_target(self.base.prediction_type, latents, noise, signal)
        gamma = self.recipe.snr_gamma
        weights = None if gamma is None else min_snr_weights(self.base.prediction_type, signal, gamma)
        return self._sum_of_streams(prediction, target, weights)

    def _sum_of_streams(self, prediction: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        parts = [tensor.chunk(len(self.streams)) for tensor in (prediction, target)]
        scales = [None] * len(self.streams) if weights is None else list(weights.chunk(len(self.streams)))
        losses = [weighted_mse(guess, truth, scale) for guess, truth, scale in zip(*parts, scales, strict=True)]
        return with_prior(losses, [stream.weight for stream in self.streams])
