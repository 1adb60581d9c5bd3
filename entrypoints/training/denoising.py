"""The denoising objective: draws keyed by the step, cut into forward passes, one loss for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel, Conditions
from entrypoints.runtime.randomness import generator, pictures_at
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.latents import Latents
from orchestrator.contract.recipe import Denoising

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
    """Prompts to conditions; each prompt is encoded only once while the text encoders are frozen."""

    def __init__(self, base: BaseModel, *, frozen: bool) -> None:
        self.base = base
        self.frozen = frozen
        self._known: dict[str, Conditions] = {}

    def __call__(self, prompts: Sequence[str]) -> Conditions:
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
class Batch:
    """Some samples of a stream with all that is random in them; first dimension: the sample."""

    latents: Tensor
    noise: Tensor
    times: Tensor
    prompts: list[str]

    def part(self, number: int, size: int) -> "Batch":
        """Return the samples of one forward pass."""
        some = slice(number * size, (number + 1) * size)
        return Batch(self.latents[some], self.noise[some], self.times[some], self.prompts[some])


class DenoisingObjective:
    """Denoising loss over one or more streams, whose samples share the forward pass."""

    def __init__(self, base: BaseModel, recipe: Denoising, streams: Sequence[Stream], encoder: PromptEncoder) -> None:
        self.base = base
        self.recipe = recipe
        self.streams = streams
        self.encoder = encoder

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield this rank's loss for each forward pass of a step."""
        random = generator(self.recipe.seed, "step", 0, step)
        batches = [self._batch(stream, step, ranks, random) for stream in self.streams]
        for number in range(self.recipe.gradient_accumulation):
            yield self._loss([batch.part(number, self.recipe.batch_size) for batch in batches])

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: every step follows from its number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """There is nothing to take back."""

    def measures(self) -> Mapping[str, float]:
        """Return nothing: the loss says it all."""
        return {}

    def _batch(self, stream: Stream, step: int, ranks: Ranks, random: torch.Generator) -> Batch:
        """Draw the whole step of all ranks and return this rank's share.

        So two ranks see what one rank with twice the batch sees, and splitting a step into more forward passes changes
        nothing. Only this rank's pictures are encoded.
        """
        own = self.recipe.batch_size * self.recipe.gradient_accumulation
        everyone = own * ranks.ranks
        share = slice(ranks.rank * own, (ranks.rank + 1) * own)
        indices = pictures_at(self.recipe.seed, stream.name, step * everyone, everyone, len(stream.latents))
        moments = stream.latents.moments_of(indices, random, share)
        mean, deviation = moments[:, 0], moments[:, 1]  # (samples, channels, height, width)
        shape = (everyone, *mean.shape[1:])
        posterior = torch.randn(shape, generator=random)[share].to(mean)
        noise = torch.randn(shape, generator=random)[share].to(mean)
        times = self.base.process.times(everyone, random)[share].to(mean.device)
        prompts = stream.prompts_of(indices, random)[share]
        return Batch(mean + deviation * posterior, noise, times, prompts)

    def _loss(self, batches: Sequence[Batch]) -> Tensor:
        """Return the sum over streams of weight times denoising loss (DreamBooth, arXiv 2208.12242, eq. 2)."""
        process = self.base.process
        latents = torch.cat([batch.latents for batch in batches])
        noise = torch.cat([batch.noise for batch in batches])
        times = torch.cat([batch.times for batch in batches])
        prompts: list[str] = []
        for batch in batches:
            prompts += batch.prompts

        noisy = process.noised(latents, noise, times)
        prediction = self.base.predict(noisy, times, self.encoder(prompts))
        target = process.target(latents, noise, times)
        sample_weights = process.weights(times, self.recipe.snr_gamma)

        count = len(self.streams)  # each has an equal share of the samples
        weights = [None] * count if sample_weights is None else sample_weights.chunk(count)
        losses = []
        for stream, guess, truth, weight in zip(
            self.streams, prediction.chunk(count), target.chunk(count), weights, strict=True
        ):
            losses.append(weighted_mse(guess, truth, weight) * stream.weight)
        return torch.stack(losses).sum()


def weighted_mse(prediction: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over the batch of each sample's squared error times its weight, in float32."""
    squared = (prediction.float() - target.float()).square()
    if weights is None:
        return squared.mean()
    return (squared.mean(dim=(1, 2, 3)) * weights).mean()
