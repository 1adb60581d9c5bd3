"""The denoising objective: draws keyed by the step, split into forward passes, one loss for each."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel, Conditions
from entrypoints.runtime.randomness import generator, grouped_indices
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.latents import Cut, Latents
from entrypoints.training.watchdog import Probe
from orchestrator.contract.recipe import Denoising

PromptsOf = Callable[[list[int], torch.Generator], list[str]]
"""From the indices of a stream's images (and a generator for random choices) to their prompts."""


class ConditionSource(Protocol):
    """The condition pictures of a stream's images."""

    def kinds_of(self, visits: int, random: torch.Generator) -> Sequence[str | None]:
        """Return which kind of condition each of some visits shows; None for none."""
        ...

    def pictures_of(self, indices: Sequence[int], cuts: Sequence[Cut], kinds: Sequence[str | None]) -> Tensor:
        """Return the conditions of images of one size, cut as the images are: (images, 3, height, width), 0 to 1."""
        ...


@dataclass(frozen=True)
class Stream:
    """One kind of training image: the subject's, or its class's."""

    name: str
    """Keys the order of its images: another name, another order."""
    latents: Latents
    """Its images, encoded."""
    prompts_of: PromptsOf
    """Their prompts."""
    weight: float = 1.0
    """Of its loss in the sum over streams."""
    is_described: bool = False
    """Whether its prompts describe each image, and not all of them together."""
    conditions: ConditionSource | None = None
    """What a ControlNet is shown of its images; None where nothing is."""


MOST_SHIFTS = 8
"""Each image is tried with fewer captions of others."""
MOST_PROMPTS = 1024
"""Encoded prompts that are kept; one of SDXL takes 0.6 MB."""


class PromptEncoder:
    """Prompts to conditions; while the text encoders are frozen, a prompt is not encoded again soon."""

    def __init__(self, base: BaseModel, *, frozen: bool) -> None:
        self.base = base
        self.frozen = frozen
        self._known: OrderedDict[str, Conditions] = OrderedDict()  # the latest used last

    def __call__(self, prompts: Sequence[str]) -> Conditions:
        """Return the conditions of a batch of prompts."""
        if not self.frozen:
            return self.base.encode_prompts(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        conditions: Conditions = {}
        for name in rows[0]:
            conditions[name] = torch.cat([row[name] for row in rows])
        return conditions

    def _row(self, prompt: str) -> Conditions:
        """Return the conditions of one prompt, first dimension 1."""
        if prompt not in self._known:
            with torch.no_grad():
                self._known[prompt] = self.base.encode_prompts([prompt])
            if len(self._known) > MOST_PROMPTS:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]


@dataclass(frozen=True)
class Batch:
    """Some samples with all that is random in them; first dimension: the sample."""

    latents: Tensor
    """x, drawn from the autoencoder's distribution: (samples, channels, height, width)."""
    noise: Tensor
    """e, of the same shape."""
    times: Tensor
    """(samples,)."""
    prompts: list[str]
    weights: Tensor | None
    """Of each place in the loss, (samples, 1, height, width); None where all are 1."""
    framings: Tensor
    """How the image of each was cut, as in `latents.Views`: (samples, 4)."""
    pictures: Tensor | None = None
    """What a ControlNet is shown, from 0 to 1: (samples, 3, height, width)."""

    def part(self, number: int, size: int) -> "Batch":
        """Return the samples of one forward pass."""
        some = slice(number * size, (number + 1) * size)
        return Batch(
            latents=self.latents[some],
            noise=self.noise[some],
            times=self.times[some],
            prompts=self.prompts[some],
            pictures=None if self.pictures is None else self.pictures[some],
            weights=None if self.weights is None else self.weights[some],
            framings=self.framings[some],
        )


def join(batches: Sequence[Batch]) -> Batch:
    """Return the samples of several batches as one, in their order."""
    latents = []
    noise = []
    times = []
    prompts = []
    pictures = []
    weights = []
    for batch in batches:
        latents.append(batch.latents)
        noise.append(batch.noise)
        times.append(batch.times)
        prompts.extend(batch.prompts)
        if batch.pictures is not None:
            pictures.append(batch.pictures)
        if batch.weights is not None:
            weights.append(batch.weights)
    return Batch(
        latents=torch.cat(latents),
        noise=torch.cat(noise),
        times=torch.cat(times),
        prompts=prompts,
        pictures=torch.cat(pictures) if pictures else None,
        weights=torch.cat(weights) if weights else None,
        framings=torch.cat([batch.framings for batch in batches]),
    )


class DenoisingObjective:
    """Denoising loss over one or more streams, whose samples share the forward pass."""

    def __init__(
        self,
        base: BaseModel,
        recipe: Denoising,
        streams: Sequence[Stream],
        encoder: PromptEncoder,
    ) -> None:
        self.base = base
        self.recipe = recipe
        self.streams = streams
        self.encoder = encoder

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield this rank's loss for each forward pass of a step."""
        recipe = self.recipe
        # One generator for all streams and ranks, used in a fixed order: the key has rank 0 on every rank.
        random = generator(recipe.seed, "step", 0, step)
        batches = [self._draw(stream, step, ranks, random) for stream in self.streams]
        for number in range(recipe.gradient_accumulation):
            parts = [batch.part(number, recipe.batch_size) for batch in batches]
            yield self._loss(parts)

    @torch.no_grad()
    def probe(self, samples: int, *, told: float = 1.0, shift: int = 0) -> Probe | None:
        """Return the loss of some samples of the first stream, the same at every call."""
        stream = self.streams[0]
        random = generator(self.recipe.seed, "probe")
        largest = max(stream.latents.groups, key=len)
        count = len(largest)
        # From all over the group: an image that counts as several stands there several times in a row.
        places = [number * max(count, samples) // samples for number in range(samples)]
        indices = [largest[place % count] for place in places]
        batch = self._sample(stream, indices, random, slice(None))
        if shift:
            captions = [text for text in dict.fromkeys(batch.prompts) if text]  # a caption may be left out
            if not stream.is_described or shift >= min(len(captions), MOST_SHIFTS):
                return None
            others = dict(zip(captions, captions[shift:] + captions[:shift], strict=True))
            batch = replace(batch, prompts=[others.get(text, text) for text in batch.prompts])
        losses = []
        squares = []
        size = self.recipe.batch_size
        for number in range(math.ceil(samples / size)):
            part = batch.part(number, size)
            noisy = self.base.process.noised(part.latents, part.noise, part.times)
            times = self.base.process.scaled_times(part.times, told)
            predicted = self.predicted(part, noisy, times)
            target = self.base.process.target(part.latents, part.noise, part.times)
            losses.append(squared_error(predicted, target, part.weights).mean(dim=(1, 2, 3)))
            squares.append(squared_error(target, torch.zeros_like(target), part.weights).mean(dim=(1, 2, 3)))
        spread = float(batch.latents.std())
        return Probe(torch.cat(losses), torch.cat(squares), spread)

    def predicted(self, batch: Batch, noisy: Tensor, times: Tensor) -> Tensor:
        """Return what the model predicts for noisy latents of a batch, which it is told are of these times."""
        conditions = self.base.framed(self.encoder(batch.prompts), batch.framings)
        return self.base.predict(noisy, times, conditions)

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: every step follows from its number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: there is no state."""

    def measures(self) -> Mapping[str, float]:
        """Return nothing: the loss is all there is to follow."""
        return {}

    def _draw(
        self,
        stream: Stream,
        step: int,
        ranks: Ranks,
        random: torch.Generator,
    ) -> Batch:
        """Draw a stream's samples of the whole step for all ranks, and return this rank's share.

        Two ranks therefore see what one rank with twice the batch sees, and splitting a step into more forward passes
        changes nothing. Only this rank's images are encoded.
        """
        recipe = self.recipe
        own = recipe.batch_size * recipe.gradient_accumulation
        everyone = own * ranks.ranks
        begin = ranks.rank * own
        share = slice(begin, begin + own)

        indices = grouped_indices(
            recipe.seed,
            stream.name,
            step,
            everyone,
            stream.latents.groups,
        )
        return self._sample(stream, indices, random, share)

    def _sample(
        self,
        stream: Stream,
        indices: list[int],
        random: torch.Generator,
        share: slice,
    ) -> Batch:
        """Draw what is random of some visits of images, and return a share of them."""
        recipe = self.recipe
        # Drawn for all visits, so that a share's do not depend on how many ranks there are.
        cuts = stream.latents.cuts(len(indices), random)[share]
        views = stream.latents.views_of(indices[share], cuts)
        mean = views.moments[:, 0]  # (samples, channels, height, width)
        deviation = views.moments[:, 1]

        shape = (len(indices), *mean.shape[1:])
        posterior = torch.randn(shape, generator=random)
        noise = torch.randn(shape, generator=random)
        if recipe.noise_offset:  # https://www.crosslabs.org/blog/diffusion-with-offset-noise
            channels = torch.randn((*shape[:2], 1, 1), generator=random)
            noise += recipe.noise_offset * channels
        times = self.base.process.times(len(indices), random)
        prompts = stream.prompts_of(indices, random)
        pictures = None
        if stream.conditions is not None:
            kinds = stream.conditions.kinds_of(len(indices), random)[share]
            pictures = stream.conditions.pictures_of(indices[share], cuts, kinds).to(mean)
        return Batch(
            latents=mean + deviation * posterior[share].to(mean),
            noise=noise[share].to(mean),
            times=times[share].to(mean.device),
            prompts=prompts[share],
            pictures=pictures,
            weights=views.weights,
            framings=views.framings,
        )

    def _loss(self, parts: Sequence[Batch]) -> Tensor:
        """Return the sum over streams of weight times denoising loss (DreamBooth, arXiv 2208.12242, eq. 2).

        `parts` are the samples of each stream. Those of one size share a forward pass.
        """
        together = len({part.latents.shape for part in parts}) == 1
        batches = [join(parts)] if together else parts
        losses: list[Tensor] = []
        for batch in batches:
            losses += self._losses_of(batch, count=len(parts) // len(batches))
        weighted = []
        for stream, loss in zip(self.streams, losses, strict=True):
            weighted.append(loss * stream.weight)
        return torch.stack(weighted).sum()

    def _losses_of(self, batch: Batch, count: int) -> list[Tensor]:
        """Return the denoising loss of each of the `count` equal parts that a batch is joined of."""
        process = self.base.process
        noisy = process.noised(batch.latents, batch.noise, batch.times)
        prediction = self.predicted(batch, noisy, batch.times)
        target = process.target(batch.latents, batch.noise, batch.times)
        sample_weights = process.weights(batch.times, self.recipe.snr_gamma)

        predictions = prediction.chunk(count)
        targets = target.chunk(count)
        of_samples = chunks(sample_weights, count)
        of_places = chunks(batch.weights, count)
        losses = []
        for number in range(count):
            loss = weighted_mse(
                predictions[number],
                targets[number],
                of_samples[number],
                of_places[number],
            )
            losses.append(loss)
        return losses


def chunks(weights: Tensor | None, count: int) -> Sequence[Tensor | None]:
    """Return weights in equal parts."""
    if weights is None:
        return [None] * count
    return weights.chunk(count)


def weighted_mse(
    prediction: Tensor,
    target: Tensor,
    weights: Tensor | None,
    places: Tensor | None = None,
) -> Tensor:
    """Return the mean over the batch of each sample's squared error times its weight, in float32.

    prediction, target: (samples, channels, height, width); weights: (samples,), and of the places of each sample
    (samples, 1, height, width); None when all are 1.
    """
    squared = squared_error(prediction, target, places)
    if weights is None:
        return squared.mean()
    by_sample = squared.mean(dim=(1, 2, 3))
    return (by_sample * weights).mean()


def squared_error(prediction: Tensor, target: Tensor, places: Tensor | None) -> Tensor:
    """Return the squared error, (samples, channels, height, width), times the weights of places, in float32."""
    squared = (prediction.float() - target.float()).square()
    return squared if places is None else squared * places
