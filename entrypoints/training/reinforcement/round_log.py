"""What a run of reinforcement learning remembers of its rounds: figures for its log and report, and its alarms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from entrypoints.training.reinforcement.figures import (
    GREATEST_RATIO,
    LEAST_RATIO,
    figures_of_round,
    measured,
    with_step_figures,
)
from entrypoints.training.rewards.alarms import LIMITS_OF_LOOKS, Alarm, Round, alarms
from orchestrator.contract.events import Warned, emit

DIVERSITY = "diversity"
"""How much the images of a group differ, among what evaluates a round."""


@dataclass(frozen=True)
class RoundScores:
    """What was measured on the images of a round, those of all ranks."""

    number: int
    """The round, from 0."""
    prompts: Sequence[str]
    """Of each image."""
    indices: Tensor
    """The number of each image's prompt, (samples,)."""
    groups: Tensor
    """The number of the prompt's place in the round, (samples,)."""
    rewards: Tensor
    """What is raised, (samples,)."""
    trained: Mapping[str, Tensor]
    """The rewards in it, (samples,) each, by name."""
    evaluated: Mapping[str, Tensor]
    """What is not trained on, the same; DIVERSITY is among it."""
    flat_groups: float
    """Share of groups all of whose rewards are equal."""

    @property
    def shown(self) -> dict[str, Tensor]:
        """What has a curve of its own: a single reward has that of the sum."""
        if len(self.trained) == 1:
            return dict(self.evaluated)
        return {**self.trained, **self.evaluated}

    def round(self) -> Round:
        """Return what alarms compare."""
        evaluation = {}
        for name, values in self.evaluated.items():
            if name != DIVERSITY:
                evaluation[name] = measured(self.prompts, values.tolist())
        diversity = self.evaluated[DIVERSITY]
        return Round(
            number=self.number,
            reward=measured(self.prompts, self.rewards.tolist()),
            evaluation=evaluation,
            diversity=measured(self.prompts, diversity.tolist()),
            flat_groups=self.flat_groups,
        )


@dataclass
class RoundLog:
    """What is followed: nothing that is learned depends on it."""

    figures: dict[str, float] = field(default_factory=dict)
    """Of the current round."""
    held_out: dict[str, float] = field(default_factory=dict)
    """Of the held-out prompts when they were drawn last."""
    step: dict[str, float] = field(default_factory=dict)
    """Of the step that a checkpoint was written after."""
    first_ratio_error: float | None = None
    """Of the ratios of the latest step that opened a round: before it, the policy is the one that drew."""
    rounds: list[Round] = field(default_factory=list)
    """What alarms compare, of all rounds."""
    looks: list[Round] = field(default_factory=list)
    """The same of the held-out prompts, which are drawn from the same noise every time: their changes show sooner."""
    alarmed: list[str] = field(default_factory=list)
    """Kinds of alarms that were raised: each is said once."""

    def add(self, scores: RoundScores, step: Mapping[str, float]) -> None:
        """Add a round, and warn of what it shows; `step` is what the algorithm measured last."""
        self.figures = figures_of_round(scores.rewards, scores.shown, scores.flat_groups)
        latest = with_step_figures(scores.round(), step, self.first_ratio_error)
        self.rounds.append(latest)
        self._raise(alarms(self.rounds))

    def add_look(self, look: Round) -> None:
        """Add what was measured on the held-out prompts, and warn of what it shows.

        A run that is resumed where it looked looks once more, and that counts once.
        """
        self.looks = [earlier for earlier in self.looks if earlier.number != look.number]
        self.looks.append(look)
        self._raise(alarms(self.looks, LIMITS_OF_LOOKS))

    def _raise(self, found: Sequence[Alarm]) -> None:
        """Say each kind of alarm once."""
        for alarm in found:
            if alarm.kind in self.alarmed:
                continue
            self.alarmed.append(alarm.kind)
            emit(Warned(message=alarm.message))

    def note_first_step(self, step: Mapping[str, float]) -> None:
        """Keep how far ratios were from 1 in the step that opened a round."""
        if LEAST_RATIO in step:
            below = 1 - step[LEAST_RATIO]
            above = step[GREATEST_RATIO] - 1
            self.first_ratio_error = max(below, above)

    def to_tensor(self) -> Tensor:
        """Return it as a tensor of the bytes of a JSON text: checkpoints hold tensors."""
        rounds = [each.model_dump() for each in self.rounds]
        looks = [each.model_dump() for each in self.looks]
        values = {
            "figures": self.figures,
            "held_out": self.held_out,
            "step": self.step,
            "first_ratio_error": self.first_ratio_error,
            "rounds": rounds,
            "looks": looks,
            "alarmed": self.alarmed,
        }
        text = json.dumps(values)
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> "RoundLog":
        """Return what `to_tensor` wrote."""
        text = bytes(tensor.tolist())
        values = json.loads(text)
        for name in ("rounds", "looks"):
            values[name] = [Round.model_validate(each) for each in values[name]]
        return cls(**values)
