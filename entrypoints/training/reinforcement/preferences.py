"""Diffusion-DPO as an objective: pairs of pictures, of which the preferred ones become more likely."""

from collections.abc import Iterator, Mapping, Sequence
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
    """Some pairs with all that is random in them: the chosen pictures, then the rejected ones."""

    latents: Tensor
    """(2 x pairs, channels, height, width)."""
    noise: Tensor
    """The same for both pictures of a pair."""
    times: Tensor
    """(2 x pairs,), the same for both."""
    prompts: list[str]
    """(2 x pairs,)."""


class PreferenceObjective:
    """The loss on stored pairs."""

    def __init__(
        self,
        base: BaseModel,
        recipe: Rlhf,
        tuner: Tuner,
        images: Sequence[CaptionedImage],
        pairs: Sequence[Preference],
    ) -> None:
        self.base = base
        self.recipe = recipe
        self.tuner = tuner
        self.pairs = pairs
        self.encoder = PromptEncoder(base, frozen=True)
        self.figures = StepFigures()
        self.moments = encoded(base, images, recipe.resolution)
        first = next(iter(self.moments.values()))
        self.shape = first.shape[1:]

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield this rank's loss for each forward pass of a step."""
        recipe = self.recipe
        self.figures = StepFigures()
        for number in range(recipe.gradient_accumulation):
            batch = self._batch(step, number, ranks)
            process = self.base.process
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

    def _batch(self, step: int, number: int, ranks: Ranks) -> PairBatch:
        """Draw the pairs of a forward pass for all ranks, and return this rank's share."""
        recipe = self.recipe
        size = recipe.batch_size
        everyone = size * ranks.ranks
        begin = ranks.rank * size
        share = slice(begin, begin + size)
        passes_before = step * recipe.gradient_accumulation + number
        first = passes_before * everyone
        indices = image_indices(recipe.seed, "pairs", first, everyone, len(self.pairs))
        pairs = []
        for index in indices[share]:
            pairs.append(self.pairs[index])
        # Drawn for all ranks, so that a share's do not depend on how many there are.
        random = generator(recipe.seed, "pairs", 0, passes_before)
        of_chosen = torch.randn((everyone, *self.shape), generator=random)
        of_rejected = torch.randn((everyone, *self.shape), generator=random)
        noise = torch.randn((everyone, *self.shape), generator=random)
        times = self.base.process.times(everyone, random)
        chosen = self._latents([pair.chosen for pair in pairs], of_chosen[share])
        rejected = self._latents([pair.rejected for pair in pairs], of_rejected[share])
        prompts = [pair.prompt for pair in pairs]
        own_noise = noise[share].to(chosen)
        own_times = times[share].to(chosen.device)
        return PairBatch(
            latents=torch.cat([chosen, rejected]),
            noise=torch.cat([own_noise, own_noise]),
            times=torch.cat([own_times, own_times]),
            prompts=[*prompts, *prompts],
        )

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
        square = crop_square(read_image(image.path), size)
        moments = base.encode_images([square])
        found[image.path.name] = moments[0].cpu()
    return found


def read_pairs(folder: Path | None, images: Sequence[CaptionedImage]) -> list[Preference]:
    """Read the pairs of a job; raises TrainingError("dataset") where there are none, which a submit has checked."""
    names = {image.path.name for image in images}
    try:
        data = b"" if folder is None else (folder / PREFERENCES_FILE).read_bytes()
    except OSError:
        data = b""
    found = parse_preferences(data, names)
    if found.problems:
        first = found.problems[0]
        raise TrainingError("dataset", f"The pairs cannot be used: {first.render()}", "Mend them, then submit again.")
    return found.pairs
