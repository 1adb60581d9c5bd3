"""Diffusion-DPO as an objective: pairs of pictures, of which the preferred ones become more likely."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage, crop_square, read_image
from entrypoints.runtime.randomness import generator, image_indices
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.denoising import PromptEncoder
from entrypoints.training.reinforcement.algorithms import apart, no_copy
from entrypoints.training.reinforcement.dpo import preference_loss
from entrypoints.training.reinforcement.figures import StepFigures
from orchestrator.contract.preferences import PREFERENCES_FILE, Preference, parse_preferences
from orchestrator.contract.recipes.rlhf import Rlhf


class PairBatch(NamedTuple):
    """Some pairs with all that is random in them: the chosen pictures, then the rejected ones.

    Both pictures of a pair get the same noise at the same time, so that what differs is the picture alone.
    """

    latents: Tensor
    """(2 x pairs, channels, height, width)."""
    noise: Tensor
    """The same for both pictures of a pair."""
    times: Tensor
    """(2 x pairs,), the same for both."""
    prompts: list[str]
    """(2 x pairs,)."""


class PreferenceObjective:
    """The loss on stored pairs.

    Every pair is visited as often; which noise and which time it gets in a step follows from the seed and the number of
    the step, so that there is no state to save.
    """

    def __init__(
        self,
        base: BaseModel,
        recipe: Rlhf,
        tuner: Tuner,
        images: Sequence[CaptionedImage],
        pairs: Sequence[Preference],
    ) -> None:
        """Encode the pictures, which takes a pass of the autoencoder for each.

        Args:
            base: The model, with the adapter that is trained.
            recipe: How it is trained.
            tuner: The adapter, which is turned off for what the base model predicts.
            images: The pictures.
            pairs: Which of two is better, by the names of their files.
        """
        self.base = base
        self.recipe = recipe
        self.tuner = tuner
        self.pairs = pairs
        self.encoder = PromptEncoder(base, frozen=True)
        self.figures = StepFigures()
        self.moments = encoded(base, images, recipe.resolution)
        """Mean and deviation of each picture's latents, by the name of its file."""
        any_moments = next(iter(self.moments.values()))
        self.shape = any_moments.shape[1:]
        """Of latents: (channels, height, width)."""

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield this rank's loss for each forward pass of a step."""
        recipe = self.recipe
        process = self.base.process
        passes = recipe.gradient_accumulation
        self.figures = StepFigures()
        for number in range(passes):
            passes_before = step * passes + number
            batch = self._batch(passes_before, ranks)
            noisy = process.noised(batch.latents, batch.noise, batch.times)
            target = process.target(batch.latents, batch.noise, batch.times)
            with apart():
                conditions = self.encoder(batch.prompts)
            with apart(), self.tuner.untuned(no_copy):
                reference = self.base.predict(noisy, batch.times, conditions)
            prediction = self.base.predict(noisy, batch.times, conditions)
            loss, wins = preference_loss(prediction, reference, target, recipe.dpo_beta)
            self.figures.add("preference_accuracy", wins)
            yield loss

    def _batch(self, passes_before: int, ranks: Ranks) -> PairBatch:
        """Draw the pairs of a forward pass for all ranks, and return this rank's share.

        Args:
            passes_before: Forward passes of the run before this one, which key all that is random in it.
            ranks: How many processes share the pass, and which of them this is.
        """
        seed = self.recipe.seed
        size = self.recipe.batch_size
        everyone = size * ranks.ranks
        begin = ranks.rank * size
        share = slice(begin, begin + size)
        pairs = self._visited(passes_before * everyone, everyone)
        own = pairs[share]
        # Drawn for all ranks, so that a share's do not depend on how many there are.
        random = generator(seed, "pairs", 0, passes_before)
        shape = (everyone, *self.shape)
        of_chosen = torch.randn(shape, generator=random)
        of_rejected = torch.randn(shape, generator=random)
        noise = torch.randn(shape, generator=random)
        times = self.base.process.times(everyone, random)
        names = [pair.chosen for pair in own]
        chosen = self._latents(names, of_chosen[share])
        names = [pair.rejected for pair in own]
        rejected = self._latents(names, of_rejected[share])
        prompts = [pair.prompt for pair in own]
        own_noise = noise[share].to(chosen)
        own_times = times[share].to(chosen.device)
        return PairBatch(
            latents=torch.cat([chosen, rejected]),
            noise=torch.cat([own_noise, own_noise]),
            times=torch.cat([own_times, own_times]),
            prompts=[*prompts, *prompts],
        )

    def _visited(self, first: int, count: int) -> list[Preference]:
        """Return the pairs that so many samples show, from a sample on."""
        every = len(self.pairs)
        indices = image_indices(self.recipe.seed, "pairs", first, count, every)
        return [self.pairs[index] for index in indices]

    def _latents(self, names: Sequence[str], posterior: Tensor) -> Tensor:
        """Return latents of pictures, drawn from the autoencoder's distribution."""
        found = [self.moments[name] for name in names]
        moments = torch.stack(found)
        mean = moments[:, 0]
        deviation = moments[:, 1]
        latents = mean + deviation * posterior
        return latents.to(self.base.device)

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: every step follows from its number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: there is no state."""

    def measures(self) -> Mapping[str, float]:
        """Return how often the chosen picture wins."""
        return self.figures.values()


def encoded(base: BaseModel, images: Sequence[CaptionedImage], size: int) -> dict[str, Tensor]:
    """Return mean and deviation of the latents of each picture, (2, channels, height, width), by its file's name.

    Pictures are cut to squares with a side of `size` pixels. They lie in main memory.
    """
    found = {}
    for image in images:
        picture = read_image(image.path)
        square = crop_square(picture, size)
        moments = base.encode_images([square])
        found[image.path.name] = moments[0].cpu()
    return found


def read_pairs(folder: Path | None, images: Sequence[CaptionedImage]) -> list[Preference]:
    """Read the pairs of a job; raises TrainingError("dataset") where there are none, which a submit has checked."""
    names = {image.path.name for image in images}
    data = b""
    if folder is not None:
        path = folder / PREFERENCES_FILE
        with suppress(OSError):
            data = path.read_bytes()
    found = parse_preferences(data, names)
    if found.problems:
        first = found.problems[0]
        reason = first.render()
        raise TrainingError(
            "dataset",
            f"The pairs cannot be used: {reason}",
            "Mend them, then submit again.",
        )
    return found.pairs
