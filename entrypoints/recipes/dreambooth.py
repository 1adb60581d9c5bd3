"""DreamBooth (arXiv 2208.12242): bind a rare token to one subject from a handful of pictures."""

from functools import partial

import torch

from entrypoints.adapters.full import Full
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.evaluation.before_and_after import evaluate
from entrypoints.evaluation.prompts import EvaluationPrompt, contexts
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.pictures import Picture
from entrypoints.training.class_images import class_pictures
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.objective import Objective, PromptEncoder, PromptsOf, Stream
from entrypoints.training.run import Run
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.words import with_article, words_around


def train(recipe: DreamBooth, run: Run) -> None:
    """Fine-tune on the subject's pictures and, to keep the class as it is, on the model's own pictures of it."""
    base = run.load_base_model()
    pictures = run.pictures()
    latents = partial(latents_of, base, recipe)
    streams = [Stream("instance", latents(pictures), captions(pictures, recipe.instance_prompt))]
    if recipe.prior_preservation:
        of_class = class_pictures(run, base, recipe.class_prompt, recipe.class_images)
        prompts = captions(of_class, recipe.class_prompt)
        streams.append(Stream("class", latents(of_class), prompts, weight=recipe.prior_loss_weight))
    tuner = make_tuner(recipe, base)
    objective = Objective(base, recipe, streams, PromptEncoder(base, frozen=not tuner.trains_text_encoder))
    fit(run, base, tuner, objective.losses, partial(draw_validation, run, base))
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
    alpha = recipe.rank if recipe.alpha is None else recipe.alpha
    return Lora(base, rank=recipe.rank, alpha=alpha, text_encoder=recipe.train_text_encoder, seed=recipe.seed)


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
