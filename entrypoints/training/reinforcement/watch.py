"""Draws held-out prompts as training goes on, and scores them: what was learned beyond the prompts of training."""

from collections.abc import Sequence
from statistics import fmean

from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, batch_size, draw_batch
from entrypoints.training.reinforcement.drawing import evaluating
from entrypoints.training.reinforcement.figures import measured
from entrypoints.training.reinforcement.objective import Reinforcement
from entrypoints.training.rewards.alarms import Measured, Round
from entrypoints.training.rewards.diversity import group_diversity
from entrypoints.training.run import Run
from entrypoints.training.validation import draw_validation, save_drawn
from orchestrator.contract.events import TRAINING_PHASE, Phase, emit
from orchestrator.contract.recipes.rlhf import Rlhf


class RewardWatch:
    """Draws and scores the held-out prompts."""

    def __init__(
        self,
        run: Run,
        base: BaseModel,
        recipe: Rlhf,
        objective: Reinforcement,
        prompts: Sequence[str],
    ) -> None:
        """Prepare to draw.

        Args:
            run: Where images are written, and whether the process was asked to stop.
            base: The model that is trained.
            recipe: How images are drawn.
            objective: What keeps the figures, and has the rewards.
            prompts: The held-out ones.
        """
        self.run = run
        self.base = base
        self.recipe = recipe
        self.objective = objective
        self.requests: list[DrawRequest] = []
        for prompt in prompts:
            for seed in run.evaluation_seeds:
                request = DrawRequest(prompt, seed)
                self.requests.append(request)

    def look(self, step: int) -> None:
        """Draw the held-out prompts, and the validation prompts, with the model as it is after `step`.

        All ranks must call it: the first draws, and scores the former.
        """
        run = self.run
        draw_validation(run, self.base, step)
        if not self.requests:
            return
        if run.ranks.is_first:
            emit(Phase(name="held-out prompts", of=len(self.requests)))
            images = self._draw()
            self._score(step, images)
            self._save(step, images)
            if step < self.recipe.steps:
                emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))
        run.check_stop()

    def _draw(self) -> list[Image.Image]:
        """Return the images of all requests, as a person would draw them: by the model's own sampler."""
        size = batch_size(self.run.drawing.shape, self.run.device)
        images: list[Image.Image] = []
        with evaluating(self.base.denoiser):
            for start in range(0, len(self.requests), size):
                batch = self.requests[start : start + size]
                images += draw_batch(self.base, batch, self.run.drawing, self.run.check_stop_alone)
        return images

    def _score(self, step: int, images: Sequence[Image.Image]) -> None:
        """Keep the mean of each reward, and let the alarms see what has changed since the first look."""
        prompts = [request.prompt for request in self.requests]
        seeds = len(self.run.evaluation_seeds)
        groups = [number // seeds for number in range(len(prompts))]
        drawer = self.objective.drawer
        trained = drawer.rewards.trained.of(images, prompts, groups)
        evaluated = drawer.rewards.evaluated.of(images, prompts, groups)
        log = self.objective.log
        for name, scores in {**trained.each, **evaluated.each}.items():
            label = name.replace("-", "_")
            log.held_out[f"held_out_{label}"] = fmean(scores)
        others = {}
        for name, scores in evaluated.each.items():
            others[name] = measured(prompts, scores)
        look = Round(
            number=step // self.recipe.steps_per_round,
            reward=measured(prompts, trained.total),
            evaluation=others,
            diversity=self._diversity(images, groups),
        )
        log.add_look(look)

    def _diversity(self, images: Sequence[Image.Image], groups: Sequence[int]) -> Measured | None:
        """Return how different the images of each prompt are; None where there is one of each."""
        seeds = len(self.run.evaluation_seeds)
        of_groups = group_diversity(self.objective.drawer.space, images, groups)
        if not of_groups:
            return None
        prompts = [self.requests[group * seeds].prompt for group in of_groups]
        return measured(prompts, list(of_groups.values()))

    def _save(self, step: int, images: Sequence[Image.Image]) -> None:
        """Write the images of the first seed with their index."""
        first = self.run.evaluation_seeds[0]
        shown = []
        drawn = []
        for request, image in zip(self.requests, images, strict=True):
            if request.seed == first:
                shown.append(request)
                drawn.append(image)
        save_drawn(self.run, step, shown, drawn, "held-out")
