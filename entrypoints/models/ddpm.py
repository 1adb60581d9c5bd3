"""Noise as DDPM adds it (arXiv 2006.11239): what the network predicts, and how samples are weighted.

Symbols: x is the clean sample, e the noise, and `alpha_bar` the share of the signal's variance at a timestep, which
falls from almost 1 to almost (or exactly) 0 as noise replaces the signal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.model_configs import PREDICTION_TYPES


@dataclass(frozen=True)
class Ddpm:
    """Discrete timesteps with a fixed noise schedule."""

    alphas_cumprod: Tensor
    """`alpha_bar` of each timestep, (timesteps,)."""
    prediction_type: str
    """What the denoiser predicts: "epsilon" or "v_prediction"."""

    @classmethod
    def of_scheduler(cls, config: Mapping[str, Any], device: torch.device) -> "Ddpm":
        """Return the process a model was trained with, from its scheduler's configuration.

        Raises TrainingError("base-model") when the model predicts something else than noise or velocity, and when its
        betas are those of no noise.
        """
        prediction_type = str(config.get("prediction_type", "epsilon"))
        if prediction_type not in PREDICTION_TYPES:
            supported = " or ".join(PREDICTION_TYPES)
            raise TrainingError(
                "base-model",
                f'The base model predicts "{prediction_type}", which cannot be trained.',
                f"Choose one that predicts {supported}.",
            )
        # The scheduler that draws may be any; DDPM's computes alpha_bar from the same betas.
        scheduler = DDPMScheduler.from_config(config)
        alphas_cumprod = torch.as_tensor(scheduler.alphas_cumprod, device=device)
        if not alphas_cumprod.isfinite().all():
            raise TrainingError(
                "base-model",
                "The betas of the base model's scheduler are those of no noise: they give NaN or infinity.",
                "Mend scheduler/scheduler_config.json (beta_start, beta_end, trained_betas), or choose another model.",
            )
        return cls(alphas_cumprod, prediction_type)

    def times(self, count: int, random: torch.Generator) -> Tensor:
        """Draw the timesteps of `count` training samples, all equally likely."""
        timesteps = len(self.alphas_cumprod)
        return torch.randint(timesteps, (count,), generator=random)

    def scaled_times(self, times: Tensor, factor: float) -> Tensor:
        """Return timesteps multiplied by a factor, at most the last one."""
        last = len(self.alphas_cumprod) - 1
        return (times * factor).long().clamp(max=last)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return latents with the noise of those timesteps."""
        alpha_bar = self.alphas_cumprod[times]
        return add_noise(latents, noise, alpha_bar)

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the noise, or the velocity."""
        alpha_bar = self.alphas_cumprod[times]
        return training_target(self.prediction_type, latents, noise, alpha_bar)

    def clean(self, noisy: Tensor, prediction: Tensor, times: Tensor) -> Tensor:
        """Return the latents without noise that a prediction stands for."""
        signal, deviation = self._shares(times)
        if self.prediction_type == "epsilon":
            return (noisy - deviation * prediction) / signal
        return signal * noisy - deviation * prediction

    def noise(self, noisy: Tensor, prediction: Tensor, times: Tensor) -> Tensor:
        """Return the noise that a prediction stands for."""
        if self.prediction_type == "epsilon":
            return prediction
        signal, deviation = self._shares(times)
        return signal * prediction + deviation * noisy

    def _shares(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar), (batch, 1, 1, 1) each."""
        alpha_bar = self.alphas_cumprod[times].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def weights(self, times: Tensor, snr_gamma: float | None) -> Tensor | None:
        """Return Min-SNR weights, (batch,), when `snr_gamma` is given."""
        if snr_gamma is None:
            return None
        alpha_bar = self.alphas_cumprod[times]
        return min_snr_weights(self.prediction_type, alpha_bar, snr_gamma)


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return sqrt(alpha_bar) x + sqrt(1 - alpha_bar) e (DDPM, arXiv 2006.11239, eq. 4).

    latents, noise: (batch, channels, height, width); alpha_bar: (batch,), that of each sample's timestep.
    """
    alpha_bar = alpha_bar.view(-1, 1, 1, 1)
    signal = alpha_bar.sqrt()
    deviation = (1 - alpha_bar).sqrt()
    return signal * latents + deviation * noise


def training_target(
    prediction_type: str,
    latents: Tensor,
    noise: Tensor,
    alpha_bar: Tensor,
) -> Tensor:
    """Return what the network should predict: the noise, or the velocity.

    The velocity is v = sqrt(alpha_bar) e - sqrt(1 - alpha_bar) x (arXiv 2202.00512, app. D). Shapes as in `add_noise`.
    """
    if prediction_type == "epsilon":
        return noise
    alpha_bar = alpha_bar.view(-1, 1, 1, 1)
    signal = alpha_bar.sqrt()
    deviation = (1 - alpha_bar).sqrt()
    return signal * noise - deviation * latents


def min_snr_weights(prediction_type: str, alpha_bar: Tensor, gamma: float) -> Tensor:
    """Return Min-SNR-gamma weights (arXiv 2303.09556, sec. 3.4), shape (batch,).

    The paper's weight min(snr, gamma) is for a loss on x. A loss on the noise is snr times as large, so its weight is
    divided by snr; one on v is snr + 1 times as large.
    """
    snr = alpha_bar / (1 - alpha_bar)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    # min(snr, gamma) / snr, written so that it is 1 and not 0 / 0 where snr is 0: with zero terminal SNR
    # (arXiv 2305.08891) the last timestep has no signal left.
    return (gamma / snr).clamp(max=1)
