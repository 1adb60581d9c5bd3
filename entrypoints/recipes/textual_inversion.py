"""Textual inversion (arXiv 2208.01618): learn one new word; the model itself stays as it is."""

from functools import partial

import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.evaluation.before_and_after import evaluate
from entrypoints.evaluation.prompts import STYLE_TEMPLATES, EvaluationPrompt, contexts, object_templates
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import Picture
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, PromptsOf, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.run import Run
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.contract.words import holds_word, with_article


def train(recipe: TextualInversion, run: Run) -> None:
    """Search the embedding rows with which the frozen model best explains the pictures."""
    base = run.load_base_model()
    pictures = run.pictures()
    tuner = Embedding(
        base,
        placeholder=recipe.placeholder_token,
        initializer=recipe.initializer_token,
        vectors=recipe.vectors,
    )
    stream = Stream("subject", latents_of(base, recipe, pictures), templates(recipe, pictures))
    objective = DenoisingObjective(base, recipe, [stream], PromptEncoder(base, frozen=False))
    fit(run, base, recipe, tuner, objective, partial(draw_validation, run, base))

    if run.ranks.is_first:
        prompts = evaluation_prompts(recipe)
        seeds = run.evaluation_seeds
        evaluation = evaluate(run.load_base_model, base, prompts, run.drawing, seeds, pictures, run.stop.check)
        run.publish(tuner, base, evaluation.metrics, partial(evaluation.save, title=run.title))


def templates(recipe: TextualInversion, pictures: list[Picture]) -> PromptsOf:
    """Return the prompts of the pictures: their own captions, or a template drawn anew each time (sec. 4)."""
    strange = [picture.path.name for picture in pictures if not _mentions(picture.caption, recipe.placeholder_token)]
    if strange:
        message = f'The captions of {", ".join(strange[:5])} do not mention "{recipe.placeholder_token}".'
        raise TrainingError("dataset", message, "Put the placeholder into each caption, or leave the captions out.")
    choices = STYLE_TEMPLATES if recipe.learnable_property == "style" else object_templates(recipe)

    def prompts_of(indices: list[int], random: torch.Generator) -> list[str]:
        drawn = torch.randint(len(choices), (len(indices),), generator=random).tolist()
        pairs = zip(indices, drawn, strict=True)
        return [pictures[index].caption or choices[n].format(recipe.placeholder_token) for index, n in pairs]

    return prompts_of


def _mentions(caption: str | None, placeholder: str) -> bool:
    return caption is None or holds_word(caption, placeholder)


def evaluation_prompts(recipe: TextualInversion) -> list[EvaluationPrompt]:
    """Ask the base model by the initializer and the tuned one by the new word; CLIP is told the initializer."""
    known, new = with_article(recipe.initializer_token), recipe.placeholder_token
    prompts = []
    for context in contexts(recipe, style=recipe.learnable_property == "style"):
        plain = context.format(known)
        prompts.append(EvaluationPrompt(before=plain, after=context.format(new), text=plain))
    return prompts
