"""Reinforcement learning as an objective: a round draws and scores images, and its steps learn from them.

Round n takes the steps from n x `steps_per_round`. Before the first of them its images are drawn, by weights that are
kept as long as the round lasts, and scored. Each of its steps learns from a share of the batches, in a random order;
with `inner_epochs` all of them are visited again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from entrypoints.runtime.randomness import generator
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.averages import copied
from entrypoints.training.reinforcement import nft
from entrypoints.training.reinforcement.advantages import group_advantages, no_memory, remembered_advantages
from entrypoints.training.reinforcement.algorithms import Algorithm, RoundBatch, apart
from entrypoints.training.reinforcement.drawing import RoundDrawer
from entrypoints.training.reinforcement.figures import StepFigures
from entrypoints.training.reinforcement.rollouts import Drawn
from entrypoints.training.reinforcement.round_log import RoundLog, RoundScores
from orchestrator.contract.events import TRAINING_PHASE, Phase, emit
from orchestrator.contract.recipes.rlhf import NFT, Rlhf

SAMPLER = "sampler"
"""Begins the names of the weights that draw, in the state."""
NO_ROUND = -1
"""Number of the round before the first."""


@dataclass
class CurrentRound:
    """What the steps of a round learn from, and the next round needs of it."""

    memory: Tensor
    """The newest rewards of each prompt after it, (prompts, places), float64; NaN where there is none."""
    number: int = NO_ROUND
    """From 0."""
    sampler_weights: dict[str, Tensor] = field(default_factory=dict)
    """What drew its images, by the names of the trained parameters."""
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Of the images of all ranks, (ranks, samples), float64."""


class Reinforcement:
    """The objective of all algorithms that draw."""

    def __init__(self, recipe: Rlhf, drawer: RoundDrawer, algorithm: Algorithm) -> None:
        """Begin before the first round.

        Args:
            recipe: How much is drawn, and how it is learned from.
            drawer: Draws and scores a round.
            algorithm: Learns from a batch of it.
        """
        self.recipe = recipe
        self.drawer = drawer
        self.algorithm = algorithm
        self.run = drawer.run
        self.parameters = drawer.tuner.parameters
        prompts = len(drawer.prompts)
        self.round = CurrentRound(no_memory(prompts, recipe.reward_memory))
        self.log = RoundLog()
        """What is followed of rounds and of held-out prompts."""
        self.figures = StepFigures()
        """What is followed of the latest step."""
        self._drawn: list[Drawn] = []
        """This rank's batches of the current round; empty until a round that is resumed is used."""

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield the losses of a step: those of its share of the round's batches, each at some moments.

        The first step of a round draws and scores it before. Raises Stopped while it does, when the process was asked
        to end; the round is then begun again.
        """
        recipe = self.recipe
        number, place = divmod(step, recipe.steps_per_round)
        previous = step - 1
        if previous % recipe.steps_per_round == 0:
            self.log.note_first_step(self._step_figures())
        epoch, update = divmod(place, recipe.updates)
        if self.round.number != number:
            with apart():
                self._begin_round(number)
        elif not self._drawn:
            with apart():
                self._take_up_round()
        # Batches stay as they were drawn: their order alone is random, and differs by rank.
        random = generator(recipe.seed, "order of batches", ranks.rank, number, epoch)
        batches = len(self._drawn)
        order = torch.randperm(batches, generator=random).tolist()
        share = batches // recipe.updates
        first = update * share
        self.figures = StepFigures()
        for index in order[first : first + share]:
            batch = self._batch(index)
            moments = generator(recipe.seed, "moments", ranks.rank, step, index)
            yield from self.algorithm.losses(batch, moments, self.figures)

    def has_signal(self) -> bool:
        """Whether the images of the round differ in their rewards, so that there is something to learn."""
        return bool(self.round.advantages.any())

    def _begin_round(self, number: int) -> None:
        """Draw and score a round.

        Nothing of it is kept here before all of it is there: a run that is cut off meanwhile begins it again, with the
        same weights, and finds what was drawn in the files.
        """
        drawer = self.drawer
        weights = self._sampler_weights(number)
        asked = drawer.asked(number)
        kept = drawer.kept(number, weights)
        drawn = drawer.draw(asked, kept, weights)
        scores = drawer.score(number, asked, drawn, kept)
        found = drawer.together(number, asked, scores)
        advantages, memory = self._advantages(found)
        self.log.add(found, self._step_figures())
        self.round = CurrentRound(memory, number, weights, advantages)
        self._drawn = drawn
        emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))

    def _take_up_round(self) -> None:
        """Get the images of the round in which a checkpoint was written: from their files, or drawn once more."""
        drawer = self.drawer
        number = self.round.number
        weights = self.round.sampler_weights
        asked = drawer.asked(number)
        kept = drawer.kept(number, weights)
        self._drawn = drawer.draw(asked, kept, weights)
        emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))

    def _sampler_weights(self, number: int) -> dict[str, Tensor]:
        """Return the weights that draw a round: a copy of those that are trained, or with nft their average."""
        weights = copied(self.parameters)
        if self.recipe.algorithm != NFT or number == 0:
            return weights
        decay = nft.sampler_decay(number, self.recipe.sampler_decay)
        for name, old in self.round.sampler_weights.items():
            new = weights[name]
            weights[name] = torch.lerp(new, old, decay)
        return weights

    def _advantages(self, scores: RoundScores) -> tuple[Tensor, Tensor]:
        """Return the advantages of all ranks' images, (ranks, samples), and the memory after the round.

        Every rank computes all of them, from the same numbers: the first one saves them for all.
        """
        clip = self.recipe.advantage_clip
        memory = self.round.memory
        if self.recipe.algorithm == NFT:
            advantages = group_advantages(scores.rewards, scores.groups, clip)
        else:
            advantages, memory = remembered_advantages(scores.rewards, scores.indices, memory, clip)
        ranks = self.run.ranks.ranks
        return advantages.view(ranks, -1), memory

    def _batch(self, index: int) -> RoundBatch:
        """Return a batch of the current round, on the device."""
        device = self.run.device
        size = self.recipe.batch_size
        begin = index * size
        some = slice(begin, begin + size)
        asked = self.drawer.asked(self.round.number)
        own = self.round.advantages[self.run.ranks.rank]
        return RoundBatch(
            asked=asked[some],
            drawn=self._drawn[index].to(device),
            advantages=own[some].to(device, torch.float32),
            sampler_weights=self.round.sampler_weights,
        )

    def _step_figures(self) -> dict[str, float]:
        """Return what was measured in the latest step, also if that was before the run was cut off."""
        return self.figures.values() or self.log.step

    def state(self) -> Mapping[str, Tensor]:
        """Return what the steps of the round follow from, and what the next one needs of the earlier ones.

        Its images are not among it: the weights that drew them draw them again where their files are lost.
        """
        self.log.step = self._step_figures()
        state = {
            "number": torch.tensor(self.round.number),
            "memory": self.round.memory,
            "advantages": self.round.advantages,
            "log": self.log.to_tensor(),
        }
        for name, weights in self.round.sampler_weights.items():
            state[f"{SAMPLER}/{name}"] = weights
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on in the round in which the checkpoint was written; its images are read, or drawn, when they are used."""
        weights = {}
        for name, tensor in state.items():
            prefix, _, parameter = name.partition("/")
            if prefix == SAMPLER:
                weights[parameter] = tensor
        memory = state["memory"].cpu()
        advantages = state["advantages"].cpu()
        number = int(state["number"])
        self.round = CurrentRound(memory, number, weights, advantages)
        log = state["log"].cpu()
        self.log = RoundLog.of_tensor(log)
        self._drawn = []

    def measures(self) -> Mapping[str, float]:
        """Return what is followed of the round, of the latest step, and of the held-out prompts."""
        measures = dict(self.log.figures)
        measures |= self._step_figures()
        measures |= self.log.held_out
        return measures
