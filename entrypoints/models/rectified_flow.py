"""Rectified flow (arXiv 2209.03003, 2210.02747): a straight line from the image to noise, and its velocity as target.

Time t goes from 0, the image x, to 1, the noise e. Training times are drawn from a logit-normal distribution, which
visits the middle most (arXiv 2403.03206, sec. 3.1), and shifted towards noise for large images (sec. 5.3.2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from entrypoints.runtime.failures import TrainingError


@dataclass(frozen=True)
class RectifiedFlow:
    """Continuous times in (0, 1)."""

    shift: float = 1.0
    """s of eq. 23: above 1, times move towards noise; 1 leaves them as they are."""
    location: float = 0.0
    """Mean of the normal distribution whose logistic is the time."""
    spread: float = 1.0
    """Its standard deviation."""

    def times(self, count: int, random: torch.Generator) -> Tensor:
        """Draw the times of `count` training samples: the logistic of a normal number, shifted."""
        normal = torch.randn(count, generator=random)
        logits = self.location + self.spread * normal
        return self.shifted(torch.sigmoid(logits))

    def shifted(self, times: Tensor) -> Tensor:
        """Return s t / (1 + (s - 1) t) (arXiv 2403.03206, eq. 23).

        A larger image keeps more of its content at the same t, because neighbouring pixels repeat it.
        """
        s = self.shift
        return s * times / (1 + (s - 1) * times)

    def scaled_times(self, times: Tensor, factor: float) -> Tensor:
        """Return times multiplied by a factor, at most 1."""
        return (times * factor).clamp(max=1)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return (1 - t) x + t e."""
        t = times.view(-1, 1, 1, 1)
        return (1 - t) * latents + t * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:  # noqa: ARG002 - the line is straight
        """Return the velocity, which is the same at all times: e - x."""
        return noise - latents

    def clean(self, noisy: Tensor, prediction: Tensor, times: Tensor) -> Tensor:
        """Return the latents at the clean end of the line that a velocity stands for: z - t v."""
        return noisy - times.view(-1, 1, 1, 1) * prediction

    def weights(self, times: Tensor, snr_gamma: float | None) -> Tensor | None:  # noqa: ARG002 - all times weigh the same
        """Return None: the distribution of the times is the weighting.

        Raises TrainingError("recipe") for Min-SNR, which is defined for DDPM.
        """
        if snr_gamma is not None:
            raise TrainingError(
                "recipe",
                f"Min-SNR weighting (snr_gamma={snr_gamma:g}) is not defined for flow models.",
                "Submit again without snr_gamma.",
            )
        return None
