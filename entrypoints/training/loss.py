"""The denoising objective: what the network is asked for, and how samples are weighed."""

import torch
from torch import Tensor


def weighted_mse(prediction: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over the batch of each sample's squared error times its weight, in float32."""
    squared = (prediction.float() - target.float()).square()
    if weights is None:
        return squared.mean()
    return (squared.mean(dim=(1, 2, 3)) * weights).mean()


def with_prior(losses: list[Tensor], weights: list[float]) -> Tensor:
    """Return the subject's loss plus the weighted loss of the class (DreamBooth, arXiv 2208.12242, eq. 2)."""
    return torch.stack([loss * weight for loss, weight in zip(losses, weights, strict=True)]).sum()
