"""DDIM with noise (arXiv 2010.02502): every step draws from a Gaussian, so that it has a probability."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from entrypoints.models.ddpm import Ddpm

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Transition(NamedTuple):
    """The normal distribution from which a step draws the less noisy latents.

    Its numbers are independent of each other and have one deviation.
    """

    mean: Tensor
    """(samples, channels, height, width), float32."""
    deviation: Tensor
    """One number; 0 where the step adds no noise."""

    def log_prob(self, latents: Tensor) -> Tensor:
        """Return the log density of latents, the mean over their numbers, (samples,).

        The mean and not the sum, as in the settings that DDPO is published with: `clip_range` then means the same at
        every resolution.
        """
        error = (latents - self.mean) / self.deviation
        normalisation = self.deviation.log() + HALF_LOG_TWO_PI
        log_density = -0.5 * error.square() - normalisation
        return log_density.mean(dim=(1, 2, 3))

    def divergence(self, reference: "Transition") -> Tensor:
        """Return the KL divergence from a transition of the same deviation, the mean over their numbers, (samples,)."""
        difference = (self.mean - reference.mean) / self.deviation
        return 0.5 * difference.square().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class StochasticDdim:
    """Steps from noise to an image, of which all but the last add noise.

    The last one ends without any: its distribution has no density, and nothing can be learned from it.
    """

    process: Ddpm
    timesteps: tuple[int, ...]
    """From much noise to little."""
    eta: float
    """Share of DDPM's noise: 1 adds all of it, 0 none (sec. 4.1)."""

    @classmethod
    def of_scheduler(cls, process: Ddpm, config: Mapping[str, Any], steps: int, eta: float) -> "StochasticDdim":
        """Return the sampler that visits the timesteps of DDIM, spaced as a model's scheduler says.

        Args:
            process: The noise that the model was trained with.
            config: Of the model's scheduler, which may be any of diffusers'.
            steps: Denoising steps.
            eta: Share of DDPM's noise.
        """
        scheduler = DDIMScheduler.from_config(config)
        scheduler.set_timesteps(steps)
        timesteps = tuple(int(timestep) for timestep in scheduler.timesteps)
        return cls(process, timesteps, eta)

    def transition(self, number: int, noisy: Tensor, prediction: Tensor) -> Transition:
        """Return what step `number`, from 0, draws from, given what the denoiser predicts (eq. 12 and 16).

        In float32 whatever the denoiser computes in: the ratio of two probabilities is a difference of large numbers.

        Args:
            number: Of the step.
            noisy: Latents before it, (samples, channels, height, width).
            prediction: Of the denoiser for these, of the same shape.
        """
        noisy = noisy.float()
        prediction = prediction.float()
        alpha_bar, alpha_bar_next = self._alpha_bars(number)
        timestep = self.timesteps[number]
        samples = len(noisy)
        times = torch.full((samples,), timestep, device=noisy.device)
        clean = self.process.clean(noisy, prediction, times)
        noise = self.process.noise(noisy, prediction, times)
        left = (1 - alpha_bar_next) / (1 - alpha_bar)
        added = 1 - alpha_bar / alpha_bar_next
        sigma = self.eta * (left * added).sqrt()
        # Of what noise there is afterwards, the part that is not drawn anew; rounding may bring it below 0.
        direction = 1 - alpha_bar_next - sigma.square()
        direction = direction.clamp(min=0).sqrt()
        mean = alpha_bar_next.sqrt() * clean + direction * noise
        return Transition(mean, sigma)

    def _alpha_bars(self, number: int) -> tuple[Tensor, Tensor]:
        """Return `alpha_bar` before a step and after it; the last step ends without noise."""
        alphas = self.process.alphas_cumprod
        timestep = self.timesteps[number]
        alpha_bar = alphas[timestep]
        following = number + 1
        if following == len(self.timesteps):
            return alpha_bar, torch.ones_like(alpha_bar)
        next_timestep = self.timesteps[following]
        return alpha_bar, alphas[next_timestep]
