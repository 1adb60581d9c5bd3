"""Images drawn during training, to see where it goes."""

from collections.abc import Iterable, Sequence

from PIL import Image

from entrypoints.evaluation.collapse import doubt_of
from entrypoints.evaluation.samples import IndexedImage, listed_images, write_samples
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, batch_size, draw_batch
from entrypoints.runtime.pictures import read_image
from entrypoints.training.run import Run
from orchestrator.contract.events import TRAINING_PHASE, Phase, Sample, Warned, emit, warnings_told
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.samples import SampleImage
from orchestrator.contract.words import with_word


def draw_validation(run: Run, base: BaseModel, step: int) -> None:
    """Draw the recipe's validation prompts, if it has any, with the model as it is after `step`.

    Step 0 is before training: what the base model draws of them. All ranks must call it: the first draws, and the
    others wait so that they can be stopped together.
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
    save_drawn(run, step, requests, images)
    _warn_of_collapse(run, step, requests, images)
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


def _warn_of_collapse(
    run: Run,
    step: int,
    requests: Sequence[DrawRequest],
    images: Sequence[Image.Image],
) -> None:
    """Warn, once, of images that show nothing, or nearly the same for each prompt."""
    drawn = dict(zip(requests, images, strict=True))  # a prompt may be there twice
    before = _drawn_before(run, drawn) if step else []
    doubt = doubt_of(list(drawn.values()), before)
    if doubt is None:
        return
    advice = "lower learning_rate (-s learning_rate=...), or take an adapter of fewer steps"
    if not step:
        advice = "check the base model (vae/ and scheduler/), and guidance_scale; with mixed_precision=fp16 try bf16"
    message = f"{doubt}. {advice[0].upper()}{advice[1:]}."
    if message not in warnings_told():
        emit(Warned(message=message))


def _drawn_before(run: Run, drawn: Iterable[DrawRequest]) -> list[Image.Image]:
    """Return the base model's images of the same requests; none where one is missing, as after another machine."""
    folder = run.environment.samples
    files = {}
    for about in listed_images(folder).values():
        if about.step == 0 and about.seed is not None:
            files[DrawRequest(about.prompt, about.seed)] = folder / about.file
    images = []
    for request in drawn:
        path = files.get(request)
        if path is None or not path.is_file():
            return []
        images.append(read_image(path))
    return images


def save_drawn(
    run: Run,
    step: int,
    requests: Sequence[DrawRequest],
    images: Sequence[Image.Image],
    name: str = "step",
) -> None:
    """Write images that were drawn after a step with their index, under names that begin so; tell where each lies."""
    samples = []
    pairs = zip(requests, images, strict=True)
    for number, (request, image) in enumerate(pairs):
        about = SampleImage(
            file=f"{name}-{step:06d}-{number}.png",
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
    size = batch_size(run.drawing.shape, run.device)
    for start in range(0, len(requests), size):
        if run.ranks.is_first:
            batch = requests[start : start + size]
            images += draw_batch(base, batch, run.drawing, run.check_stop_alone)
        run.check_stop()
    return images
