"""Textual inversion (arXiv 2208.01618): learn one new word; the model itself stays as it is."""

from functools import partial

import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, PromptsOf, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.run import Run
from entrypoints.training.texts import require_texts
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.contract.words import NewWord, with_word


def train(recipe: TextualInversion, run: Run) -> None:
    """Find the embedding rows with which the frozen model denoises the images best (sec. 3, eq. 2)."""
    base = run.load_base_model()
    images = run.training_images()
    require_texts(base, recipe, images)
    tuner = Embedding(
        base,
        placeholder=recipe.placeholder_token,
        initializer=recipe.initializer_token,
        vectors=recipe.vectors,
        hold_initializer=recipe.is_held,
    )
    stream = Stream(
        name="subject",
        latents=latents_of(base, recipe, images),
        prompts_of=prompts_with(recipe, images),
    )
    encoder = PromptEncoder(base, frozen=False)
    objective = DenoisingObjective(base, recipe, [stream], encoder)
    validate = partial(draw_validation, run, base)
    fit(run, base, recipe, tuner, objective, validate)
    evaluate_and_publish(run, base, tuner, images, recipe.judged_by)


def prompts_with(recipe: TextualInversion, images: list[CaptionedImage]) -> PromptsOf:
    """Return the prompts of the images: their own captions, or a random template at each visit (sec. 3)."""
    word = NewWord(recipe.placeholder_token, recipe.vectors)
    choices = recipe.templates
    captions: list[str | None] = []
    for image in images:
        # A caption may write the word in capitals. Only in its own spelling does it stand for all its vectors.
        captions.append(image.caption and with_word(image.caption, word))

    def prompts_of(indices: list[int], random: torch.Generator) -> list[str]:
        # Drawn for every image, so that a caption does not change what the others get.
        numbers = torch.randint(
            len(choices),
            (len(indices),),
            generator=random,
        )
        prompts = []
        for index, number in zip(indices, numbers.tolist(), strict=True):
            template = choices[number].format(word.text)
            prompts.append(captions[index] or template)
        return prompts

    return prompts_of
