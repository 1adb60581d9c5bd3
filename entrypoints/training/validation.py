"""Images drawn during training, to see where it goes."""

from collections.abc import Sequence

from PIL import Image

from entrypoints.evaluation.samples import IndexedImage, write_samples
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, batch_size, draw_batch
from entrypoints.training.run import Run
from orchestrator.contract.events import TRAINING_PHASE, Phase, Sample, emit
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.samples import SampleImage
from orchestrator.contract.words import with_word


def draw_validation(run: Run, base: BaseModel, step: int) -> None:
    """Draw the recipe's validation prompts, if it has any, with the model as it is after `step`.

    All ranks must call it: the first draws, and the others wait so that they can be stopped together.
    """
    recipe = run.recipe
    if not recipe.validation_prompts:
        return
    modules = [base.denoiser, *base.text_encoders.values()]
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    requests = _requests(recipe)
    emit(Phase(name="validation", of=len(requests)))
    images = _draw_together(run, base, requests)
    for module, mode in zip(modules, modes, strict=True):
        module.train(mode)
    if not run.ranks.is_first:
        return
    _save(run, step, requests, images)
    if step < recipe.steps:
        emit(Phase(name=TRAINING_PHASE, of=recipe.steps))


def _requests(recipe: Recipe) -> list[DrawRequest]:
    """Return what is drawn: each prompt with the seed of the recipe, the same at every step."""
    requests = []
    word = recipe.new_word
    for prompt in recipe.validation_prompts:
        spelled = prompt
        if word is not None:
            # Only in its own spelling does a new word stand for all its vectors.
            spelled = with_word(prompt, word)
        requests.append(DrawRequest(spelled, recipe.seed))
    return requests


def _save(
    run: Run,
    step: int,
    requests: Sequence[DrawRequest],
    images: Sequence[Image.Image],
) -> None:
    """Write the images with their index, and tell where each lies."""
    samples = []
    pairs = zip(requests, images, strict=True)
    for number, (request, image) in enumerate(pairs):
        about = SampleImage(
            file=f"step-{step:06d}-{number}.png",
            source="after",
            prompt=request.prompt,
            text=request.prompt,
            seed=request.seed,
            step=step,
        )
        samples.append(IndexedImage(image, about))
    folder = run.environment.samples
    write_samples(folder, samples)
    root = run.environment.root
    for sample in samples:
        path = folder / sample.about.file
        told = path.relative_to(root)
        emit(Sample(path=told.as_posix()))


def _draw_together(run: Run, base: BaseModel, requests: Sequence[DrawRequest]) -> list[Image.Image]:
    """Return the images on the first rank, and none on the others."""
    images: list[Image.Image] = []
    size = batch_size(run.drawing.size, run.device)
    for start in range(0, len(requests), size):
        if run.ranks.is_first:
            batch = requests[start : start + size]
            images += draw_batch(base, batch, run.drawing, run.check_stop_alone)
        run.check_stop()
    return images
