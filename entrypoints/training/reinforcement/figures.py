"""What is followed of a round: rewards, how much they differ, and what the algorithm changed."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """Means over the forward passes of a step, by name; read once, at its end: a GPU is not waited for before."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar of one pass."""
        self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._counts[name] = self._counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        """Return the means."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


def figures_of_round(rewards: Tensor, each: Mapping[str, Tensor], flat: float) -> dict[str, float]:
    """Return the figures of a round.

    Args:
        rewards: The weighted sum for each image, (samples,).
        each: Scores of each reward, (samples,), by its name.
        flat: Share of groups whose rewards are all equal.
    """
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=rewards.dtype)
    low, middle, high = rewards.quantile(levels).tolist()
    figures = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
        "reward_p10": low,
        "reward_p50": middle,
        "reward_p90": high,
        "flat_groups": flat,
    }
    if len(each) > 1:
        for name, scores in each.items():
            figures[f"reward_{name}"] = float(scores.mean())
    return figures
