"""Draws and scores the rounds of one rank, and lets it see the scores of all ranks.

Sampling and scoring are the long phases of reinforcement learning: everything that is ready is written to a file at
once (`rollouts.KeptRollouts`), so that a run that is killed in one of them loses one batch at most.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.training.averages import replaced
from entrypoints.training.reinforcement.advantages import flat_share
from entrypoints.training.reinforcement.people import People
from entrypoints.training.reinforcement.rollouts import (
    Asked,
    Drawn,
    KeptRollouts,
    Sampler,
    Scores,
    asked_in_round,
    batches_of,
    decoded,
    key_of,
)
from entrypoints.training.reinforcement.round_log import DIVERSITY, RoundScores
from entrypoints.training.rewards.diversity import diversity_space, group_diversity
from entrypoints.training.rewards.opening import RunRewards
from entrypoints.training.run import Run
from orchestrator.contract.events import Item, Phase, emit
from orchestrator.contract.recipes.rlhf import Rlhf
from orchestrator.contract.rewards import RewardUse

MAIN_MEMORY = torch.device("cpu")
"""Where the images of a round wait: those of a large model would fill a GPU."""


class RoundDrawer:
    """What draws and scores the images that one rank contributes to a round."""

    def __init__(
        self,
        run: Run,
        base: BaseModel,
        recipe: Rlhf,
        tuner: Tuner,
        rewards: RunRewards,
        prompts: Sequence[str],
        sampler: Sampler,
    ) -> None:
        """Prepare to draw.

        Args:
            run: Where files lie, and whether the process was asked to stop.
            base: The model, with the adapter that is trained.
            recipe: How much is drawn.
            tuner: What is trained, and replaced by other weights while a round is drawn.
            rewards: Those that are raised, and those that only evaluate.
            prompts: What is drawn.
            sampler: How a batch is drawn.
        """
        self.run = run
        self.base = base
        self.recipe = recipe
        self.tuner = tuner
        self.rewards = rewards
        self.prompts = prompts
        self.sampler = sampler
        self.people = None if recipe.by_people is None else People(run, recipe.by_people)
        self.space = diversity_space(run.device)
        self.identity = str(run.identity(base).number)

    def asked(self, number: int, rank: int | None = None) -> list[Asked]:
        """Return the images of a round that a rank draws; this one when none is given."""
        recipe = self.recipe
        ranks = self.run.ranks
        return asked_in_round(
            self.prompts,
            seed=recipe.seed,
            number=number,
            rank=ranks.rank if rank is None else rank,
            ranks=ranks.ranks,
            prompts_per_round=recipe.prompts_per_round,
            group_size=recipe.group_size,
        )

    def kept(self, number: int, weights: Mapping[str, Tensor]) -> KeptRollouts:
        """Return where the images of a round lie that such weights draw; those of other rounds are deleted."""
        key = key_of(number, self.identity, weights)
        root = self.run.environment.checkpoints
        kept = KeptRollouts(root, key, self.run.ranks.rank)
        kept.drop_others()
        return kept

    def draw(
        self,
        asked: Sequence[Asked],
        kept: KeptRollouts,
        weights: Mapping[str, Tensor],
    ) -> list[Drawn]:
        """Return the batches of a round in main memory: those that were drawn already, and the others drawn now.

        All ranks call it, and all raise Stopped after the same batch.

        Args:
            asked: The images of this rank.
            kept: Where batches lie, and are written.
            weights: What draws, by the names of the trained parameters.
        """
        run = self.run
        count = len(asked)
        emit(Phase(name="sampling", of=count))
        found: list[Drawn] = []
        done = 0
        batches = batches_of(asked, self.recipe.batch_size)
        with replaced(self.tuner.parameters, weights), evaluating(self.base.denoiser):
            for number, batch in enumerate(batches):
                drawn = kept.read(number)
                if drawn is None:
                    on_device = self.sampler(batch, run.check_stop_alone)
                    drawn = on_device.to(MAIN_MEMORY)
                    kept.keep(number, drawn)
                found.append(drawn)
                done += len(batch)
                emit(Item(done=done, of=count))
                run.check_stop()
        return found

    def score(
        self,
        number: int,
        asked: Sequence[Asked],
        drawn: Sequence[Drawn],
        kept: KeptRollouts,
    ) -> Scores:
        """Return the rewards of this rank's images; those that were scored before the run was cut off are read.

        All ranks call it. Raises TrainingError("reward") where a required reward cannot be computed, and WaitsForLabels
        where people give one and have not yet.
        """
        emit(Phase(name="scoring", of=len(asked)))
        scores = kept.read_scores(len(asked))
        if self.people is not None and not self._all_have(scores):
            scores = None  # people are asked about the images of all ranks together
        if scores is None:
            images = self._images(drawn)
            scores = self._scores(asked, images)
            if self.people is not None:
                said = self._said(self.people, number, kept, images)
                scores = with_people(scores, self.people.use, said)
            kept.keep_scores(scores)
        self.run.check_stop()
        return scores

    def _all_have(self, scores: Scores | None) -> bool:
        """Whether all ranks have their scores, or none has."""
        number = int(scores is not None)
        return self.run.ranks.agree(number, self.run.device)

    def _said(
        self,
        people: People,
        number: int,
        kept: KeptRollouts,
        images: Sequence[Image.Image],
    ) -> list[float]:
        """Return what people say of the images of this rank."""
        asked = []
        for rank in range(self.run.ranks.ranks):
            of_rank = self.asked(number, rank)
            asked.append(of_rank)
        return people.scores(number, kept.key, asked, images)

    def _images(self, drawn: Sequence[Drawn]) -> list[Image.Image]:
        """Return the pictures of batches."""
        images: list[Image.Image] = []
        for batch in drawn:
            latents = batch.latents.to(self.run.device)
            images += decoded(self.base, latents)
            self.run.check_stop_alone()
        return images

    def _scores(self, asked: Sequence[Asked], images: Sequence[Image.Image]) -> Scores:
        """Compute all rewards, in float32 whatever the denoiser is trained in, and the diversity of each group."""
        prompts = [one.prompt for one in asked]
        groups = [one.group for one in asked]
        with torch.autocast(self.run.device.type, enabled=False):
            trained = self.rewards.trained.of(images, prompts, groups)
            evaluated = self.rewards.evaluated.of(images, prompts, groups)
            of_groups = group_diversity(self.space, images, groups)
        diversity = [of_groups.get(group, 0.0) for group in groups]
        others = dict(evaluated.each)
        others[DIVERSITY] = diversity
        return Scores(trained.total, trained.each, others)

    def together(self, number: int, asked: Sequence[Asked], scores: Scores) -> RoundScores:
        """Return what was measured on the images of all ranks, those of the first rank first.

        All ranks call it.
        """
        rewards = self._gathered(scores.total)
        groups = self._gathered([one.group for one in asked])
        indices = self._gathered([one.index for one in asked])
        prompts = []
        for index in indices.tolist():
            prompt = self.prompts[int(index)]
            prompts.append(prompt)
        return RoundScores(
            number=number,
            prompts=prompts,
            indices=indices.long(),
            groups=groups.long(),
            rewards=rewards,
            trained=self._all_gathered(scores.trained),
            evaluated=self._all_gathered(scores.evaluated),
            flat_groups=flat_share(rewards, groups),
        )

    def _all_gathered(self, scores: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        """Return the scores of all ranks, by the name of the reward."""
        found = {}
        for name, values in scores.items():
            found[name] = self._gathered(values)
        return found

    def _gathered(self, numbers: Sequence[float]) -> Tensor:
        """Return numbers of all ranks, one after the other, as float64 in main memory."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self.run.device)
        every = self.run.ranks.gather(own)
        return every.flatten().cpu()


def with_people(scores: Scores, use: RewardUse, said: Sequence[float]) -> Scores:
    """Return scores with those of people among them."""
    total = []
    for computed, by_people in zip(scores.total, said, strict=True):
        total.append(computed + use.weight * by_people)
    trained = {**scores.trained, use.name: list(said)}
    return Scores(total, trained, scores.evaluated)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into the mode in which it draws for as long as the context lasts."""
    mode = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(mode)
