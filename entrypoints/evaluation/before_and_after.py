"""Before and after: the same prompts and seeds with the base model and with the tuned one, as images and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from entrypoints.evaluation import metrics
from entrypoints.evaluation.contact_sheet import contact_sheet
from entrypoints.evaluation.prompts import EvaluationPrompt
from entrypoints.evaluation.samples import Sample, write_samples
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.pictures import Picture, crop_square, read_image
from orchestrator.contract.adapter import CONTACT_SHEET_FILE
from orchestrator.contract.events import Item, Metrics, Phase, Warned, emit
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, PROMPT_FIDELITY, SUBJECT_FIDELITY
from orchestrator.contract.samples import SAMPLES_FOLDER, SampleImage, Source

DIGITS = 4  # of a figure: the rest is noise
MOST_REAL = 8  # training pictures kept with the samples: enough to compare with


@dataclass(frozen=True)
class Evaluation:
    """What is known of a finished adapter."""

    metrics: dict[str, float]
    samples: Sequence[Sample] = ()

    def save(self, folder: Path, *, title: str) -> None:
        """Write the images, their index and a contact sheet into an adapter's folder; nothing if none were drawn."""
        if not self.samples:
            return
        write_samples(folder / SAMPLES_FOLDER, self.samples)
        contact_sheet(title, self.samples).save(folder / CONTACT_SHEET_FILE, format="PNG")


def evaluate(
    load_pristine: Callable[[], BaseModel],
    tuned: BaseModel,
    prompts: Sequence[EvaluationPrompt],
    drawing: Drawing,
    seeds: Sequence[int],
    pictures: Sequence[Picture],
    check_stop: Callable[[], None],
) -> Evaluation:
    """Draw every prompt with a pristine base model and with the tuned one, and compare with the training pictures.

    What `check_stop` raises between denoising steps ends it.
    """
    if not prompts:
        return Evaluation({})
    asked_before = [DrawRequest(prompt.before, seed) for prompt in prompts for seed in seeds]
    asked_after = [DrawRequest(prompt.after, seed) for prompt in prompts for seed in seeds]
    half, total = len(asked_before), len(asked_before) + len(asked_after)
    emit(Phase(name="contact sheet", of=total))
    pristine = load_pristine()
    before = draw(pristine, asked_before, drawing, check_stop, lambda done: emit(Item(done=done, of=total)))
    after = draw(tuned, asked_after, drawing, check_stop, lambda done: emit(Item(done=half + done, of=total)))
    real = [crop_square(read_image(picture.path), drawing.size) for picture in pictures]
    figures = measure(pristine, prompts, real, before, after)
    if figures:
        emit(Metrics(values=figures))
    samples = _real_samples(real)
    samples += _drawn_samples("before", prompts, asked_before, before)
    samples += _drawn_samples("after", prompts, asked_after, after)
    return Evaluation(figures, samples)


def _real_samples(real: Sequence[Image.Image]) -> list[Sample]:
    samples = []
    for number, image in enumerate(real[:MOST_REAL]):
        samples.append(Sample(image, SampleImage(file=f"real-{number:02}.png", source="real")))
    return samples


def _drawn_samples(
    source: Source, prompts: Sequence[EvaluationPrompt], requests: Sequence[DrawRequest], images: Sequence[Image.Image]
) -> list[Sample]:
    """Say of each image what it shows; `requests` holds those of the first prompt first, one for each seed."""
    seeds = len(requests) // len(prompts)
    samples = []
    for number, (request, image) in enumerate(zip(requests, images, strict=True)):
        row, column = divmod(number, seeds)
        about = SampleImage(
            file=f"{source}-{row:02}-{column:02}.png",
            source=source,
            prompt=request.prompt,
            text=prompts[row].text,
            seed=request.seed,
        )
        samples.append(Sample(image, about))
    return samples


def measure(
    base: BaseModel,
    prompts: Sequence[EvaluationPrompt],
    real: Sequence[Image.Image],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> dict[str, float]:
    """Return the figures of docs/metrics.md; none, with a warning, when the base model brings no CLIP."""
    scorer = metrics.clip_scorer(base)
    if scorer is None:
        emit(Warned(message="The base model brings no CLIP (folder clip/), so nothing was measured; see the sheet."))
        return {}
    of_real = scorer.embed_images(real)
    of_texts = scorer.embed_texts([prompt.text for prompt in prompts])
    of_texts = of_texts.repeat_interleave(len(before) // len(prompts), dim=0)
    figures = {SUBJECT_FIDELITY.figure(CEILING): metrics.subject_fidelity_ceiling(of_real)}
    for moment, images in ((BEFORE, before), (AFTER, after)):
        of_images = scorer.embed_images(images)
        figures[SUBJECT_FIDELITY.figure(moment)] = metrics.subject_fidelity(of_images, of_real)
        figures[PROMPT_FIDELITY.figure(moment)] = metrics.prompt_fidelity(of_images, of_texts)
    return {name: round(figure, DIGITS) for name, figure in sorted(figures.items())}
