"""ControlNet (arXiv 2302.05543): make a frozen base model follow edges, colours or any other map of a picture."""

from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.evaluation.before_and_after import Controlled
from entrypoints.models.sampling import DrawRequest
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.captions import caption_prompts, repeated
from entrypoints.training.conditions import ConditionPictures, require_conditions
from entrypoints.training.control import ControlObjective
from entrypoints.training.denoising import PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.obedience import final_figures, watched_pictures
from entrypoints.training.obedience_watch import ObedienceWatch, draw_with_control
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.run import Run
from entrypoints.training.texts import require_texts
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipes.controlnet import ControlNet


def train(recipe: ControlNet, run: Run) -> None:
    """Train a copy of the U-Net's first half, by denoising each picture from its condition; the U-Net stays (sec. 3.2).

    Its outputs enter the U-Net through convolutions that start as zeros, so that nothing is disturbed at first.
    """
    base = run.load_base_model()
    images = run.training_images()
    require_conditions(recipe, images)
    require_texts(base, recipe, images)
    visited = repeated(images)
    latents = latents_of(base, recipe, visited)
    stream = Stream(
        name="images",
        latents=latents,
        prompts_of=caption_prompts(recipe, visited),
        conditions=ConditionPictures(recipe, visited, latents.sizes),
    )
    tuner = ControlNetTuner(base, seed=recipe.seed, gradient_checkpointing=recipe.gradient_checkpointing)
    encoder = PromptEncoder(base, frozen=True)
    objective = ControlObjective(base, recipe, stream, encoder, tuner.network)
    watch = ObedienceWatch(run, recipe, tuner, objective, images)
    fit(run, base, recipe, tuner, objective, watch.look)
    publish(recipe, run, tuner, images)


def publish(recipe: ControlNet, run: Run, tuner: ControlNetTuner, images: Sequence[CaptionedImage]) -> None:
    """Draw evaluation prompts without a condition and from those of training pictures, measure, and publish."""
    watched = watched_pictures(recipe, images, recipe.evaluation_prompts, recipe.evaluation_texts)
    prompts = []
    for each in watched:
        prompt = EvaluationPrompt(before=each.caption, after=recipe.with_trigger(each.caption), text=each.label)
        prompts.append(prompt)

    def draw_after(requests: Sequence[DrawRequest], report: Callable[[int], None]) -> list[Image.Image]:
        return draw_with_control(run, tuner, watched, requests, run.stop.check, report)

    controlled = Controlled(
        draw=draw_after,
        conditions=[each.condition for each in watched],
        captions=[each.caption for each in watched],
        figures_of=partial(final_figures, recipe, watched),
    )
    evaluate_and_publish(run, tuner.base, tuner, images, prompts, controlled)
