"""How much better an image is than others of its prompt, from rewards of any scale."""

import torch
from torch import Tensor

SMALLEST_DEVIATION = 1e-6
"""Of rewards that differ: a smaller one is rounding."""


def remembered_advantages(
    rewards: Tensor,
    prompts: Tensor,
    memory: Tensor,
    clip: float,
) -> tuple[Tensor, Tensor]:
    """Return the advantages of a round, (samples,), by the statistics of each prompt, and the memory after it.

    DDPO (arXiv 2305.13301, sec. 5.2 and app. D): rewards are normalised by the mean and the deviation of the newest of
    their prompt, and by those of the whole round while a prompt has too few.

    Args:
        rewards: Of each sample, (samples,), float64.
        prompts: The number of each sample's prompt, (samples,).
        memory: The newest rewards of each prompt, (prompts, places), NaN where there is none yet.
        clip: The largest advantage.
    """
    memory = memory.clone()
    for prompt, reward in zip(prompts.tolist(), rewards, strict=True):
        newest = memory[prompt, 1:]
        memory[prompt] = torch.cat([newest, reward.view(1)])
    advantages = torch.zeros_like(rewards)
    for prompt in prompts.unique().tolist():
        compared = memory[prompt]
        if compared.isnan().any():
            compared = rewards
        mean = compared.mean()
        deviation = compared.std(correction=0)
        own = prompts == prompt
        advantages[own] = normalised(rewards[own] - mean, deviation)
    return advantages.clamp(-clip, clip), memory


def no_memory(prompts: int, places: int) -> Tensor:
    """Return a memory of so many rewards of each prompt that holds none yet."""
    return torch.full((prompts, places), torch.nan, dtype=torch.float64)


def group_advantages(rewards: Tensor, groups: Tensor, clip: float) -> Tensor:
    """Return the advantages of a round, (samples,): each reward minus the mean of its group, over one deviation.

    The deviation is that of all these differences, so that a group whose images are nearly equal is not made
    important (DiffusionNFT, arXiv 2509.16117, sec. 3.3, where it is Z).
    """
    centred = torch.zeros_like(rewards)
    for group in groups.unique().tolist():
        own = groups == group
        centred[own] = rewards[own] - rewards[own].mean()
    deviation = centred.square().mean().sqrt()
    return normalised(centred, deviation).clamp(-clip, clip)


def normalised(differences: Tensor, deviation: Tensor) -> Tensor:
    """Return differences in units of a deviation; 0 where everything is equal."""
    if deviation < SMALLEST_DEVIATION:
        return torch.zeros_like(differences)
    return differences / deviation


def flat_share(rewards: Tensor, groups: Tensor) -> float:
    """Return the share of groups all of whose rewards are equal: nothing is learned from those."""
    numbers = groups.unique().tolist()
    flat = 0
    for group in numbers:
        own = rewards[groups == group]
        flat += bool(own.std(correction=0) < SMALLEST_DEVIATION)
    return flat / len(numbers)
