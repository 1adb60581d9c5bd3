"""DiffusionNFT (arXiv 2509.16117): learn from clean images, whatever sampler drew them, by the forward process.

A model v, of which v_old is a slow average that draws the images. Two models are implied: v+ leads from v_old through v
and is to predict the good images, v- leads the other way and is to predict the bad ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from entrypoints.models.base import NoiseProcess

SMALLEST_SCALE = 1e-5
"""Of an error that a loss is divided by."""


def optimality(advantages: Tensor, clip: float) -> Tensor:
    """Return the share of each image that is good, from 0 to 1: r of eq. 9, where advantages lie within the clip."""
    return (advantages / (2 * clip) + 0.5).clamp(0, 1)


class Noised(NamedTuple):
    """Images with noise."""

    latents: Tensor
    """x, without it, (samples, channels, height, width)."""
    noisy: Tensor
    """The same with noise."""
    times: Tensor
    """Of the noise, (samples,)."""


def two_sided_loss(
    process: NoiseProcess,
    noised: Noised,
    prediction: Tensor,
    old_prediction: Tensor,
    good: Tensor,
    strength: float,
) -> Tensor:
    """Return r |x(v+) - x|^2 + (1 - r) |x(v-) - x|^2 (theorem 3.2), a scalar.

    v+ = (1 - b) v_old + b v and v- = (1 + b) v_old - b v. Errors are those of the clean latents, over their own size,
    so that times with much noise do not outweigh the others (sec. 3.3).

    Args:
        process: The noise of the base model.
        noised: What is predicted from.
        prediction: v.
        old_prediction: v_old, without gradient.
        good: r, (samples,).
        strength: b.
    """
    prediction = prediction.float()
    old_prediction = old_prediction.float()
    positive = (1 - strength) * old_prediction + strength * prediction
    negative = (1 + strength) * old_prediction - strength * prediction
    clean_positive = process.clean(noised.noisy, positive, noised.times)
    clean_negative = process.clean(noised.noisy, negative, noised.times)
    of_positive = scaled_error(clean_positive, noised.latents)
    of_negative = scaled_error(clean_negative, noised.latents)
    return (good * of_positive + (1 - good) * of_negative).mean()


def scaled_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error of each sample over its mean absolute error, (samples,)."""
    error = found - wanted
    with torch.no_grad():
        scale = error.abs().mean(dim=(1, 2, 3)).clamp(min=SMALLEST_SCALE)
    return error.square().mean(dim=(1, 2, 3)) / scale


def sampler_decay(round_number: int, most: float) -> float:
    """Return the share of itself that v_old keeps after a round, counted from 1 (sec. 3.3): it draws by v at first."""
    return min(0.001 * round_number, most)
