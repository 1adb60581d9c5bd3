"""Noise as DDPM adds it (arXiv 2006.11239): what the network is asked for, and how samples are weighted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from entrypoints.runtime.failures import TrainingError

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Ddpm:
    """Discrete timesteps with a fixed noise schedule."""

    alphas_cumprod: Tensor
    """Share of the signal's variance at each timestep, (timesteps,)."""
    prediction_type: str
    """What the denoiser predicts: "epsilon" or "v_prediction"."""

    @classmethod
    def of_scheduler(cls, config: Mapping[str, Any], device: torch.device) -> "Ddpm":
        """Return the process a model was trained with, from its scheduler; raises TrainingError("base-model")."""
        prediction_type = str(config.get("prediction_type", "epsilon"))
        if prediction_type not in PREDICTION_TYPES:
            message = f'The base model predicts "{prediction_type}", which cannot be trained.'
            next_step = f"Choose one that predicts {' or '.join(PREDICTION_TYPES)}."
            raise TrainingError("base-model", message, next_step)
        scheduler = DDPMScheduler.from_config(config)
        return cls(torch.as_tensor(scheduler.alphas_cumprod, device=device), prediction_type)

    def times(self, count: int, random: torch.Generator) -> Tensor:
        """Draw the timesteps of `count` training samples, all equally likely."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=random)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return latents as they are at those timesteps."""
        return add_noise(latents, noise, self.alphas_cumprod[times])

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the noise, or the velocity."""
        return training_target(self.prediction_type, latents, noise, self.alphas_cumprod[times])

    def weights(self, times: Tensor, snr_gamma: float | None) -> Tensor | None:
        """Return Min-SNR weights, (batch,), when `snr_gamma` is given."""
        if snr_gamma is None:
            return None
        return min_snr_weights(self.prediction_type, self.alphas_cumprod[times], snr_gamma)


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Diffuse latents to their timestep: sqrt(a) x + sqrt(1 - a) e (DDPM, arXiv 2006.11239, eq. 4).

    latents, noise: (batch, channels, height, width); alphas_cumprod: (batch,), a of each sample's timestep.
    """
    signal = alphas_cumprod.view(-1, 1, 1, 1)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def training_target(prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return what the network should predict: the noise, or v = sqrt(a) e - sqrt(1 - a) x (arXiv 2202.00512, app. D).

    Shapes as in `add_noise`.
    """
    if prediction_type == "epsilon":
        return noise
    signal = alphas_cumprod.view(-1, 1, 1, 1)
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def min_snr_weights(prediction_type: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Return Min-SNR-gamma weights (arXiv 2303.09556, sec. 3.4), shape (batch,).

    min(snr, gamma) is meant for the loss on x; a loss on the noise is that divided by snr, one on v by snr + 1. With
    zero terminal SNR (arXiv 2305.08891) snr reaches 0, where the weight for the noise tends to 1.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)
