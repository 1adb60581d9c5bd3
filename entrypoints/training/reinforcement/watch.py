"""Draws held-out prompts as training goes on, and scores them: what was learned beyond the prompts of training."""

from collections.abc import Sequence
from statistics import fmean

from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, batch_size, draw_batch
from entrypoints.training.reinforcement.drawing import evaluating
from entrypoints.training.reinforcement.objective import Reinforcement
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
            self._score(images)
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

    def _score(self, images: Sequence[Image.Image]) -> None:
        """Keep the mean of each reward."""
        prompts = [request.prompt for request in self.requests]
        seeds = len(self.run.evaluation_seeds)
        groups = [number // seeds for number in range(len(prompts))]
        log = self.objective.log
        for rewards in self.objective.drawer.rewards:
            scored = rewards.of(images, prompts, groups)
            for name, scores in scored.each.items():
                label = name.replace("-", "_")
                log.held_out[f"held_out_{label}"] = fmean(scores)

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
