"""DDPO with importance sampling (arXiv 2305.13301): denoising as decisions, each of which has a probability."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel, Conditions
from entrypoints.models.ddim import StochasticDdim, Transition


class Path(NamedTuple):
    """How a batch of images was drawn."""

    latents: Tensor
    """From noise to the image, (steps + 1, samples, channels, height, width), float32: latents in half precision
    would bias the ratio of probabilities."""
    log_probs: Tensor
    """Of each step that adds noise, (steps - 1, samples)."""


class Policy(NamedTuple):
    """What draws: a base model, a sampler, and the scale of classifier-free guidance."""

    base: BaseModel
    sampler: StochasticDdim
    guidance: float

    @torch.no_grad()
    def conditions_of(self, prompts: Sequence[str]) -> Conditions:
        """Return the conditions of prompts; with guidance, of no prompt as often before them."""
        if self.guidance == 1:
            return self.base.encode_prompts(prompts)
        return self.base.encode_guided(prompts, None)

    def transition(self, number: int, noisy: Tensor, conditions: Conditions) -> Transition:
        """Return what step `number` of the sampler draws from."""
        is_guided = self.guidance != 1
        rows = noisy
        if is_guided:
            rows = torch.cat([noisy, noisy])
        timestep = self.sampler.timesteps[number]
        count = len(rows)
        times = torch.full((count,), timestep, device=noisy.device)
        prediction = self.base.predict(rows, times, conditions)
        if is_guided:
            unguided, guided = prediction.chunk(2)
            prediction = unguided + self.guidance * (guided - unguided)
        return self.sampler.transition(number, noisy, prediction)


@torch.no_grad()
def draw_path(
    policy: Policy,
    conditions: Conditions,
    noise: Callable[[], Tensor],
    check_stop: Callable[[], None],
) -> Path:
    """Draw a batch, and remember how likely each step was.

    Args:
        policy: What draws.
        conditions: Those of `Policy.conditions_of`.
        noise: Returns the noise of the batch's next step, (samples, channels, height, width).
        check_stop: Called after each step; what it raises ends the drawing.
    """
    noisy = noise()
    latents = [noisy]
    log_probs = []
    last = len(policy.sampler.timesteps) - 1
    for number in range(last + 1):
        transition = policy.transition(number, noisy, conditions)
        noisy = transition.mean
        if number < last:
            drawn = transition.deviation * noise()
            noisy = transition.mean + drawn
            log_prob = transition.log_prob(noisy)
            log_probs.append(log_prob)
        latents.append(noisy)
        check_stop()
    return Path(torch.stack(latents), torch.stack(log_probs))


class Repeated(NamedTuple):
    """A step that was drawn, as the model would draw it now."""

    transition: Transition
    ratio: Tensor
    """Probability of the step over that when it was drawn, (samples,)."""


def clipped_loss(ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Return the loss of importance sampling in a trust region, a scalar (sec. 4.3; arXiv 1707.06347, eq. 7).

    ratio, advantages: (samples,).
    """
    least = 1 - clip_range
    greatest = 1 + clip_range
    clipped = ratio.clamp(least, greatest)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    return losses.mean()


def repeat_step(policy: Policy, path: Path, number: int, conditions: Conditions) -> Repeated:
    """Return step `number` of a path with gradients.

    The batch is the one that was drawn, at one step for all of its images. So the forward pass does the same sums, and
    before the first update the ratio is 1 to the bit.
    """
    transition = policy.transition(number, path.latents[number], conditions)
    log_prob = transition.log_prob(path.latents[number + 1])
    ratio = (log_prob - path.log_probs[number]).exp()
    return Repeated(transition, ratio)


def drawn_steps(steps: int, wanted: int, random: torch.Generator) -> Sequence[int]:
    """Return `wanted` different steps of those that add noise, in a random order (`timestep fraction` of DDPO)."""
    order: list[int] = torch.randperm(steps - 1, generator=random).tolist()
    return order[:wanted]
