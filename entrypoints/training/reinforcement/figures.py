"""What is followed of reinforcement learning: rewards of each round, and what the algorithm changes in each step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from entrypoints.training.rewards.alarms import Measured, Round

KL = "kl"
CLIP_FRACTION = "clip_fraction"
RATIO_CHANGE = "ratio_change"
POLICY_CHANGE = "policy_change"
LEAST_RATIO = "least_ratio"
GREATEST_RATIO = "greatest_ratio"


class StepFigures:
    """Figures over the forward passes of a step, by name; read once, at its end: a GPU is not waited for before."""

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self._known = dict(known or {})
        self._values: dict[str, list[Tensor]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add what was measured in one pass, of any shape."""
        self._values.setdefault(name, []).append(values.detach().float().flatten())

    def values(self) -> dict[str, float]:
        """Return the mean of each figure; of the ratio the least, the greatest, and the mean distance from 1."""
        found = dict(self._known)
        for name, parts in self._values.items():
            every = torch.cat(parts)
            if name == RATIO_CHANGE:
                found[LEAST_RATIO] = float(1 + every.min())
                found[GREATEST_RATIO] = float(1 + every.max())
                every = every.abs()
            found[name] = float(every.mean())
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
    found: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        found.setdefault(prompt, []).append(value)
    return Measured(values={prompt: tuple(of_prompt) for prompt, of_prompt in found.items()})


def with_step_figures(last: Round, step: Mapping[str, float]) -> Round:
    """Return a round with what the algorithm measured in its latest step."""
    ratios = None
    if LEAST_RATIO in step:
        ratios = (step[LEAST_RATIO], step[GREATEST_RATIO])
    return last.model_copy(
        update={
            "kl": step.get(KL),
            "clip_fraction": step.get(CLIP_FRACTION),
            "ratios": ratios,
        }
    )
