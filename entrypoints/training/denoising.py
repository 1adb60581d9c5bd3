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
from orchestrator.contract.mixins import Denoising

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
        """Return the conditions of a batch of prompts, by name; first dimension: the prompt.

        With frozen text encoders they carry no gradient, and the newest ones are kept (see MOST_PROMPTS).
        """
        if not self.frozen:
            return self.base.encode_prompts(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        conditions: Conditions = {}
        for name in rows[0]:
            parts = [row[name] for row in rows]
            conditions[name] = torch.cat(parts)
        return conditions

    def _row(self, prompt: str) -> Conditions:
        """Return the conditions of one prompt, first dimension 1."""
        known = self._known
        if prompt not in known:
            with torch.no_grad():
                known[prompt] = self.base.encode_prompts([prompt])
            if len(known) > MOST_PROMPTS:
                known.popitem(last=False)
        known.move_to_end(prompt)
        return known[prompt]


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
        begin = number * size
        some = slice(begin, begin + size)
        pictures = None
        if self.pictures is not None:
            pictures = self.pictures[some]
        weights = None
        if self.weights is not None:
            weights = self.weights[some]
        return Batch(
            latents=self.latents[some],
            noise=self.noise[some],
            times=self.times[some],
            prompts=self.prompts[some],
            pictures=pictures,
            weights=weights,
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
    framings = []
    for batch in batches:
        latents.append(batch.latents)
        noise.append(batch.noise)
        times.append(batch.times)
        prompts.extend(batch.prompts)
        framings.append(batch.framings)
        if batch.pictures is not None:
            pictures.append(batch.pictures)
        if batch.weights is not None:
            weights.append(batch.weights)
    all_pictures = None
    if pictures:
        all_pictures = torch.cat(pictures)
    all_weights = None
    if weights:
        all_weights = torch.cat(weights)
    return Batch(
        latents=torch.cat(latents),
        noise=torch.cat(noise),
        times=torch.cat(times),
        prompts=prompts,
        pictures=all_pictures,
        weights=all_weights,
        framings=torch.cat(framings),
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
        """Yield this rank's loss for each forward pass of a step, a scalar.

        What is random of a step follows from the recipe's seed and the number of the step, so that a resumed run draws
        what the interrupted one would have drawn.
        """
        recipe = self.recipe
        # One generator for all streams and ranks, used in a fixed order: the key has rank 0 on every rank.
        random = generator(recipe.seed, "step", 0, step)
        batches = [self._draw(stream, step, ranks, random) for stream in self.streams]
        for number in range(recipe.gradient_accumulation):
            parts = [batch.part(number, recipe.batch_size) for batch in batches]
            yield self._loss(parts)

    @torch.no_grad()
    def probe(self, samples: int, *, told: float = 1.0, shift: int = 0) -> Probe | None:
        """Return the loss of some samples of the first stream, the same at every call.

        `told`: factor of the times that the model is told. `shift`: each image gets the prompt of another, so many
        captions further; None is returned where there are too few captions for it.
        """
        stream = self.streams[0]
        random = generator(self.recipe.seed, "probe")
        largest = max(stream.latents.groups, key=len)
        count = len(largest)
        # From all over the group: an image that counts as several stands there several times in a row.
        span = max(count, samples)
        indices = []
        for number in range(samples):
            place = number * span // samples
            indices.append(largest[place % count])
        batch = self._sample(stream, indices, random, slice(None))
        if shift:
            shifted = shifted_prompts(batch.prompts, shift)
            if shifted is None:
                return None
            if not stream.is_described:
                return None
            batch = replace(batch, prompts=shifted)
        process = self.base.process
        losses = []
        squares = []
        size = self.recipe.batch_size
        for number in range(math.ceil(samples / size)):
            part = batch.part(number, size)
            noisy = process.noised(part.latents, part.noise, part.times)
            times = process.scaled_times(part.times, told)
            predicted = self.predicted(part, noisy, times)
            target = process.target(part.latents, part.noise, part.times)
            loss = squared_error(predicted, target, part.weights)
            losses.append(sample_means(loss))
            nothing = torch.zeros_like(target)
            square = squared_error(target, nothing, part.weights)
            squares.append(sample_means(square))
        spread = float(batch.latents.std())
        return Probe(torch.cat(losses), torch.cat(squares), spread)

    def predicted(self, batch: Batch, noisy: Tensor, times: Tensor) -> Tensor:
        """Return what the model predicts for noisy latents of a batch, which it is told are of these times.

        noisy: (samples, channels, height, width), as is what is returned; times: (samples,).
        """
        encoded = self.encoder(batch.prompts)
        conditions = self.base.framed(encoded, batch.framings)
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
        visits = len(indices)
        own_indices = indices[share]
        # Drawn for all visits, so that a share's do not depend on how many ranks there are.
        all_cuts = stream.latents.cuts(visits, random)
        cuts = all_cuts[share]
        views = stream.latents.views_of(own_indices, cuts)
        mean = views.moments[:, 0]  # (samples, channels, height, width)
        deviation = views.moments[:, 1]

        _, channels, height, width = mean.shape
        shape = (visits, channels, height, width)
        posterior = torch.randn(shape, generator=random)
        noise = torch.randn(shape, generator=random)
        if recipe.noise_offset:  # https://www.crosslabs.org/blog/diffusion-with-offset-noise
            offsets = torch.randn((visits, channels, 1, 1), generator=random)
            noise += recipe.noise_offset * offsets
        times = self.base.process.times(visits, random)
        prompts = stream.prompts_of(indices, random)
        pictures = None
        if stream.conditions is not None:
            all_kinds = stream.conditions.kinds_of(visits, random)
            kinds = all_kinds[share]
            shown = stream.conditions.pictures_of(own_indices, cuts, kinds)
            pictures = shown.to(mean)
        own_posterior = posterior[share].to(mean)
        return Batch(
            latents=mean + deviation * own_posterior,
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
        shapes = {part.latents.shape for part in parts}
        losses: list[Tensor] = []
        if len(shapes) == 1:
            batch = join(parts)
            losses = self._losses_of(batch, count=len(parts))
        else:
            for part in parts:
                losses += self._losses_of(part, count=1)
        weighted = []
        for stream, loss in zip(self.streams, losses, strict=True):
            weighted.append(loss * stream.weight)
        of_streams = torch.stack(weighted)
        return of_streams.sum()

    def _losses_of(self, batch: Batch, count: int) -> list[Tensor]:
        """Return the denoising loss of each of the `count` equal parts that a batch is joined of.

        The parts share one forward pass; each loss is a scalar.
        """
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


def shifted_prompts(prompts: Sequence[str], shift: int) -> list[str] | None:
    """Return the prompts with each replaced by the one `shift` different prompts further; None for too few of them.

    Empty prompts stay empty: a caption may be left out.
    """
    captions = []
    for text in dict.fromkeys(prompts):
        if text:
            captions.append(text)
    if shift >= min(len(captions), MOST_SHIFTS):
        return None
    shifted = captions[shift:] + captions[:shift]
    others = dict(zip(captions, shifted, strict=True))
    return [others.get(text, text) for text in prompts]


def chunks(weights: Tensor | None, count: int) -> Sequence[Tensor | None]:
    """Return weights, whose first dimension is the sample, in equal parts; None for each part where there are none."""
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
    weighted = sample_means(squared) * weights
    return weighted.mean()


def sample_means(values: Tensor) -> Tensor:
    """Return the mean of each sample: of (samples, channels, height, width), (samples,)."""
    return values.mean(dim=(1, 2, 3))


def squared_error(prediction: Tensor, target: Tensor, places: Tensor | None) -> Tensor:
    """Return the squared error, (samples, channels, height, width), times the weights of places, in float32.

    places: (samples, 1, height, width); None when all are 1.
    """
    error = prediction.float() - target.float()
    squared = error.square()
    if places is None:
        return squared
    return squared * places
