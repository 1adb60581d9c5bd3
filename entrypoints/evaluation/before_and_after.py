"""Before and after: the same prompts and seeds with the base model and with the tuned one, as images and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from entrypoints.evaluation import metrics
from entrypoints.evaluation.contact_sheet import contact_sheet
from entrypoints.evaluation.samples import IndexedImage, write_samples
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest
from entrypoints.runtime.pictures import CaptionedImage, crop_square, read_image
from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.events import Item, Metrics, Phase, Warned, emit
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, PROMPT_FIDELITY, SUBJECT_FIDELITY
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.samples import MOST_REAL, SAMPLES_FOLDER, SampleImage, Source

DIGITS = 4
"""Of a figure: the rest is noise."""

DrawAll = Callable[[Sequence[DrawRequest], Callable[[int], None]], list[Image.Image]]
"""Draws the images of some requests, and tells on the way how many are ready."""
FiguresOf = Callable[[Sequence[Image.Image], Sequence[Image.Image]], Mapping[str, float]]
"""Measures the images before and after training; their order is that of the requests."""


class Controlled(NamedTuple):
    """How a ControlNet is evaluated, which is shown a condition for each prompt."""

    draw: DrawAll
    """Draws from the conditions."""
    conditions: Sequence[Image.Image]
    """One for each prompt."""
    captions: Sequence[str]
    """Of the pictures that the conditions are of; a sheet's labels tell equal ones apart, and name missing ones."""
    figures_of: FiguresOf
    """Measures more than CLIP does."""

    def measure(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> dict[str, float]:
        """Return its own figures of images before and after training."""
        figures = {}
        for name, value in self.figures_of(before, after).items():
            figures[name] = round(value, DIGITS)
        return figures


@dataclass(frozen=True)
class Evaluation:
    """What is known of a finished adapter."""

    metrics: dict[str, float]
    """Its figures; empty when nothing was measured."""
    samples: Sequence[IndexedImage] = ()
    """Images before and after, and some training pictures; empty when nothing was drawn."""
    scorer_sha256: str | None = None
    """Hash of the CLIP that measured the figures."""

    def save(self, folder: Path, *, title: str) -> None:
        """Write the images, their index and a contact sheet into an adapter's folder; nothing if none were drawn."""
        if not self.samples:
            return
        write_samples(folder / SAMPLES_FOLDER, self.samples)
        sheet = contact_sheet(title, self.samples)
        sheet.save(folder / CONTACT_SHEET_FILE, format="PNG")


def evaluate(  # noqa: PLR0913 - named by the caller
    *,
    draw_before: DrawAll,
    draw_after: DrawAll,
    base: BaseModel,
    prompts: Sequence[EvaluationPrompt],
    size: int,
    seeds: Sequence[int],
    pictures: Sequence[CaptionedImage],
    scorer_folder: Path | None = None,
    controlled: Controlled | None = None,
) -> Evaluation:
    """Draw every prompt with the base model as it was and with the tuned one, and compare with the training pictures.

    The former draws first, and is done with when the latter begins: it may be a second copy. `scorer_folder` holds the
    CLIP that compares the images, in squares with a side of `size` pixels; without it the one of `base` does.
    What is `controlled` was drawn from conditions after training.
    """
    if not prompts:
        return Evaluation({})
    asked_before = _requests([prompt.before for prompt in prompts], seeds)
    asked_after = _requests([prompt.after for prompt in prompts], seeds)
    half = len(asked_before)
    total = 2 * half

    def report_before(done: int) -> None:
        emit(Item(done=done, of=total))

    def report_after(done: int) -> None:
        emit(Item(done=half + done, of=total))

    emit(Phase(name="contact sheet", of=total))
    before = draw_before(asked_before, report_before)
    after = draw_after(asked_after, report_after)
    real = _read_real(pictures, size)
    scorer = metrics.clip_scorer(base, scorer_folder)
    texts = [prompt.text for prompt in prompts]
    if controlled is not None:
        texts = list(controlled.captions)
    figures = measure(scorer, texts, real, before, after)
    samples = _real_samples(real)
    if controlled is not None:
        figures |= controlled.measure(before, after)
        samples += _shown_samples(prompts, controlled.conditions)
    if figures:
        emit(Metrics(values=figures))
    samples += _drawn_samples("before", prompts, asked_before, before)
    samples += _drawn_samples("after", prompts, asked_after, after)
    return Evaluation(figures, samples, None if scorer is None else scorer.sha256)


def _requests(prompts: Sequence[str], seeds: Sequence[int]) -> list[DrawRequest]:
    """Return what is drawn: those of the first prompt first, one for each seed."""
    requests = []
    for prompt in prompts:
        for seed in seeds:
            requests.append(DrawRequest(prompt, seed))
    return requests


def _read_real(
    pictures: Sequence[CaptionedImage],
    size: int,
) -> list[Image.Image]:
    """Return the training pictures as squares with a side of `size` pixels."""
    real = []
    for picture in pictures:
        image = read_image(picture.path)
        real.append(crop_square(image, size))
    return real


def _real_samples(real: Sequence[Image.Image]) -> list[IndexedImage]:
    """Return the first training pictures as samples."""
    samples = []
    for number, image in enumerate(real[:MOST_REAL]):
        about = SampleImage(
            file=f"real-{number:02}.png",
            source="real",
        )
        samples.append(IndexedImage(image, about))
    return samples


def _shown_samples(prompts: Sequence[EvaluationPrompt], conditions: Sequence[Image.Image]) -> list[IndexedImage]:
    """Return what a ControlNet was shown for each prompt as samples; none where there is none."""
    samples = []
    for row, image in enumerate(conditions):
        about = SampleImage(
            file=f"condition-{row:02}.png",
            source="condition",
            prompt=prompts[row].after,
            text=prompts[row].text,
        )
        samples.append(IndexedImage(image, about))
    return samples


def _drawn_samples(
    source: Source,
    prompts: Sequence[EvaluationPrompt],
    requests: Sequence[DrawRequest],
    images: Sequence[Image.Image],
) -> list[IndexedImage]:
    """Return drawn images as samples.

    Requests and images are in the same order: those of the first prompt first, one for each seed.
    """
    seeds = len(requests) // len(prompts)
    samples = []
    pairs = zip(requests, images, strict=True)
    for number, (request, image) in enumerate(pairs):
        row, column = divmod(number, seeds)
        about = SampleImage(
            file=f"{source}-{row:02}-{column:02}.png",
            source=source,
            prompt=request.prompt,
            text=prompts[row].text,
            seed=request.seed,
        )
        samples.append(IndexedImage(image, about))
    return samples


def measure(
    scorer: metrics.ClipScorer | None,
    texts: Sequence[str],
    real: Sequence[Image.Image],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> dict[str, float]:
    """Return the figures of docs/metrics.md; none, with a warning, without a scorer.

    `texts` are what the images of each prompt should show; where one is empty, prompt fidelity is left out. So is
    subject fidelity where nothing `real` was trained on.
    """
    if scorer is None:
        message = "The base model brings no CLIP (folder clip/), so nothing was measured; see --scorer, and the sheet."
        emit(Warned(message=message))
        return {}
    seeds = len(before) // len(texts)
    of_prompts = scorer.embed_texts(texts)
    of_texts = of_prompts.repeat_interleave(seeds, dim=0)  # one for each image

    figures = {}
    of_real = None
    if real:
        of_real = scorer.embed_images(real)
        figures[SUBJECT_FIDELITY.figure(CEILING)] = metrics.subject_fidelity_ceiling(of_real)
    moments = (
        (BEFORE, before),
        (AFTER, after),
    )
    for moment, images in moments:
        of_images = scorer.embed_images(images)
        if of_real is not None:
            figures[SUBJECT_FIDELITY.figure(moment)] = metrics.subject_fidelity(of_images, of_real)
        if all(texts):
            prompt = metrics.prompt_fidelity(of_images, of_texts)
            figures[PROMPT_FIDELITY.figure(moment)] = prompt
    rounded = {}
    for name in sorted(figures):
        rounded[name] = round(figures[name], DIGITS)
    return rounded
