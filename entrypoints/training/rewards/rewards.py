"""Several rewards as one: a weighted sum of what each says of an image."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

from PIL import Image

from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from entrypoints.runtime.stop import Stopped
from entrypoints.training.rewards.reward import Reward
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.rewards import RewardUse


class Scored(NamedTuple):
    """What rewards say of images."""

    total: list[float]
    """The weighted sum for each image."""
    each: dict[str, list[float]]
    """Name of a reward to its scores, without its weight; 0 where a reward that is not required has none."""


class Opened(NamedTuple):
    """A reward that is ready to score."""

    use: RewardUse
    reward: Reward


class Rewards:
    """Rewards that are ready to score."""

    def __init__(self, opened: Sequence[Opened]) -> None:
        self.opened = list(opened)
        self._warned: set[str] = set()

    def of(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        groups: Sequence[int],
    ) -> Scored:
        """Score images; raises TrainingError("reward") when one that is required cannot.

        Args:
            images: What to score.
            prompts: That of each image.
            groups: The number of each image's group: images of one prompt in one round have the same.
        """
        total = [0.0] * len(images)
        each = {}
        for use, reward in self.opened:
            scores = self._scores(use, reward, images, prompts, groups)
            each[use.name] = scores
            for place, score in enumerate(scores):
                total[place] += use.weight * score
        return Scored(total, each)

    def _scores(
        self,
        use: RewardUse,
        reward: Reward,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        groups: Sequence[int],
    ) -> list[float]:
        """Return the checked scores of one reward."""
        try:
            found = reward.scores(images, prompts, groups)
            return self._checked(use, found, len(images))
        except Stopped:
            raise
        except Exception as error:  # other people's code may raise anything
            if not isinstance(error, TrainingError) and failure_of(error):  # out of memory
                raise
            if use.required:
                raise _failed(use, error) from error
            self._warn(use, first_line(error))
            return [0.0] * len(images)

    def _checked(self, use: RewardUse, found: object, images: int) -> list[float]:
        """Return scores as numbers, one for each image; raises ValueError for what is none."""
        if not isinstance(found, list | tuple):
            kind = type(found).__name__
            raise ValueError(f"it returned a {kind} instead of a list of numbers")  # noqa: TRY004
        count = len(found)
        if count != images:
            raise ValueError(f"it returned {count} scores for {images} images")
        scores = []
        for number, value in enumerate(found):
            if value is None and not use.required:
                self._warn(use, "it gave no judgement of an image")
                scores.append(0.0)
                continue
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number:
                raise ValueError(f"its score of image {number} is {value!r}, which is no number")
            score = float(value)
            if not math.isfinite(score):
                raise ValueError(f"its score of image {number} is {score}")
            scores.append(score)
        return scores

    def _warn(self, use: RewardUse, why: str) -> None:
        """Say once of a reward that it counts as 0."""
        if use.name in self._warned:
            return
        self._warned.add(use.name)
        emit(Warned(message=f'The reward "{use.name}" is not required and counts as 0 where it fails: {why}'))


def _failed(use: RewardUse, error: Exception) -> TrainingError:
    """Return the failure of a reward in the three parts a person needs."""
    if isinstance(error, TrainingError):
        return error
    reason = first_line(error)
    if not isinstance(error, ValueError):
        reason = f"{type(error).__name__}: {reason}"
    return TrainingError(
        "reward",
        f'The reward "{use.name}" failed: {reason}',
        'Mend it and submit again; or let the job go on without it: {"name": "' + use.name + '", "required": false}.',
    )
