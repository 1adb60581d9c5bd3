"""The images of a report: which of them are shown, and what is said of each."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from entrypoints.evaluation.embedded import LARGEST, data_uris, scaled
from entrypoints.evaluation.samples import listed_images
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import list_images, read_image
from orchestrator.contract.environment import TRAINING_CHANNEL, Environment
from orchestrator.contract.findings import Findings
from orchestrator.contract.problem import Problem
from orchestrator.contract.samples import SAMPLES_FOLDER, SampleImage, Source

MOST_TRAINING = 48
"""Training images that are shown."""
MOST_SEEDS = 4
"""Images of each evaluation prompt that are shown, before and after."""
MOST_TIMELINE = 120
"""Validation images that are shown."""
MOST_PROMPTS = 24
"""Of the timeline."""


@dataclass
class Shown:
    """An image of the page."""

    alt: str
    """What it shows, for those who do not see it."""
    uri: str = ""
    """The image itself, once all of the page are known; stays empty where it is damaged."""


class Pictures:
    """All images of a page, which have to fit together."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.images: list[Image.Image] = []

    def add(self, path: Path, alt: str) -> Shown:
        """Read an image, and return what stands for it on the page."""
        shown = Shown(alt)
        with suppress(TrainingError):  # a damaged image may be what the run failed by
            self.images.append(scaled(read_image(path), LARGEST))
            self.shown.append(shown)
        return shown

    def embed(self, most_bytes: int) -> None:
        """Put the images into what stands for them."""
        uris = data_uris(self.images, most_bytes)
        for shown, uri in zip(self.shown, uris, strict=True):
            shown.uri = uri


class Compared(NamedTuple):
    """An evaluation prompt, with the images before and after training."""

    prompt: str
    """As the trained model was given it."""
    before: Sequence[Shown]
    """Images of the base model."""
    after: Sequence[Shown]
    """Images of the trained model."""
    left_out: int
    """Images of it, before and after each, that are not shown."""
    shown: Sequence[Shown] = ()
    """What a ControlNet was shown for it."""


class Line(NamedTuple):
    """A prompt of the timeline, with what was drawn of it after each step; None where nothing was."""

    prompt: str
    """As it was given to the model."""
    images: Sequence[Shown | None]
    """One for each step of the timeline."""
    shown: Sequence[Shown] = ()
    """What a ControlNet was shown for it."""


class Timeline(NamedTuple):
    """What the validation prompts gave as training went on."""

    steps: Sequence[int]
    """Those that are shown, in order."""
    lines: Sequence[Line]
    """One for each prompt that is shown."""
    left_out: int
    """Steps at which images were drawn that are not shown."""


class TrainingImage(NamedTuple):
    """An image that was trained on."""

    name: str
    """Path of its file within the data set."""
    shown: Shown
    """The image on the page."""
    caption: str
    """Empty where it has none."""
    repeats: int
    """How often an epoch shows it."""
    findings: list[str]
    """What its inspection found."""


class TrainingData(NamedTuple):
    """What was trained on."""

    images: Sequence[TrainingImage]
    """Those that are shown."""
    count: int
    """Images in all."""
    findings: Sequence[str]
    """What was found of the data as a whole, and of images that are not shown."""


def compared_prompts(model: Path, pictures: Pictures) -> list[Compared]:
    """Return the evaluation prompts of a finished adapter, or of an evaluation, whose files are in `model`."""
    folder = model / SAMPLES_FOLDER
    before = _by_text(folder, "before")
    after = _by_text(folder, "after")
    conditions = _by_text(folder, "condition")
    prompts = []
    for text, images in after.items():
        first = images[0]
        images_before = before.get(text, [])
        shown_before = _shown(folder, images_before[:MOST_SEEDS], "before training", pictures)
        shown_after = _shown(folder, images[:MOST_SEEDS], "after training", pictures)
        left_out = len(images) - MOST_SEEDS
        compared = Compared(
            prompt=first.prompt,
            before=shown_before,
            after=shown_after,
            left_out=max(0, left_out),
            shown=_conditions(folder, conditions.get(text, []), pictures),
        )
        prompts.append(compared)
    return prompts


def real_photos(model: Path, pictures: Pictures) -> list[Shown]:
    """Return the photos that the images of a finished adapter were compared with."""
    folder = model / SAMPLES_FOLDER
    photos = []
    for image in listed_images(folder).values():
        if image.source == "real":
            shown = pictures.add(folder / image.file, "a real photo")
            photos.append(shown)
    return photos


def timeline_of(folder: Path, pictures: Pictures) -> Timeline:
    """Return the validation images of a run, of some of its steps where they are many.

    At most MOST_PROMPTS prompts are shown, and about MOST_TIMELINE images in all. `folder` is that of the images.
    """
    drawn: dict[str, dict[int, SampleImage]] = {}  # by prompt and step
    every_step = set()
    for image in listed_images(folder).values():
        if image.step is not None:
            of_prompt = drawn.setdefault(image.prompt, {})
            of_prompt[image.step] = image
            every_step.add(image.step)
    conditions = _by_text(folder, "condition")
    prompts = list(drawn)[:MOST_PROMPTS]
    steps = sorted(every_step)
    most_steps = MOST_TIMELINE // max(1, len(prompts))
    kept = spread(steps, most_steps)
    lines = []
    for prompt in prompts:
        of_prompt = drawn[prompt]
        images: list[Shown | None] = []
        for step in kept:
            shown = None
            if step in of_prompt:
                image = of_prompt[step]
                shown = pictures.add(folder / image.file, f"{prompt}, after step {step}")
            images.append(shown)
        condition_images = _conditions(folder, conditions.get(prompt, []), pictures)
        line = Line(prompt, images, condition_images)
        lines.append(line)
    left_out = len(steps) - len(kept)
    return Timeline(kept, lines, left_out)


def training_images(environment: Environment, findings: Findings, pictures: Pictures) -> TrainingData | None:
    """Return what was trained on, with what its inspection found; None where there are no images to learn from."""
    folder = environment.channel(TRAINING_CHANNEL)
    if folder is None:
        return None
    try:
        found = list_images(folder)
    except TrainingError:  # which the run failed by, and its report says
        return None
    images: dict[str, TrainingImage] = {}
    for number, image in enumerate(found[:MOST_TRAINING], start=1):
        relative = image.path.relative_to(folder)
        caption = image.caption or ""
        alt = caption or f"training image {number}"
        training_image = TrainingImage(
            name=relative.as_posix(),
            shown=pictures.add(image.path, alt),
            caption=caption,
            repeats=image.repeats,
            findings=[],
        )
        images[training_image.name] = training_image
    others = []
    for problem in findings.problems:
        words = _words(problem)
        if problem.where in images:
            images[problem.where].findings.append(words)
        else:
            others.append(f"{problem.where}: {words}")
    shown_images = list(images.values())
    return TrainingData(shown_images, len(found), others)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Return at most so many (two or more) of some steps, evenly spread, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    last = len(steps) - 1
    gaps = most - 1
    chosen = []
    for number in range(most):
        place = round(number * last / gaps)
        chosen.append(steps[place])
    return chosen


def _by_text(folder: Path, source: Source) -> dict[str, list[SampleImage]]:
    """Return the images of one source by their prompt's text."""
    found: dict[str, list[SampleImage]] = {}
    for image in listed_images(folder).values():
        if image.source == source and image.step is None:
            found.setdefault(image.text, []).append(image)
    return found


def _shown(folder: Path, images: Sequence[SampleImage], when: str, pictures: Pictures) -> list[Shown]:
    """Return images of an evaluation prompt, drawn before or after training as `when` says."""
    shown = []
    for image in images:
        alt = f"{image.prompt}, {when}, seed {image.seed}"
        shown.append(pictures.add(folder / image.file, alt))
    return shown


def _conditions(folder: Path, images: Sequence[SampleImage], pictures: Pictures) -> list[Shown]:
    """Return what a ControlNet was shown for a prompt."""
    shown = []
    for image in images:
        alt = f"the condition of: {image.prompt}"
        shown.append(pictures.add(folder / image.file, alt))
    return shown


def _words(problem: Problem) -> str:
    """Return what was found, and in brackets what to do about it."""
    if not problem.fix:
        return problem.what
    return f"{problem.what} ({problem.fix})"
