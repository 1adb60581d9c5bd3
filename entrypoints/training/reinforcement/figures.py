"""What is followed of reinforcement learning: rewards of each round, and what the algorithm changes in each step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from entrypoints.training.rewards.alarms import Measured, Round

KL = "kl"
"""Divergence from the base model: between transitions with ddpo, of predictions with nft."""
CLIP_FRACTION = "clip_fraction"
"""Share of images whose ratio lies beyond the clip range."""
RATIO_CHANGE = "ratio_change"
"""Mean distance of the ratio of probabilities from 1: 0 before the first update of a round."""
POLICY_CHANGE = "policy_change"
"""Mean squared difference of predictions from those of the model that drew."""
LEAST_RATIO = "least_ratio"
GREATEST_RATIO = "greatest_ratio"


class StepFigures:
    """Figures over the forward passes of a step, by name; read once, at its end: a GPU is not waited for before."""

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self._known = dict(known or {})
        self._values: dict[str, list[Tensor]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add what was measured in one pass, of any shape."""
        known = self._values.setdefault(name, [])
        numbers = values.detach().float()
        known.append(numbers.flatten())

    def values(self) -> dict[str, float]:
        """Return the mean of each figure; of the ratio the least, the greatest, and the mean distance from 1."""
        found = dict(self._known)
        for name, parts in self._values.items():
            every = torch.cat(parts)
            if name == RATIO_CHANGE:
                ratios = 1 + every
                found[LEAST_RATIO] = float(ratios.min())
                found[GREATEST_RATIO] = float(ratios.max())
                every = every.abs()
            mean = every.mean()
            found[name] = float(mean)
        return found


def figures_of_round(rewards: Tensor, each: Mapping[str, Tensor], flat: float) -> dict[str, float]:
    """Return the figures of a round.

    Args:
        rewards: The weighted sum for each image, (samples,).
        each: Scores of each reward, and of those that only evaluate, (samples,), by name.
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
    for name, scores in each.items():
        figures[name.replace("-", "_")] = float(scores.mean())
    return figures


def measured(prompts: Sequence[str], values: Sequence[float]) -> Measured:
    """Return values by prompt, as alarms compare them."""
    found: dict[str, tuple[float, ...]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        before = found.get(prompt, ())
        found[prompt] = (*before, value)
    return Measured(values=found)


def with_step_figures(last: Round, step: Mapping[str, float], first_ratio_error: float | None) -> Round:
    """Return a round with what the algorithm measured in its latest step, and in the latest that opened a round."""
    ratios = None
    if LEAST_RATIO in step:
        ratios = (step[LEAST_RATIO], step[GREATEST_RATIO])
    return last.model_copy(
        update={
            "kl": step.get(KL),
            "clip_fraction": step.get(CLIP_FRACTION),
            "ratios": ratios,
            "first_ratio_error": first_ratio_error,
        }
    )
