"""LoRA (arXiv 2106.09685) on captioned images: a style, a domain, or many concepts in one adapter."""

from functools import partial

from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.training.captions import caption_prompts, different_captions, repeated
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import fit
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.run import Run
from entrypoints.training.texts import require_captions, require_texts
from entrypoints.training.validation import draw_validation
from orchestrator.contract.recipes.lora import CaptionedLora


def train(recipe: CaptionedLora, run: Run) -> None:
    """Train the adapter by denoising each image for its caption; the model's own weights stay (sec. 4.1)."""
    base = run.load_base_model()
    images = run.training_images()
    require_captions(images)
    require_texts(base, recipe, images)
    visited = repeated(images)
    stream = Stream(
        name="images",
        latents=latents_of(base, recipe, visited),
        prompts_of=caption_prompts(recipe, visited),
        is_described=True,
    )
    tuner = low_rank_tuner(recipe, base)
    encoder = PromptEncoder(base, frozen=not tuner.trains_text_encoder)
    objective = DenoisingObjective(base, recipe, [stream], encoder)
    validate = partial(draw_validation, run, base)
    fit(run, base, recipe, tuner, objective, validate)
    prompts = recipe.judged_by or recipe.judged_by_texts(different_captions(images))
    evaluate_and_publish(run, base, tuner, images, prompts)
