"""Images of the class, drawn by the base model before training (DreamBooth, arXiv 2208.12242, sec. 3.2), once."""

from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, batches, draw_batch
from entrypoints.runtime.pictures import CaptionedImage
from entrypoints.runtime.randomness import keyed_seed
from entrypoints.training.run import Run
from orchestrator.contract.events import Item, Phase, emit


def class_pictures(
    run: Run,
    base: BaseModel,
    prompt: str,
    count: int,
) -> list[CaptionedImage]:
    """Return `count` images of the class, drawing those that are not in the cache."""
    cache = run.image_cache(base)
    requests = []
    for number in range(count):
        seed = keyed_seed(run.recipe.seed, "class image", number)
        requests.append(DrawRequest(prompt, seed))
    parts = batches(base, requests, run.drawing)
    draws = run.ranks.is_first_of_host and not all(cache.holds(batch) for batch in parts)
    if draws:
        emit(Phase(name="class images", of=count))
    images: list[CaptionedImage] = []
    for batch in parts:
        images += [CaptionedImage(path) for path in cache.paths(batch)]
        if draws:
            if not cache.holds(batch):
                cache.keep(batch, draw_batch(base, batch, run.drawing, run.check_stop_alone))
            emit(Item(done=len(images), of=count))
        run.check_stop()  # where the processes that draw nothing wait
    return images
