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
    before: Sequence[Shown]
    after: Sequence[Shown]
    left_out: int
    """Images of it, before and after each, that are not shown."""
    shown: Sequence[Shown] = ()
    """What a ControlNet was shown for it."""


class Line(NamedTuple):
    """A prompt of the timeline, with what was drawn of it after each step; None where nothing was."""

    prompt: str
    images: Sequence[Shown | None]
    shown: Sequence[Shown] = ()
    """What a ControlNet was shown for it."""


class Timeline(NamedTuple):
    """What the validation prompts gave as training went on."""

    steps: Sequence[int]
    lines: Sequence[Line]
    left_out: int
    """Steps at which images were drawn that are not shown."""


class TrainingImage(NamedTuple):
    """An image that was trained on."""

    name: str
    shown: Shown
    caption: str
    repeats: int
    findings: Sequence[str]


class TrainingData(NamedTuple):
    """What was trained on."""

    images: Sequence[TrainingImage]
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
        compared = Compared(
            prompt=images[0].prompt,
            before=_shown(folder, before.get(text, [])[:MOST_SEEDS], "before training", pictures),
            after=_shown(folder, images[:MOST_SEEDS], "after training", pictures),
            left_out=max(0, len(images) - MOST_SEEDS),
            shown=_conditions(folder, conditions.get(text, []), pictures),
        )
        prompts.append(compared)
    return prompts


def real_photos(model: Path, pictures: Pictures) -> list[Shown]:
    """Return the photos that the images of a finished adapter were compared with."""
    folder = model / SAMPLES_FOLDER
    found = [image for image in listed_images(folder).values() if image.source == "real"]
    return [pictures.add(folder / image.file, "a real photo") for image in found]


def timeline_of(folder: Path, pictures: Pictures) -> Timeline:
    """Return the validation images of a run, of some of its steps where they are many."""
    drawn: dict[tuple[str, int], SampleImage] = {}
    conditions = _by_text(folder, "condition")
    for image in listed_images(folder).values():
        if image.step is not None:
            drawn[image.prompt, image.step] = image
    prompts = list(dict.fromkeys(prompt for prompt, _ in drawn))[:MOST_PROMPTS]
    steps = sorted({step for _, step in drawn})
    kept = spread(steps, MOST_TIMELINE // max(1, len(prompts)))
    lines = []
    for prompt in prompts:
        images: list[Shown | None] = []
        for step in kept:
            image = drawn.get((prompt, step))
            shown = None
            if image is not None:
                shown = pictures.add(folder / image.file, f"{prompt}, after step {step}")
            images.append(shown)
        lines.append(Line(prompt, images, _conditions(folder, conditions.get(prompt, []), pictures)))
    return Timeline(kept, lines, len(steps) - len(kept))


def training_images(environment: Environment, findings: Findings, pictures: Pictures) -> TrainingData | None:
    """Return what was trained on, with what its inspection found; None where there are no images to learn from."""
    folder = environment.channel(TRAINING_CHANNEL)
    if folder is None:
        return None
    try:
        found = list_images(folder)
    except TrainingError:  # which the run failed by, and its report says
        return None
    images = []
    for number, image in enumerate(found[:MOST_TRAINING], start=1):
        name = image.path.relative_to(folder).as_posix()
        alt = image.caption or f"training image {number}"
        said = [_words(problem.what, problem.fix) for problem in findings.problems if problem.where == name]
        shown = pictures.add(image.path, alt)
        images.append(TrainingImage(name, shown, image.caption or "", image.repeats, said))
    names = {image.name for image in images}
    others = []
    for problem in findings.problems:
        if problem.where not in names:
            others.append(f"{problem.where}: {_words(problem.what, problem.fix)}")
    return TrainingData(images, len(found), others)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Return at most so many (two or more) of some steps, evenly spread, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    last = len(steps) - 1
    chosen = {round(number * last / (most - 1)) for number in range(most)}
    return [steps[number] for number in sorted(chosen)]


def _by_text(folder: Path, source: Source) -> dict[str, list[SampleImage]]:
    """Return the images of one source by their prompt's text."""
    found: dict[str, list[SampleImage]] = {}
    for image in listed_images(folder).values():
        if image.source == source and image.step is None:
            found.setdefault(image.text, []).append(image)
    return found


def _shown(folder: Path, images: Sequence[SampleImage], when: str, pictures: Pictures) -> list[Shown]:
    shown = []
    for image in images:
        alt = f"{image.prompt}, {when}, seed {image.seed}"
        shown.append(pictures.add(folder / image.file, alt))
    return shown


def _conditions(folder: Path, images: Sequence[SampleImage], pictures: Pictures) -> list[Shown]:
    """Return what a ControlNet was shown for a prompt."""
    return [pictures.add(folder / image.file, f"the condition of: {image.prompt}") for image in images]


def _words(what: str, fix: str) -> str:
    if not fix:
        return what
    return f"{what} ({fix})"
