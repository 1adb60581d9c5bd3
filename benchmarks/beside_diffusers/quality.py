"""What the saved files draw in plain diffusers, by the same evaluation, on prompts and seeds that training did not use.

A process of its own, so that its memory is no command's: it prints the figures of all files as a line of JSON.
python -m benchmarks.beside_diffusers.quality RECIPE IMAGES '[["FILE", ""], ...]'
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionControlNetPipeline
from PIL import Image

from benchmarks.results.held_out import write_held_out
from entrypoints.evaluation.bootstrap import Bootstrap
from entrypoints.evaluation.comparison import Compared, Drawn, compare
from entrypoints.evaluation.control_agreement import DrawnAnew, control_agreement
from entrypoints.evaluation.held_out import held_out_pictures
from entrypoints.evaluation.spaces import CLIP, EFFICIENTNET, load_spaces
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.libraries import quieten
from entrypoints.runtime.pictures import crop_square, list_images, read_image
from orchestrator.contract.conditions import CANNY
from orchestrator.contract.evaluation import FIRST_SEED, Way, ways_of
from orchestrator.contract.evaluation_result import ControlAgreement, Estimate, Figure
from orchestrator.contract.figures import DRIFT, PROMPT_FIDELITY, SUBJECT_FIDELITY
from orchestrator.contract.recipe import BUILTIN, Recipe, recipe_class
from orchestrator.resources import ASSETS, BUILTIN_MODEL
from orchestrator.specs.evaluation_prompts import unrelated_prompts

Row = dict[str, str]
"""A figure with its interval, by the head of its column."""
Pipeline = Any  # diffusers has no types
RESAMPLES = 2000
DIGITS = 3
NOTHING = "-"
LOADERS = {
    "dreambooth": lambda pipeline, file: pipeline.load_lora_weights(file.parent, weight_name=file.name),
    "textual-inversion": lambda pipeline, file: pipeline.load_textual_inversion(file),
}
"""How plain diffusers takes up a file of each recipe."""


class Result(NamedTuple):
    """A file that a training has saved."""

    file: Path
    asked_as: str = ""
    """What its prompts have in the place of the placeholder: each is asked as it was trained."""


class Picture(NamedTuple):
    """What is drawn: some seeds of a prompt, and the map that is shown."""

    prompt: str
    shown: Image.Image | None = None


def settings_of(recipe: str) -> Recipe:
    """Return the recipe's settings for the sample, which say by which prompts it is judged and how it draws."""
    declaration = recipe_class(recipe)
    return declaration.model_validate(dict(declaration.sample_defaults))


def judge(recipe: str, images: int, results: Sequence[Result], prompts: int | None = None) -> list[Row]:
    """Return the figures of each result, from so many images of each prompt; of at most so many prompts."""
    base = load_base_model(BUILTIN_MODEL, BUILTIN, None, torch.device("cpu"))
    settings = settings_of(recipe)
    seeds = range(FIRST_SEED, FIRST_SEED + images)
    if recipe in LOADERS:
        return judge_subjects(base, settings, seeds, results, prompts)
    return judge_controls(base, settings, seeds, results, prompts)


def judge_subjects(
    base: BaseModel,
    settings: Recipe,
    seeds: Sequence[int],
    results: Sequence[Result],
    most: int | None,
) -> list[Row]:
    """Measure what a recipe that learns a subject has saved."""
    spaces = load_spaces(base, None, None)
    asked = settings.judged_by[:most]
    others = unrelated_prompts(asked, builtin=True)[:most]
    texts = [prompt.text for prompt in asked]
    real = []
    for image in list_images(ASSETS / "sample"):
        real.append(crop_square(read_image(image.path), settings.resolution))
    before = draw(plain_pipeline(), settings, seeds, [Picture(prompt.before) for prompt in asked])
    untouched = draw(plain_pipeline(), settings, seeds, [Picture(text) for text in others])
    rows = []
    for result in results:
        pipeline = plain_pipeline()
        LOADERS[settings.recipe_name()](pipeline, result.file)
        after = draw(pipeline, settings, seeds, [Picture(asked_text(prompt.after, result)) for prompt in asked])
        moved = draw(pipeline, settings, seeds, [Picture(text) for text in others])
        on_subject = Drawn(texts, len(seeds), before, after)
        off_subject = Drawn(others, len(seeds), untouched, moved)
        rows.append(subject_row(compare(spaces, on_subject, off_subject, real, Bootstrap(RESAMPLES, 0))))
    return rows


def asked_text(prompt: str, result: Result) -> str:
    """Return a prompt in the words of a result."""
    word = result.asked_as.split()[-1:]
    return prompt.replace(word[0], result.asked_as) if word else prompt


def subject_row(compared: Compared) -> Row:
    """Return what is shown of the figures of a subject."""
    found: Mapping[tuple[str, str], Figure] = {(one.measure, one.space): one for one in compared.figures}
    of_clip = found[SUBJECT_FIDELITY.name, CLIP]
    of_efficientnet = found.get((SUBJECT_FIDELITY.name, EFFICIENTNET))
    prompt_fidelity = found[PROMPT_FIDELITY.name, CLIP]
    drift = found.get((DRIFT.name, CLIP))
    return {
        "gap closed, CLIP": _text(of_clip.gap_closed),
        "gap closed, EfficientNet": _text(of_efficientnet and of_efficientnet.gap_closed),
        "prompt fidelity, beside the base model's": _text(prompt_fidelity.difference),
        "drift": _text(drift and drift.adapter),
    }


def judge_controls(
    base: BaseModel,
    settings: Recipe,
    seeds: Sequence[int],
    results: Sequence[Result],
    most: int | None,
) -> list[Row]:
    """Measure ControlNets on layouts that none was trained on."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_held_out(Path(folder))
        captions = [image.caption or "" for image in list_images(written)][:most]
        pictures = held_out_pictures(written, [CANNY], None, settings.resolution)[:most]
    decoded = []
    for each in pictures:
        moments = base.encode_images([each.picture])  # (1, 2, channels, height, width)
        decoded += base.decode(moments[:, 0])
    alone = draw(plain_pipeline(), settings, seeds, [Picture(caption) for caption in captions])
    maps = [each.maps[CANNY].shown for each in pictures]
    rows = []
    for result in results:
        network = ControlNetModel.from_pretrained(result.file.parent, local_files_only=True)
        pipeline = plain_pipeline(StableDiffusionControlNetPipeline, controlnet=network)
        ways: dict[Way, list[Image.Image]] = {}
        for way in ways_of([CANNY]):
            shown = maps if way.is_own else [*maps[1:], maps[0]]
            wanted = [Picture(caption, one) for caption, one in zip(captions, shown, strict=True)]
            ways[way] = draw(pipeline, settings, seeds, wanted)
        drawn = DrawnAnew(alone, ways, decoded)
        (agreement,) = control_agreement(pictures, drawn, Bootstrap(RESAMPLES, 0))
        rows.append(control_row(agreement))
    return rows


def control_row(agreement: ControlAgreement) -> Row:
    """Return what is shown of the agreement with edges."""
    return {
        "edge F1 without a map": _text(agreement.base),
        "with it": _text(agreement.own),
        "times": _text(agreement.times_base),
        "with - shuffled": _text(agreement.gap),
        "share of the ceiling": _text(agreement.share_of_ceiling),
    }


def plain_pipeline(kind: Any = DiffusionPipeline, **parts: Any) -> Pipeline:
    """Return the built-in model as diffusers opens it."""
    pipeline = kind.from_pretrained(BUILTIN_MODEL, local_files_only=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Pipeline, settings: Recipe, seeds: Sequence[int], wanted: Sequence[Picture]) -> list[Image.Image]:
    """Draw all seeds of each picture, those of the first picture first."""
    images: list[Image.Image] = []
    for picture in wanted:
        options: dict[str, Any] = {}
        if picture.shown is not None:
            options["image"] = [picture.shown] * len(seeds)
        images += pipeline(
            [picture.prompt] * len(seeds),
            height=settings.resolution,
            width=settings.resolution,
            num_inference_steps=settings.inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            **options,
        ).images
    return images


def _text(estimate: Estimate | None) -> str:
    """Return a figure with its interval, and no zero with a sign."""
    return NOTHING if estimate is None else estimate.text(DIGITS).replace("-0.000", "0.000")


def main(words: Sequence[str]) -> None:
    """Print the figures of each file."""
    recipe, images, saved = words
    quieten()
    results = []
    for file, asked_as in json.loads(saved):
        results.append(Result(Path(file), asked_as))
    print(json.dumps(judge(recipe, int(images), results)))


if __name__ == "__main__":
    main(sys.argv[1:])
