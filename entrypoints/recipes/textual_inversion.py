"""Textual inversion (arXiv 2208.01618): learn one new word; the model itself stays as it is."""

from functools import partial

import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.evaluation.prompts import STYLE_TEMPLATES, EvaluationPrompt, contexts, object_templates
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, PromptsOf, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.run import Run
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.contract.words import holds_word, with_article

MOST_NAMES = 5
"""Files that an error lists."""


def train(recipe: TextualInversion, run: Run) -> None:
    """Find the embedding rows with which the frozen model denoises the images best (sec. 3, eq. 2)."""
    base = run.load_base_model()
    images = run.training_images()
    tuner = Embedding(
        base,
        placeholder=recipe.placeholder_token,
        initializer=recipe.initializer_token,
        vectors=recipe.vectors,
    )
    stream = Stream(
        name="subject",
        latents=latents_of(base, recipe, images),
        prompts_of=templates(recipe, images),
    )
    encoder = PromptEncoder(base, frozen=False)
    objective = DenoisingObjective(base, recipe, [stream], encoder)
    validate = partial(draw_validation, run, base)
    fit(run, base, recipe, tuner, objective, validate)
    prompts = evaluation_prompts(recipe)
    evaluate_and_publish(run, base, tuner, images, prompts)


def templates(recipe: TextualInversion, images: list[CaptionedImage]) -> PromptsOf:
    """Return the prompts of the images: their own captions, or a random template at each visit (sec. 3).

    Raises TrainingError("dataset") when a caption lacks the placeholder: nothing would be learned from it.
    """
    placeholder = recipe.placeholder_token
    require_placeholder(images, placeholder)
    choices = object_templates(recipe)
    if recipe.learnable_property == "style":
        choices = STYLE_TEMPLATES

    def prompts_of(indices: list[int], random: torch.Generator) -> list[str]:
        # Drawn for every image, so that a caption does not change what the others get.
        numbers = torch.randint(
            len(choices),
            (len(indices),),
            generator=random,
        )
        prompts = []
        for index, number in zip(indices, numbers.tolist(), strict=True):
            template = choices[number].format(placeholder)
            caption = images[index].caption
            prompts.append(caption or template)
        return prompts

    return prompts_of


def require_placeholder(images: list[CaptionedImage], placeholder: str) -> None:
    """Raise TrainingError("dataset") unless every caption contains the placeholder as a word."""
    lacking = []
    for image in images:
        if image.caption is not None and not holds_word(image.caption, placeholder):
            lacking.append(image.path.name)
    if lacking:
        names = ", ".join(lacking[:MOST_NAMES])
        raise TrainingError(
            "dataset",
            f'The captions of {names} do not mention "{placeholder}".',
            "Put the placeholder into each caption, or leave the captions out.",
        )


def evaluation_prompts(recipe: TextualInversion) -> list[EvaluationPrompt]:
    """Return the evaluation prompts: with the initializer for the base model, with the new word for the tuned one.

    CLIP does not know the new word; the text that it compares images with has the initializer.
    """
    is_style = recipe.learnable_property == "style"
    known = with_article(recipe.initializer_token)
    found = []
    for context in contexts(recipe, style=is_style):
        plain = context.format(known)
        prompt = EvaluationPrompt(
            before=plain,
            after=context.format(recipe.placeholder_token),
            text=plain,
        )
        found.append(prompt)
    return found
