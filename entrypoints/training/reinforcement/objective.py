"""Reinforcement learning as an objective: a round draws and scores images, and its steps learn from them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.runtime.randomness import generator
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.averages import copied, replaced
from entrypoints.training.reinforcement import nft
from entrypoints.training.reinforcement.advantages import flat_share, group_advantages, remembered_advantages
from entrypoints.training.reinforcement.algorithms import Algorithm, RoundBatch, apart
from entrypoints.training.reinforcement.figures import StepFigures
from entrypoints.training.reinforcement.rollouts import (
    Asked,
    Drawn,
    KeptRollouts,
    Scores,
    asked_in_round,
    batches_of,
    decoded,
    key_of,
)
from entrypoints.training.reinforcement.round_log import DIVERSITY, RoundLog, RoundScores
from entrypoints.training.rewards.diversity import diversity_space, group_diversity
from entrypoints.training.rewards.opening import RunRewards
from entrypoints.training.run import Run
from orchestrator.contract.events import TRAINING_PHASE, Item, Phase, emit
from orchestrator.contract.recipes.rlhf import NFT, Rlhf

SAMPLER = "sampler"
"""Begins the names of the weights that draw, in the state."""
NO_ROUND = -1
MAIN_MEMORY = torch.device("cpu")
"""Where the images of a round wait: those of a large model would fill a GPU."""


@dataclass
class CurrentRound:
    """What the steps of a round learn from, and the next round needs of it."""

    number: int = NO_ROUND
    sampler_weights: dict[str, Tensor] = field(default_factory=dict)
    """What drew its images."""
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Of the images of all ranks, (ranks, samples), float64."""
    memory: Tensor = field(default_factory=lambda: torch.zeros(0))
    """The newest rewards of each prompt after it, (prompts, places), float64; NaN where there is none."""


class Reinforcement:
    """The objective of all algorithms that draw."""

    def __init__(
        self,
        run: Run,
        base: BaseModel,
        recipe: Rlhf,
        tuner: Tuner,
        rewards: RunRewards,
        prompts: Sequence[str],
        algorithm: Algorithm,
    ) -> None:
        self.run = run
        self.base = base
        self.recipe = recipe
        self.tuner = tuner
        self.rewards = rewards
        self.prompts = prompts
        self.algorithm = algorithm
        self.identity = str(run.identity(base).number)
        self.space = diversity_space(run.device)
        self.round = CurrentRound()
        places = (len(prompts), recipe.reward_memory)
        self.round.memory = torch.full(places, torch.nan, dtype=torch.float64)
        self.log = RoundLog()
        self.figures = StepFigures()
        """Of the latest step."""
        self._drawn: list[Drawn] = []
        """This rank's batches of the current round, in main memory; empty until a resumed round is used."""

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield the losses of a step: those of its share of the round's batches, each at some moments."""
        recipe = self.recipe
        number, place = divmod(step, recipe.steps_per_round)
        epoch, update = divmod(place, recipe.updates)
        if self.round.number != number:
            with apart():
                self._begin_round(number)
        if not self._drawn:
            with apart():
                self._take_up_round()
        # Batches stay as they were drawn: their order alone is random, and differs by rank.
        random = generator(recipe.seed, "order of batches", ranks.rank, number, epoch)
        batches = len(self._drawn)
        order = torch.randperm(batches, generator=random).tolist()
        each = batches // recipe.updates
        first = update * each
        self.figures = StepFigures()
        for index in order[first : first + each]:
            moments = generator(recipe.seed, "moments", ranks.rank, step, index)
            yield from self.algorithm.losses(self._batch(index), moments, self.figures)

    def has_signal(self) -> bool:
        """Whether the images of the round differ in their rewards, so that there is something to learn."""
        return bool(self.round.advantages.any())

    def _batch(self, index: int) -> RoundBatch:
        """Return a batch of the current round on the device."""
        device = self.run.device
        size = self.recipe.batch_size
        some = slice(index * size, (index + 1) * size)
        advantages = self.round.advantages[self.run.ranks.rank, some]
        return RoundBatch(
            asked=self._asked(self.round.number)[some],
            drawn=self._drawn[index].to(device),
            advantages=advantages.to(device, torch.float32),
            sampler_weights=self.round.sampler_weights,
        )

    def _begin_round(self, number: int) -> None:
        """Draw and score a round. Nothing of it is kept here before all is: a run that is cut off begins it again."""
        weights = self._sampler_weights(number)
        asked = self._asked(number)
        kept = self._kept(number, weights)
        kept.drop_others()
        drawn = self._draw(asked, kept, weights)
        scores = self._score(asked, drawn, kept)
        advantages, memory = self._advantages(asked, scores)
        self._follow(number, asked, scores)
        self.round = CurrentRound(number, weights, advantages, memory)
        self._drawn = drawn
        emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))

    def _take_up_round(self) -> None:
        """Get the images of the round in which a checkpoint was written: from their files, or drawn once more."""
        number = self.round.number
        weights = self.round.sampler_weights
        asked = self._asked(number)
        kept = self._kept(number, weights)
        self._drawn = self._draw(asked, kept, weights)
        emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))

    def _sampler_weights(self, number: int) -> dict[str, Tensor]:
        """Return the weights that draw a round: those that are trained, or with nft their average."""
        weights = copied(self.tuner.parameters)
        if self.recipe.algorithm != NFT or number == 0:
            return weights
        decay = nft.sampler_decay(number, self.recipe.sampler_decay)
        for name, old in self.round.sampler_weights.items():
            weights[name] = torch.lerp(weights[name], old, decay)
        return weights

    def _asked(self, number: int) -> list[Asked]:
        """Return the images of a round that this rank draws."""
        recipe = self.recipe
        ranks = self.run.ranks
        return asked_in_round(
            self.prompts,
            seed=recipe.seed,
            number=number,
            rank=ranks.rank,
            ranks=ranks.ranks,
            prompts_per_round=recipe.prompts_per_round,
            group_size=recipe.group_size,
        )

    def _kept(self, number: int, weights: Mapping[str, Tensor]) -> KeptRollouts:
        key = key_of(number, self.identity, weights)
        return KeptRollouts(self.run.environment.checkpoints, key, self.run.ranks.rank)

    def _draw(self, asked: Sequence[Asked], kept: KeptRollouts, weights: Mapping[str, Tensor]) -> list[Drawn]:
        """Return the batches of a round: those that were drawn already, and the others drawn now."""
        run = self.run
        emit(Phase(name="sampling", of=len(asked)))
        found: list[Drawn] = []
        done = 0
        with replaced(self.tuner.parameters, weights), evaluating(self.base.denoiser):
            for number, batch in enumerate(batches_of(asked, self.recipe.batch_size)):
                drawn = kept.read(number)
                if drawn is None:
                    on_device = self.algorithm.sampler(batch, run.check_stop_alone)
                    drawn = on_device.to(MAIN_MEMORY)
                    kept.keep(number, drawn)
                found.append(drawn)
                done += len(batch)
                emit(Item(done=done, of=len(asked)))
                run.check_stop()
        return found

    def _score(self, asked: Sequence[Asked], drawn: Sequence[Drawn], kept: KeptRollouts) -> Scores:
        """Return the rewards of this rank's images; those that were scored before the run was cut off are read."""
        emit(Phase(name="scoring", of=len(asked)))
        scores = kept.read_scores(len(asked))
        if scores is None:
            images: list[Image.Image] = []
            for batch in drawn:
                images += decoded(self.base, batch.latents.to(self.run.device))
                self.run.check_stop_alone()
            prompts = [one.prompt for one in asked]
            groups = [one.group for one in asked]
            with torch.autocast(self.run.device.type, enabled=False):
                trained = self.rewards.trained.of(images, prompts, groups)
                evaluated = self.rewards.evaluated.of(images, prompts, groups)
                diversity = group_diversity(self.space, images, groups)
            of_images = [diversity.get(group, 0.0) for group in groups]
            scores = Scores(trained.total, trained.each, {**evaluated.each, DIVERSITY: of_images})
            kept.keep_scores(scores)
        self.run.check_stop()
        return scores

    def _advantages(self, asked: Sequence[Asked], scores: Scores) -> tuple[Tensor, Tensor]:
        """Return the advantages of all ranks' images, (ranks, samples), and the memory after the round."""
        recipe = self.recipe
        clip = recipe.advantage_clip
        rewards = self._gathered(scores.total)
        if recipe.algorithm == NFT:
            groups = self._gathered([one.group for one in asked])
            advantages = group_advantages(rewards, groups, clip)
            memory = self.round.memory
        else:
            prompts = self._gathered([one.index for one in asked]).long()
            advantages, memory = remembered_advantages(rewards, prompts, self.round.memory, clip)
        return advantages.view(self.run.ranks.ranks, -1), memory

    def _gathered(self, numbers: Sequence[float]) -> Tensor:
        """Return numbers of all ranks, one after the other, as float64 on the CPU."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self.run.device)
        return self.run.ranks.gather(own).flatten().cpu()

    def _all_gathered(self, scores: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        """Return the scores of all ranks, by the name of the reward."""
        found = {}
        for name, values in scores.items():
            found[name] = self._gathered(values)
        return found

    def _follow(self, number: int, asked: Sequence[Asked], scores: Scores) -> None:
        """Add a round to the log, with the images of all ranks together."""
        rewards = self._gathered(scores.total)
        groups = self._gathered([one.group for one in asked])
        indices = self._gathered([one.index for one in asked])
        prompts = []
        for index in indices.tolist():
            prompts.append(self.prompts[int(index)])
        found = RoundScores(
            number=number,
            prompts=prompts,
            rewards=rewards,
            trained=self._all_gathered(scores.trained),
            evaluated=self._all_gathered(scores.evaluated),
            flat_groups=flat_share(rewards, groups),
        )
        self.log.add(found, self._step_figures())

    def _step_figures(self) -> dict[str, float]:
        """Return what was measured in the latest step, also if that was before the run was cut off."""
        return self.figures.values() or self.log.step

    def state(self) -> Mapping[str, Tensor]:
        """Return what the steps of the round follow from, and what the next one needs of the earlier ones."""
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
        self.round = CurrentRound(
            number=int(state["number"]),
            sampler_weights=weights,
            advantages=state["advantages"].cpu(),
            memory=state["memory"].cpu(),
        )
        self.log = RoundLog.of_tensor(state["log"].cpu())
        self._drawn = []

    def measures(self) -> Mapping[str, float]:
        """Return what is followed of the round, of the latest step, and of the held-out prompts."""
        return {**self.log.figures, **self._step_figures(), **self.log.held_out}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into the mode in which it draws for as long as the context lasts."""
    mode = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(mode)
