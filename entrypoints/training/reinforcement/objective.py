"""Reinforcement learning as an objective: a round draws and scores images, and its steps learn from them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.runtime.randomness import generator
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.averages import copied, replaced
from entrypoints.training.denoising import PromptEncoder
from entrypoints.training.reinforcement import ddpo, nft
from entrypoints.training.reinforcement.advantages import flat_share, group_advantages, remembered_advantages
from entrypoints.training.reinforcement.figures import Means, figures_of_round
from entrypoints.training.reinforcement.rollouts import (
    Asked,
    Drawn,
    KeptRollouts,
    Sampler,
    asked_in_round,
    batches_of,
    decoded,
    key_of,
)
from entrypoints.training.rewards.rewards import Rewards, Scored
from entrypoints.training.run import Run
from orchestrator.contract.events import TRAINING_PHASE, Item, Phase, emit
from orchestrator.contract.recipes.rlhf import Rlhf

SAMPLER = "sampler"
"""Begins the names of the weights that draw, in the state."""
NO_ROUND = -1


@dataclass(frozen=True)
class RoundBatch:
    """Some images of a round, drawn together, with what was made of their rewards."""

    asked: Sequence[Asked]
    drawn: Drawn
    advantages: Tensor
    """(samples,), float32 on the device."""

    @property
    def prompts(self) -> list[str]:
        """Of each image."""
        return [one.prompt for one in self.asked]


class Algorithm(Protocol):
    """What of the objective differs by the algorithm."""

    sampler: Sampler
    """Draws the images of a round."""

    def losses(self, batch: RoundBatch, step: int, random: torch.Generator) -> Iterator[Tensor]:
        """Yield the loss of each moment at which a step learns from a batch."""
        ...


@dataclass
class Round:
    """A round of which everything is known, on this rank."""

    number: int = NO_ROUND
    sampler_weights: dict[str, Tensor] = field(default_factory=dict)
    """What drew its images."""
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Of the images of all ranks, (ranks, samples), float64."""
    memory: Tensor = field(default_factory=lambda: torch.zeros(0))
    """The newest rewards of each prompt after it, (prompts, places), float64; NaN where there is none."""
    figures: dict[str, float] = field(default_factory=dict)
    """What is followed of it."""


class Reinforcement:
    """The objective of all algorithms that draw."""

    def __init__(
        self,
        run: Run,
        base: BaseModel,
        recipe: Rlhf,
        tuner: Tuner,
        rewards: Rewards,
        prompts: Sequence[str],
    ) -> None:
        self.run = run
        self.base = base
        self.recipe = recipe
        self.tuner = tuner
        self.rewards = rewards
        self.prompts = prompts
        self.identity = str(run.identity(base).number)
        self.round = Round(memory=torch.full((len(prompts), recipe.reward_memory), torch.nan, dtype=torch.float64))
        self.followed: dict[str, float] = {}
        """What was measured on held-out prompts last."""
        self.means = Means()
        """What the algorithm measured in the latest step."""
        self.algorithm: Algorithm | None = None
        self._batches: list[RoundBatch] = []

    def losses(self, step: int, ranks: Ranks) -> Iterator[Tensor]:
        """Yield the losses of a step: those of its share of the round's images, each at some moments."""
        recipe = self.recipe
        number, place = divmod(step, recipe.steps_per_round)
        epoch, update = divmod(place, recipe.updates)
        if self.round.number != number:
            with apart():
                self._begin_round(number)
        if not self._batches:
            with apart():
                self._batches = self._taken_up()
        # Batches stay as they were drawn: their order alone is random, and differs by rank.
        random = generator(recipe.seed, "order of batches", ranks.rank, number, epoch)
        order = torch.randperm(len(self._batches), generator=random).tolist()
        each = len(order) // recipe.updates
        self.means = Means()
        for index in order[update * each : (update + 1) * each]:
            moments = generator(recipe.seed, "moments", ranks.rank, step, index)
            yield from self._algorithm.losses(self._batches[index], step, moments)

    @property
    def _algorithm(self) -> Algorithm:
        if self.algorithm is None:
            raise ValueError("the objective has no algorithm")
        return self.algorithm

    def _begin_round(self, number: int) -> None:
        """Draw and score a round. Nothing of it is kept here before all is: a run that is cut off begins it again."""
        weights = self._sampler_weights(number)
        asked = self._asked(number)
        kept = self._kept(number, weights)
        kept.drop_others()
        drawn = self._drawn(asked, kept, weights)
        images = self._images(drawn)
        scored = self._scored(asked, images, kept)
        advantages, memory = self._advantages(asked, scored)
        figures = self._figures(asked, scored, images)
        self.round = Round(number, weights, advantages, memory, figures)
        self._batches = self._joined(asked, drawn)
        emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))

    def _sampler_weights(self, number: int) -> dict[str, Tensor]:
        """Return the weights that draw a round: those that are trained, or with nft their average."""
        parameters = self.tuner.parameters
        weights = copied(parameters)
        if self.recipe.algorithm != "nft" or number == 0:
            return weights
        decay = nft.sampler_decay(number, self.recipe.sampler_decay)
        for name, old in self.round.sampler_weights.items():
            weights[name] = torch.lerp(weights[name], old, decay)
        return weights

    def _asked(self, number: int) -> list[Asked]:
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

    def _drawn(self, asked: Sequence[Asked], kept: KeptRollouts, weights: Mapping[str, Tensor]) -> list[Drawn]:
        """Return the batches of a round: those that were drawn already, and the others drawn now."""
        run = self.run
        batches = batches_of(asked, self.recipe.batch_size)
        emit(Phase(name="sampling", of=len(asked)))
        found = []
        with replaced(self.tuner.parameters, weights), evaluating(self.base.denoiser):
            for number, batch in enumerate(batches):
                drawn = kept.read(number, run.device)
                if drawn is None:
                    drawn = self._algorithm.sampler(batch, run.check_stop_alone)
                    kept.keep(number, drawn)
                found.append(drawn)
                emit(Item(done=(number + 1) * len(batch), of=len(asked)))
                run.check_stop()
        return found

    def _images(self, drawn: Sequence[Drawn]) -> list[Image.Image]:
        images = []
        for batch in drawn:
            images += decoded(self.base, batch.latents)
        return images

    def _scored(self, asked: Sequence[Asked], images: Sequence[Image.Image], kept: KeptRollouts) -> Scored:
        """Return the rewards of this rank's images; those that were scored before the run was cut off are read."""
        emit(Phase(name="scoring", of=len(images)))
        known = kept.read_scores(len(images))
        if known is None:
            prompts = [one.prompt for one in asked]
            groups = [one.group for one in asked]
            with torch.autocast(self.run.device.type, enabled=False):
                known = self.rewards.of(images, prompts, groups)
            kept.keep_scores(known)
        self.run.check_stop()
        return known

    def _advantages(self, asked: Sequence[Asked], scored: Scored) -> tuple[Tensor, Tensor]:
        """Return the advantages of all ranks' images, (ranks, samples), and the memory after the round."""
        ranks = self.run.ranks
        recipe = self.recipe
        rewards = self._gathered(scored.total)
        clip = recipe.advantage_clip
        if recipe.algorithm == "nft":
            groups = self._gathered([one.group for one in asked])
            advantages = group_advantages(rewards, groups, clip)
            memory = self.round.memory
        else:
            prompts = self._gathered([one.index for one in asked]).long()
            advantages, memory = remembered_advantages(rewards, prompts, self.round.memory, clip)
        return advantages.view(ranks.ranks, -1), memory

    def _gathered(self, numbers: Sequence[float]) -> Tensor:
        """Return numbers of all ranks, one after the other, as float64 on the CPU."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self.run.device)
        return self.run.ranks.gather(own).flatten().cpu()

    def _figures(
        self,
        asked: Sequence[Asked],
        scored: Scored,
        images: Sequence[Image.Image],
    ) -> dict[str, float]:
        """Return what is followed of a round, of all ranks together."""
        rewards = self._gathered(scored.total)
        groups = self._gathered([one.group for one in asked])
        each = {name: self._gathered(scores) for name, scores in scored.each.items()}
        return figures_of_round(rewards, each, flat_share(rewards, groups))

    def _joined(self, asked: Sequence[Asked], drawn: Sequence[Drawn]) -> list[RoundBatch]:
        """Return this rank's batches with their advantages."""
        size = self.recipe.batch_size
        own = self.round.advantages[self.run.ranks.rank].to(self.run.device, torch.float32)
        batches = []
        for batch, latents, advantages in zip(batches_of(asked, size), drawn, own.split(size), strict=True):
            batches.append(RoundBatch(batch, latents, advantages))
        return batches

    def _taken_up(self) -> list[RoundBatch]:
        """Return the batches of a round in which the run was cut off: from their files, or drawn once more."""
        asked = self._asked(self.round.number)
        weights = self.round.sampler_weights
        drawn = self._drawn(asked, self._kept(self.round.number, weights), weights)
        emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))
        return self._joined(asked, drawn)

    def has_signal(self) -> bool:
        """Whether the images of the round differ in their rewards, so that there is something to learn."""
        return bool(self.round.advantages.any()) or self.recipe.kl_weight > 0

    def state(self) -> Mapping[str, Tensor]:
        """Return what the steps of the round follow from, and what the next one needs of the earlier ones."""
        state = {"number": torch.tensor(self.round.number), "memory": self.round.memory}
        if self.round.number == NO_ROUND:
            return state
        state["advantages"] = self.round.advantages
        for name, weights in self.round.sampler_weights.items():
            state[f"{SAMPLER}/{name}"] = weights
        text = json.dumps({"figures": self.round.figures, "followed": self.followed})
        state["figures"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on in the round in which the checkpoint was written; its images are read, or drawn, when they are used."""
        number = int(state["number"])
        self._batches = []
        if number == NO_ROUND:
            return
        weights = {}
        for name, tensor in state.items():
            prefix, _, parameter = name.partition("/")
            if prefix == SAMPLER:
                weights[parameter] = tensor
        figures = json.loads(bytes(state["figures"].tolist()))
        self.followed = figures["followed"]
        self.round = Round(
            number=number,
            sampler_weights=weights,
            advantages=state["advantages"].cpu(),
            memory=state["memory"].cpu(),
            figures=figures["figures"],
        )

    def measures(self) -> Mapping[str, float]:
        """Return what is followed of the round, of the latest step, and of the held-out prompts."""
        return {**self.round.figures, **self.means.values(), **self.followed}


class DdpoAlgorithm:
    """Learns from the steps of the sampler."""

    def __init__(self, objective: Reinforcement, policy: ddpo.Policy, sampler: Sampler) -> None:
        self.objective = objective
        self.policy = policy
        self.sampler = sampler

    def losses(self, batch: RoundBatch, step: int, random: torch.Generator) -> Iterator[Tensor]:  # noqa: ARG002
        """Yield the loss of each of some steps of the sampler, all images of the batch at the same one."""
        recipe = self.objective.recipe
        path = batch.drawn.path
        if path is None:
            raise ValueError("the images have no path")
        with apart():
            conditions = self.policy.conditions_of(batch.prompts)
        for number in ddpo.drawn_steps(len(self.policy.sampler.timesteps), recipe.moments, random):
            reference = None
            if recipe.kl_weight:
                with apart(), self.objective.tuner.untuned(_no_copy):
                    reference = self.policy.transition(number, path.latents[number], conditions)
            result = ddpo.policy_step(
                self.policy,
                path,
                number,
                conditions,
                batch.advantages,
                recipe.clip_range,
                reference,
                recipe.kl_weight,
            )
            self._measure(result)
            yield result.loss

    def _measure(self, result: ddpo.PolicyStep) -> None:
        away = (result.ratio - 1).abs()
        means = self.objective.means
        means.add("ratio_change", away.mean())
        means.add("clip_fraction", (away > self.objective.recipe.clip_range).float().mean())
        if self.objective.recipe.kl_weight:
            means.add("kl", result.divergence.mean())


class NftAlgorithm:
    """Learns from noise that is added to the images."""

    def __init__(self, objective: Reinforcement, sampler: Sampler) -> None:
        self.objective = objective
        self.sampler = sampler
        self.encoder = PromptEncoder(objective.base, frozen=True)

    def losses(self, batch: RoundBatch, step: int, random: torch.Generator) -> Iterator[Tensor]:  # noqa: ARG002
        """Yield the loss at each of some times."""
        objective = self.objective
        recipe = objective.recipe
        base = objective.base
        process = base.process
        latents = batch.drawn.latents
        good = nft.optimality(batch.advantages, recipe.advantage_clip)
        with apart():
            conditions = self.encoder(batch.prompts)
        for _ in range(recipe.moments):
            times = process.times(len(latents), random).to(latents.device)
            noise = torch.randn(latents.shape, generator=random).to(latents)
            noisy = process.noised(latents, noise, times)
            with apart(), replaced(objective.tuner.parameters, objective.round.sampler_weights):
                old = base.predict(noisy, times, conditions)
            reference = None
            if recipe.kl_weight:
                with apart(), objective.tuner.untuned(_no_copy):
                    reference = base.predict(noisy, times, conditions)
            prediction = base.predict(noisy, times, conditions)
            loss = nft.two_sided_loss(
                process,
                latents,
                noisy,
                times,
                prediction,
                old,
                good,
                recipe.nft_strength,
            )
            objective.means.add("policy_change", (prediction.detach() - old).float().square().mean())
            if reference is not None:
                divergence = (prediction.float() - reference.float()).square().mean()
                objective.means.add("kl", divergence.detach())
                loss = loss + recipe.kl_weight * divergence
            yield loss


@contextmanager
def apart() -> Iterator[None]:
    """Compute without gradients, and leave nothing of it to what is computed with them.

    autocast keeps the weights that it has rounded. Rounded without gradients, they would have none afterwards either;
    rounded while others stood in their place, they would be those.
    """
    torch.clear_autocast_cache()
    with torch.no_grad():
        yield
    torch.clear_autocast_cache()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into the mode in which it draws for as long as the context lasts."""
    mode = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(mode)


def _no_copy() -> BaseModel:
    """Never called: an adapter is turned off, and needs no second model."""
    raise ValueError("the adapter cannot be turned off")


