"""DreamBooth (arXiv 2208.12242): bind a rare token to one subject from a few images of it."""

from functools import partial

import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.full import Full
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.adapters.pivotal import Pivotal
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.training.class_images import class_pictures
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, PromptsOf, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.optimizers import SecondRate
from entrypoints.training.preservation import DifferentialObjective
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.run import Run
from entrypoints.training.texts import require_texts
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.contract.words import NewWord, with_word


def train(recipe: DreamBooth, run: Run) -> None:
    """Fine-tune on the subject's images and, for prior preservation, on the model's own images of its class.

    Without the second (sec. 3.2) the class drifts towards the subject, and all images of the class look like it. The
    model's own predictions for the class may take the place of its images.
    """
    base = run.load_base_model()
    images = run.training_images()
    require_texts(base, recipe, images)
    subject = Stream(
        name="instance",
        latents=latents_of(base, recipe, images),
        prompts_of=captions(images, recipe.instance_prompt, recipe.new_word if recipe.pivotal else None),
    )
    streams = [subject]
    if recipe.prior_preservation:
        class_images = class_pictures(run, base, recipe.class_prompt, recipe.class_images)
        prior = Stream(
            name="class",
            latents=latents_of(base, recipe, class_images),
            prompts_of=captions(class_images, recipe.class_prompt),
            weight=recipe.prior_loss_weight,
        )
        streams.append(prior)

    tuner = make_tuner(recipe, base)
    encoder = PromptEncoder(base, frozen=not tuner.trains_text_encoder)
    objective = DenoisingObjective(base, recipe, streams, encoder)
    if recipe.output_preservation:
        untuned = partial(tuner.untuned, run.load_base_model)
        objective = DifferentialObjective(base, recipe, subject, encoder, untuned)
    validate = partial(draw_validation, run, base)
    fit(run, base, recipe, tuner, objective, validate, rate_of_rows(recipe, tuner))
    evaluate_and_publish(run, base, tuner, images, recipe.judged_by)


def captions(
    images: list[CaptionedImage],
    prompt: str,
    word: NewWord | None = None,
) -> PromptsOf:
    """Return the prompts of a stream: each image's own caption, or the recipe's prompt.

    Only in its own spelling does a new word stand for all its rows.
    """
    texts = [image.caption or prompt for image in images]
    if word is not None:
        texts = [with_word(text, word) for text in texts]

    def prompts_of(
        indices: list[int],
        random: torch.Generator,  # noqa: ARG001 - nothing to choose
    ) -> list[str]:
        return [texts[index] for index in indices]

    return prompts_of


def make_tuner(recipe: DreamBooth, base: BaseModel) -> Tuner:
    """Return what the recipe trains: all weights as in the paper, or an adapter, and maybe rows for the rare token."""
    if recipe.tuner == "full":
        return Full(base, text_encoder=recipe.train_text_encoder)
    if not recipe.pivotal:
        return low_rank_tuner(recipe, base)
    word = Embedding(
        base,
        placeholder=recipe.rare_token,
        initializer=recipe.initializer,
        vectors=recipe.vectors,
    )
    adapter = Lora(
        base,
        rank=recipe.rank,
        alpha=recipe.lora_alpha,
        text_encoder=False,
        seed=recipe.seed,
        targets=recipe.targets,
        dora=recipe.tuner == "dora",
    )
    return Pivotal(word, adapter)


def rate_of_rows(recipe: DreamBooth, tuner: Tuner) -> SecondRate | None:
    """Return the learning rate of the rare token's rows, which stay as they are for the rest of the run."""
    if not isinstance(tuner, Pivotal):
        return None
    last = round(recipe.steps * recipe.embedding_share)

    def of_step(step: int) -> float:
        return recipe.embedding_rate if step < last else 0.0

    return SecondRate(tuner.word.parameters, of_step)
