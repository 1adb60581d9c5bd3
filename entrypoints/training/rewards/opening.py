"""From the rewards that a job names to rewards that are ready to score."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from entrypoints.evaluation.metrics import ClipScorer, clip_scorer
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from entrypoints.training.rewards.aesthetic import Aesthetic
from entrypoints.training.rewards.alignment import ClipAlignment
from entrypoints.training.rewards.functions import load_function
from entrypoints.training.rewards.jpeg import JpegCompressibility, JpegIncompressibility
from entrypoints.training.rewards.judge import JudgedAlignment
from entrypoints.training.rewards.reward import Reward
from entrypoints.training.rewards.rewards import Opened, Rewards
from entrypoints.training.run import Run
from orchestrator.contract.linear_head import HEAD_FILE
from orchestrator.contract.mixins import Rewarded
from orchestrator.contract.rewards import (
    AESTHETIC,
    JPEG_COMPRESSIBILITY,
    JPEG_INCOMPRESSIBILITY,
    PROMPT_ALIGNMENT,
    REWARDS_CHANNEL,
    RewardUse,
)


class RunRewards(NamedTuple):
    """The rewards of a run."""

    trained: Rewards
    """Those that are raised."""
    evaluated: Rewards
    """Those that are only looked at."""


def open_all(recipe: Rewarded, run: Run, base: BaseModel) -> RunRewards:
    """Make all rewards of a recipe ready; they share one CLIP. Raises as `open_rewards`."""
    opening = _Opening(run, base)
    return RunRewards(opening.opened(recipe.rewards), opening.opened(recipe.evaluation_rewards))


def open_rewards(uses: Sequence[RewardUse], run: Run, base: BaseModel) -> Rewards:
    """Make rewards ready to score; raises TrainingError("reward") for one that cannot be, required or not."""
    return _Opening(run, base).opened(uses)


class _Opening:
    """Opens rewards with what they need of a run."""

    def __init__(self, run: Run, base: BaseModel) -> None:
        self.run = run
        self.base = base

    def opened(self, uses: Sequence[RewardUse]) -> Rewards:
        """Return rewards that are ready to score; that of people is asked for elsewhere (`reinforcement.people`)."""
        computed = [use for use in uses if not use.needs_people]
        return Rewards([Opened(use, self._open(use)) for use in computed])

    def _open(self, use: RewardUse) -> Reward:
        """Return a reward; what is wrong with it becomes an error that names it."""
        try:
            return self._reward(use)
        except Exception as error:  # a library may raise anything at files that others wrote
            if failure_of(error):  # a message of its own, or out of memory
                raise
            raise TrainingError(
                "reward",
                f'The reward "{use.name}" cannot be used: {type(error).__name__}: {first_line(error)}',
                "Replace its weights or leave it out, and submit again.",
            ) from error

    def _reward(self, use: RewardUse) -> Reward:
        match use.name:
            case JPEG_COMPRESSIBILITY.name:
                return JpegCompressibility()
            case JPEG_INCOMPRESSIBILITY.name:
                return JpegIncompressibility()
            case AESTHETIC.name:
                return Aesthetic(self.clip, self._weights(use) / HEAD_FILE)
            case PROMPT_ALIGNMENT.name if use.url is not None:
                texts = None if use.path is None else self._weights(use)
                return JudgedAlignment(use, texts, self.base.device, self.run.check_stop_alone)
            case PROMPT_ALIGNMENT.name:
                return ClipAlignment(self.clip)
            case name:
                return load_function(name)

    @cached_property
    def clip(self) -> ClipScorer:
        """The CLIP of the job: that of its scorer channel, or the base model's own."""
        found = clip_scorer(self.base, self.run.scorer_folder)
        if found is None:
            raise TrainingError(
                "reward",
                "A reward needs a CLIP, and the base model brings none (folder clip/).",
                "Submit again with --scorer and the folder of a CLIP.",
            )
        return found

    def _weights(self, use: RewardUse) -> Path:
        """Return the folder with the weights of a reward."""
        channel = self.run.environment.channel(REWARDS_CHANNEL)
        if channel is None or not (channel / use.name).is_dir():
            raise TrainingError(
                "reward",
                f'The weights of the reward "{use.name}" did not reach the job (channel {REWARDS_CHANNEL}).',
                "Check that the file exists on the machine you submit from, then submit again.",
            )
        return channel / use.name
