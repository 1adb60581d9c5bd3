"""One trial in a process of its own: train as a job does, draw at the evaluation's seeds, compare by CLIP.

An `Order` comes on stdin; the result goes to the workplace.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from benchmarks.defaults.grid import CLASS_SEEDS, EVALUATION_SEEDS, Trial
from benchmarks.defaults.results import ClassLook, Grid, Moment, Result, Workplace
from benchmarks.defaults.subjects import SUBJECTS
from entrypoints import train
from entrypoints.runtime import libraries
from entrypoints.runtime.stop import StopFlag
from orchestrator.contract.environment import Environment
from orchestrator.contract.recipe import Recipe, to_hyperparameters
from orchestrator.contract.recipes.dreambooth import DreamBooth

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from entrypoints.evaluation.metrics import ClipScorer
    from entrypoints.models.base import BaseModel as Base
    from entrypoints.models.image_cache import ImageCache
    from entrypoints.models.sampling import DrawRequest


class Order(BaseModel):
    """What the process is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trial: Trial
    """What to train."""
    workplace: Workplace
    """Where."""


def main() -> None:
    """Carry out the order on stdin."""
    libraries.apply_settings()
    train.end_with_launcher()
    order = Order.model_validate_json(sys.stdin.buffer.read())
    result = run(order.trial, order.workplace)
    order.workplace.keep(result)


def run(trial: Trial, workplace: Workplace) -> Result:
    """Train and measure; what the training left but its contact sheet is deleted."""
    recipe = trial.declaration()
    folder = workplace.folder(trial)
    environment = lay_out(folder / "ml", recipe, workplace.pictures(trial), workplace.base_model)
    began = time.process_time()
    train.run_recipe(environment, StopFlag())
    seconds = time.process_time() - began
    result = measure(trial, workplace, environment.model, seconds)
    shutil.rmtree(environment.root)
    return result


def lay_out(root: Path, recipe: Recipe, pictures: Path, base_model: Path) -> Environment:
    """Lay out a job's folders as the service does; nothing of an earlier attempt is left."""
    shutil.rmtree(root, ignore_errors=True)
    channels = root / "input" / "data"
    channels.mkdir(parents=True)
    (channels / "training").symlink_to(pictures, target_is_directory=True)
    (channels / "base_model").symlink_to(base_model, target_is_directory=True)
    environment = Environment(root=root)
    environment.hyperparameters_file.parent.mkdir(parents=True)
    environment.hyperparameters_file.write_text(json.dumps(to_hyperparameters(recipe)), encoding="utf-8")
    return environment


def measure(trial: Trial, workplace: Workplace, adapter: Path, seconds: float) -> Result:
    """Draw with the base model and with the adapter, at the same prompts and seeds, and compare the images by CLIP."""
    from entrypoints.adapters.loading import load_adapter
    from entrypoints.evaluation import metrics
    from entrypoints.models.image_cache import ImageCache
    from entrypoints.models.loading import load_base_model
    from entrypoints.models.sampling import Drawing, draw
    from entrypoints.runtime.machine import this_machine
    from entrypoints.runtime.pictures import crop_square
    from entrypoints.runtime.ranks import Ranks
    from entrypoints.training.run import device_of

    recipe = trial.declaration()
    device = device_of(Ranks())
    base = load_base_model(workplace.base_model, recipe.base_model, None, device)
    drawing = Drawing(recipe.inference_steps, recipe.guidance_scale, recipe.resolution)
    cache = ImageCache.of(workplace.root / "images", base, this_machine(device), drawing)
    prompts = trial.prompts()
    asked_before = requests([prompt.before for prompt in prompts], EVALUATION_SEEDS)
    asked_after = requests([prompt.after for prompt in prompts], EVALUATION_SEEDS)
    asked_class: list[DrawRequest] = []
    if isinstance(recipe, DreamBooth):  # an embedding leaves the class as it is
        asked_class = requests([SUBJECTS[trial.subject].class_prompt], CLASS_SEEDS)

    before = draw_once(cache, base, asked_before)
    class_before = draw_once(cache, base, asked_class)
    load_adapter(base, adapter)
    after = draw(base, asked_after, drawing, go_on)
    class_after = draw(base, asked_class, drawing, go_on)

    scorer = metrics.clip_scorer(base)
    if scorer is None:
        raise SystemExit(f"{workplace.base_model} has no CLIP (folder clip/).")
    real = real_images(workplace.pictures(trial), drawing.size)
    of_real = scorer.embed_images(real)
    of_texts = scorer.embed_texts([prompt.text for prompt in prompts])
    perfect = [SUBJECTS[trial.subject].on(prompt.text, number) for number, prompt in enumerate(prompts)]
    drawn = [crop_square(image, drawing.size) for image in perfect]
    write_sheet(workplace.folder(trial), trial, real, before, after)
    return Result(
        trial=trial,
        ceiling=metrics.subject_fidelity_ceiling(of_real),
        before=compare(scorer.embed_images(before), of_real, of_texts),
        after=compare(scorer.embed_images(after), of_real, of_texts),
        perfect=compare(scorer.embed_images(drawn), of_real, of_texts),
        class_before=look(scorer, class_before, of_real),
        class_after=look(scorer, class_after, of_real),
        seconds=seconds,
    )


def requests(prompts: Sequence[str], seeds: Sequence[int]) -> "list[DrawRequest]":
    """Return a request for each prompt and seed, those of the first prompt first."""
    from entrypoints.models.sampling import DrawRequest

    return [DrawRequest(prompt, seed) for prompt in prompts for seed in seeds]


def draw_once(cache: "ImageCache", base: "Base", asked: "Sequence[DrawRequest]") -> "list[Image.Image]":
    """Return images of the untuned model; all trials that ask for the same share them."""
    from entrypoints.models.sampling import batches, draw_batch

    images: list[Image.Image] = []
    for batch in batches(base, asked, cache.drawing):
        if not cache.holds(batch):
            cache.keep(batch, draw_batch(base, batch, cache.drawing, go_on))
        images += cache.read(batch)
    return images


def go_on() -> None:
    """Let the drawing go on: whoever wants to stop ends this process."""


def real_images(folder: Path, size: int) -> "list[Image.Image]":
    """Return the subject's pictures as the evaluation of a job sees them."""
    from entrypoints.runtime.pictures import crop_square, list_images, read_image

    return [crop_square(read_image(image.path), size) for image in list_images(folder)]


def compare(images: "Tensor", real: "Tensor", texts: "Tensor") -> Moment:
    """Return the cosines of each image; `images` (prompts x seeds, width), `texts` (prompts, width), unit vectors."""
    seeds = len(images) // len(texts)
    subject = (images @ real.T).mean(dim=1)
    prompt = (images * texts.repeat_interleave(seeds, dim=0)).sum(dim=1)
    return Moment(subject=rows(subject, seeds), prompt=rows(prompt, seeds))


def rows(values: "Tensor", seeds: int) -> Grid:
    """Return the values of all images as a row for each prompt."""
    return tuple(tuple(row) for row in values.reshape(-1, seeds).tolist())


def look(scorer: "ClipScorer", images: "Sequence[Image.Image]", real: "Tensor") -> ClassLook | None:
    """Return how varied images of the class are and how near to the subject; None without images."""
    from entrypoints.evaluation import metrics

    if not images:
        return None
    vectors = scorer.embed_images(images)
    cosines = (vectors @ real.T).mean(dim=1)
    return ClassLook(
        variety=variety(vectors),
        subject=metrics.subject_fidelity(vectors, real),
        images=tuple(cosines.tolist()),
    )


def variety(vectors: "Tensor") -> float:
    """Return 1 - the mean pairwise cosine of unit vectors (images, width): 0 when all images are alike."""
    from entrypoints.evaluation import metrics

    return 1 - metrics.subject_fidelity_ceiling(vectors)


def write_sheet(
    folder: Path,
    trial: Trial,
    real: "Sequence[Image.Image]",
    before: "Sequence[Image.Image]",
    after: "Sequence[Image.Image]",
) -> None:
    """Write a contact sheet: figures do not show everything."""
    from entrypoints.evaluation.contact_sheet import contact_sheet
    from entrypoints.evaluation.samples import IndexedImage
    from orchestrator.contract.samples import SampleImage

    samples = [IndexedImage(image, SampleImage(file="real.png", source="real")) for image in real]
    prompts = trial.prompts()
    for number, image in enumerate([*before, *after]):
        is_after = number >= len(before)
        prompt = prompts[number % len(before) // len(EVALUATION_SEEDS)]
        about = SampleImage(
            file="drawn.png",
            source="after" if is_after else "before",
            prompt=prompt.after if is_after else prompt.before,
            text=prompt.text,
        )
        samples.append(IndexedImage(image, about))
    title = f"{trial.recipe}: {trial.row}, {trial.subject}, seed {trial.seed}"
    contact_sheet(title, samples).save(folder / "contact_sheet.png", format="PNG")


if __name__ == "__main__":
    main()
