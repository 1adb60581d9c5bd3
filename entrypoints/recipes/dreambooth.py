"""DreamBooth (arXiv 2208.12242): bind a rare token to one subject from a handful of pictures."""

from functools import partial

import torch

from entrypoints.adapters.full import Full
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.evaluation.before_and_after import evaluate
from entrypoints.evaluation.prompts import EvaluationPrompt, contexts
from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import Picture
from entrypoints.training.class_images import class_pictures
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, PromptsOf, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.run import Run
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.words import with_article, words_around


def train(recipe: DreamBooth, run: Run) -> None:
    """Fine-tune on the subject's pictures and, to keep the class as it is, on the model's own pictures of it."""
    base = run.load_base_model()
    pictures = run.pictures()
    subject = latents_of(base, recipe, pictures)
    streams = [Stream("instance", subject, captions(pictures, recipe.instance_prompt))]
    if recipe.prior_preservation:
        of_class = class_pictures(run, base, recipe.class_prompt, recipe.class_images)
        prompts = captions(of_class, recipe.class_prompt)
        streams.append(Stream("class", latents_of(base, recipe, of_class), prompts, weight=recipe.prior_loss_weight))

    tuner = make_tuner(recipe, base)
    encoder = PromptEncoder(base, frozen=not tuner.trains_text_encoder)
    objective = DenoisingObjective(base, recipe, streams, encoder)
    fit(run, base, recipe, tuner, objective, partial(draw_validation, run, base))

    if run.ranks.is_first:
        prompts = evaluation_prompts(recipe)
        seeds = run.evaluation_seeds
        evaluation = evaluate(run.load_base_model, base, prompts, run.drawing, seeds, pictures, run.stop.check)
        run.publish(tuner, base, evaluation.metrics, partial(evaluation.save, title=run.title))


def captions(pictures: list[Picture], prompt: str) -> PromptsOf:
    """Return the prompts of a stream: each picture's own caption, or the recipe's prompt."""

    def prompts_of(indices: list[int], random: torch.Generator) -> list[str]:  # noqa: ARG001 - nothing to choose
        return [pictures[index].caption or prompt for index in indices]

    return prompts_of


def make_tuner(recipe: DreamBooth, base: BaseModel) -> Tuner:
    """Return the low-rank adapter, or all weights."""
    if recipe.tuner == "full":
        return Full(base, text_encoder=recipe.train_text_encoder)
    return Lora(
        base,
        rank=recipe.rank,
        alpha=recipe.lora_alpha,
        text_encoder=recipe.train_text_encoder,
        seed=recipe.seed,
    )


def evaluation_prompts(recipe: DreamBooth) -> list[EvaluationPrompt]:
    """Ask both models for the subject, by the rare token and the class; CLIP is told the class alone."""
    _, of_class = words_around(recipe.instance_prompt, recipe.rare_token)  # "a photo of sks dog" is about "sks dog"
    subject = " ".join([recipe.rare_token, *of_class])
    named, plain = with_article(subject), with_article(" ".join(of_class) or "thing")
    prompts = []
    for context in contexts(recipe):
        asked = context.format(named)
        prompts.append(EvaluationPrompt(before=asked, after=asked, text=context.format(plain)))
    return prompts
