"""Pictures of the class, drawn by the base model before training (DreamBooth, arXiv 2208.12242, sec. 3.2), once.

They are kept under a hash of all they depend on. A batch of them is always drawn as a whole and each file appears by
a rename, so that two jobs at once, or a job that was killed half-way, come by the same bytes.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.models.loading import settings_sha256
from entrypoints.models.sampling import DrawRequest, batch_size, draw_batch
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
    """Return `count` pictures of the class, drawing those that are not in the cache."""
    key = cache_key(run, base, prompt, count)
    folder = run.environment.cache / "class_images" / key
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:05d}.png")
    draws = run.ranks.is_first_of_host and not _all_there(paths)
    if draws:
        emit(Phase(name="class images", of=count))
    size = batch_size(run.drawing.size, run.device)
    for start in range(0, count, size):
        batch = paths[start : start + size]
        if draws:
            _draw_missing(
                run,
                base,
                prompt,
                start,
                batch,
            )
            done = start + len(batch)
            emit(Item(done=done, of=count))
        run.check_stop()  # where the processes that draw nothing wait
    return [CaptionedImage(path) for path in paths]


def cache_key(run: Run, base: BaseModel, prompt: str, count: int) -> str:
    """Return a hash of everything that the pictures depend on."""
    recipe = run.recipe
    facts = {
        "prompt": prompt,
        "count": count,
        "seed": recipe.seed,
        "weights": base.reference.fingerprint,
        "settings": settings_sha256(base.folder),
        "resolution": recipe.resolution,
        "steps": recipe.inference_steps,
        "guidance": recipe.guidance_scale,
        "batch": batch_size(run.drawing.size, run.device),
        **run.machine.model_dump(),
    }
    text = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest[:24]


def _all_there(paths: Sequence[Path]) -> bool:
    return all(path.is_file() for path in paths)


def _draw_missing(
    run: Run,
    base: BaseModel,
    prompt: str,
    start: int,
    paths: Sequence[Path],
) -> None:
    """Draw a batch, the images with the numbers `start`, `start + 1`, ..., unless all its files are there."""
    if _all_there(paths):
        return
    requests = []
    for number in range(start, start + len(paths)):
        seed = keyed_seed(run.recipe.seed, "class image", number)
        requests.append(DrawRequest(prompt, seed))
    images = draw_batch(base, requests, run.drawing, run.check_stop_alone)
    for path, image in zip(paths, images, strict=True):
        _write(image, path)


def _write(image: Image.Image, path: Path) -> None:
    """Write a picture under another name first: a file that is there is whole."""
    process = os.getpid()
    draft = path.with_name(f".{path.name}.{process}")
    image.save(draft, format="PNG")
    draft.replace(path)
