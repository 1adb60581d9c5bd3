"""The entry of a job that measures an adapter: the same prompts and seeds with its base model alone and with it.

A ControlNet draws pictures that training did not use anew, from maps of them. What is drawn is kept with the
checkpoints under a hash of all it depends on, so that a job that was stopped draws only what is missing. The result is
a folder with `evaluation.json` (`orchestrator/contract/evaluation_result.py`), the images with their index, and a
contact sheet.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from entrypoints import train
from entrypoints.runtime import libraries, process
from entrypoints.runtime.stop import StopFlag
from orchestrator.contract.adapter import CONTACT_SHEET_FILE, AdapterManifest
from orchestrator.contract.environment import DEFAULT_ROOT, Environment
from orchestrator.contract.evaluation import (
    ADAPTER_CHANNEL,
    DINO_CHANNEL,
    PROMPTS_CHANNEL,
    REFERENCE_CHANNEL,
    Evaluation,
    EvaluationPrompts,
)
from orchestrator.contract.evaluation_result import (
    EVALUATION_FILE,
    AskedPrompt,
    ControlAgreement,
    DrawnWith,
    EvaluatedAdapter,
    EvaluationResult,
    Figure,
)
from orchestrator.contract.events import Metrics, Phase, Warned, emit
from orchestrator.contract.figures import AFTER, BEFORE, CEILING, MEASURES
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import from_hyperparameters
from orchestrator.contract.samples import MOST_IMAGE_BYTES, MOST_IMAGE_PIXELS, MOST_REAL, SAMPLES_FOLDER, SampleImage

if TYPE_CHECKING:
    from PIL import Image

    from entrypoints.evaluation.comparison import Compared
    from entrypoints.evaluation.samples import IndexedImage
    from entrypoints.evaluation.spaces import Spaces
    from entrypoints.models.base import BaseModel
    from entrypoints.models.sampling import DrawRequest
    from entrypoints.training.run import Run

    Images = list["Image.Image"]


class Job(NamedTuple):
    """What an evaluation works with."""

    environment: Environment
    run: "Run"
    settings: Evaluation
    adapter: Path
    """Folder of the adapter."""
    asked: EvaluationPrompts
    base: "BaseModel"
    spaces: "Spaces"


class Done(NamedTuple):
    """What came of drawing and measuring."""

    manifest: AdapterManifest
    compared: "Compared"
    samples: Sequence["IndexedImage"]
    real: int
    """Pictures that images were compared with."""
    where: str
    """Where those come from, in words; empty without any."""
    control: Sequence[ControlAgreement] = ()


def main() -> int:
    """Carry out the evaluation in the folder `ORCHESTRATOR_ML_ROOT` and return its exit status."""
    libraries.apply_settings()
    stop = StopFlag()
    stop.listen()
    environment = Environment.from_variables()
    environment.failure_file.unlink(missing_ok=True)  # of an earlier attempt
    return train.exit_status(environment, lambda: evaluate(environment, stop))


def evaluate(environment: Environment, stop: StopFlag) -> None:
    """Draw with the base model and with the adapter, measure and publish.

    Raises Stopped when the process was asked to end, and TrainingError when something cannot be loaded.
    """
    began = time.monotonic()
    emit(Phase(name="loading"))
    # Imported here because they import torch: it takes seconds, and must come after the settings.
    from entrypoints.evaluation.spaces import load_spaces
    from entrypoints.runtime.machine import require_gpu
    from entrypoints.training.run import Run

    libraries.quieten()
    process.resume_collector()
    hosts = environment.hosts()
    if environment.root == DEFAULT_ROOT and hosts.has_gpu:
        require_gpu(hosts.instance_type)
    settings = from_hyperparameters(environment.hyperparameters())
    if not isinstance(settings, Evaluation):
        raise TypeError(f"the hyperparameters are those of {settings.recipe_name()}")
    adapter = _channel(environment, ADAPTER_CHANNEL)
    asked = EvaluationPrompts.read(_channel(environment, PROMPTS_CHANNEL))
    run = Run(environment, settings, stop)
    base = run.load_base_model()
    # Before anything is drawn: what cannot be loaded says so now.
    spaces = load_spaces(base, run.scorer_folder, environment.channel(DINO_CHANNEL))
    job = Job(environment, run, settings, adapter, asked, base, spaces)
    done = _with_controlnet(job) if settings.conditions else _with_adapter(job)
    figures = _figures_of_clip(done.compared.figures)
    if figures:
        emit(Metrics(values=figures))
    result = _result(job, done)
    _publish(environment, result, done.samples)
    _report(environment, result, time.monotonic() - began)


def _with_adapter(job: Job) -> Done:
    """Draw with the base model, put the adapter into it, draw again, and measure."""
    from entrypoints.adapters.loading import load_adapter
    from entrypoints.evaluation.kept_drawing import KeptDrawing

    run = job.run
    settings = job.settings
    asked = job.asked
    real = _real_pictures(job.environment, job.adapter, settings.resolution)
    plain, tuned, others = _requests(asked, settings)
    total = asked.images(settings.seeds)
    emit(Phase(name="images", of=total))
    drawing = KeptDrawing(job.base, total, run.stop.check)
    cache = run.image_cache(job.base)
    # Apart, so that other prompts of the one kind leave the batches of the other as they are, which are kept then.
    before = drawing.draw(plain, cache)
    before += drawing.draw(others, cache)
    manifest = load_adapter(job.base, job.adapter, settings.weight)
    cache = cache.with_adapter(manifest.files_sha256, settings.weight)
    after = drawing.draw(tuned, cache)
    after += drawing.draw(others, cache)

    emit(Phase(name="measuring"))
    compared = _measure(settings, asked, job.spaces, before, after, real.images)
    samples = _samples(asked, [*plain, *others], [*tuned, *others], before, after, real.images)
    return Done(manifest, compared, samples, len(real.images), real.where)


def _with_controlnet(job: Job) -> Done:
    """Draw held-out pictures anew, without their maps and from them, and measure."""
    from entrypoints.adapters.controls import load_network
    from entrypoints.adapters.loading import require_own_base
    from entrypoints.evaluation.bootstrap import Bootstrap
    from entrypoints.evaluation.comparison import compare_controlled
    from entrypoints.evaluation.control_agreement import control_agreement
    from entrypoints.evaluation.drawing_anew import control_samples, draw_anew, images_compared
    from entrypoints.evaluation.held_out import held_out_pictures
    from entrypoints.evaluation.kept_drawing import KeptDrawing

    run = job.run
    settings = job.settings
    asked = job.asked
    manifest = AdapterManifest.read(job.adapter)
    require_own_base(job.base, job.adapter, manifest)
    network = load_network(job.base, settings.adapter, job.adapter)
    folder = _channel(job.environment, REFERENCE_CHANNEL)
    pictures = held_out_pictures(folder, settings.conditions, settings.given_map, settings.resolution)
    total = asked.images(settings.seeds, settings.conditions)
    emit(Phase(name="images", of=total))
    drawn = draw_anew(
        drawing=KeptDrawing(job.base, total, run.stop.check),
        network=network,
        cache=run.image_cache(job.base),
        adapter_sha256=manifest.files_sha256,
        pictures=pictures,
        asked=asked,
        settings=settings,
    )
    emit(Phase(name="measuring"))
    bootstrap = Bootstrap(settings.resamples, settings.seed)
    control = control_agreement(pictures, drawn, bootstrap)
    images = images_compared(drawn, asked, settings)
    compared = compare_controlled(job.spaces, images, bootstrap)
    samples = control_samples(pictures, drawn, asked, settings)
    where = f"{counted(len(pictures), 'picture')} that were named"
    return Done(manifest, compared, samples, len(pictures), where, control)


class Real(NamedTuple):
    """Real pictures to compare with, as squares."""

    images: "Images"
    where: str
    """Where they come from, in words; empty without any."""


def _requests(
    asked: EvaluationPrompts, settings: Evaluation
) -> tuple[list["DrawRequest"], list["DrawRequest"], list["DrawRequest"]]:
    """Return what the base model draws, what the adapter draws in the same order, and the unrelated prompts of both."""
    from entrypoints.models.sampling import DrawRequest

    plain: list[DrawRequest] = []
    tuned: list[DrawRequest] = []
    for prompt in asked.prompts:
        for seed in settings.all_seeds:
            plain.append(DrawRequest(prompt.before, seed))
            tuned.append(DrawRequest(prompt.after, seed))
    others: list[DrawRequest] = []
    for text in asked.unrelated:
        for seed in settings.all_seeds:
            others.append(DrawRequest(text, seed))
    return plain, tuned, others


def _measure(
    settings: Evaluation,
    asked: EvaluationPrompts,
    spaces: "Spaces",
    before: "Images",
    after: "Images",
    real: "Images",
) -> "Compared":
    """Measure what was drawn: the images that ask for what was learned, and those that do not."""
    from entrypoints.evaluation.bootstrap import Bootstrap
    from entrypoints.evaluation.comparison import Drawn, compare

    split = len(asked.prompts) * settings.seeds
    texts = [prompt.text for prompt in asked.prompts]
    on_subject = Drawn(texts, settings.seeds, before[:split], after[:split])
    off_subject = Drawn(asked.unrelated, settings.seeds, before[split:], after[split:])
    bootstrap = Bootstrap(settings.resamples, settings.seed)
    return compare(spaces, on_subject, off_subject, real, bootstrap)


def _result(job: Job, done: Done) -> EvaluationResult:
    """Return what `evaluation.json` holds, the files excepted."""
    from entrypoints.evaluation.bootstrap import CONFIDENCE

    settings = job.settings
    manifest = done.manifest
    prompts = []
    for one in job.asked.prompts:
        prompts.append(AskedPrompt(base=one.before, adapter=one.after, text=one.text))
    return EvaluationResult(
        adapter=EvaluatedAdapter(
            name=settings.adapter,
            sha256=manifest.files_sha256,
            recipe=manifest.recipe,
            kind=manifest.kind,
            trigger=manifest.trigger,
            weight=settings.weight,
        ),
        base_model=manifest.base_model,
        prompts=tuple(prompts),
        prompts_are_captions=job.asked.are_captions,
        unrelated=job.asked.unrelated,
        seeds=tuple(settings.all_seeds),
        drawn_with=DrawnWith(
            steps=settings.inference_steps,
            guidance=settings.guidance_scale,
            size=settings.resolution,
        ),
        real_pictures=done.real,
        reference=done.where,
        spaces=job.spaces.described,
        figures=tuple(done.compared.figures),
        control=tuple(done.control),
        skipped=(*done.compared.skipped, *job.spaces.skipped),
        confidence=CONFIDENCE,
        resamples=settings.resamples,
        bundle_sha256=job.run.bundle_sha256,
        libraries=job.run.machine.libraries,
    )


def _channel(environment: Environment, name: str) -> Path:
    """Return the folder of a channel that every evaluation has."""
    from entrypoints.runtime.failures import TrainingError

    folder = environment.channel(name)
    if folder is None:
        message = f"The channel {name} did not reach the job."
        raise TrainingError("adapter", message, "evaluate the adapter again, with --restart")
    return folder


def _real_pictures(environment: Environment, adapter: Path, size: int) -> Real:
    """Return what to compare with: the pictures that were named, or those kept with the adapter."""
    from entrypoints.runtime.pictures import crop_square, list_images, read_image

    folder = environment.channel(REFERENCE_CHANNEL)
    if folder is not None:
        paths = [found.path for found in list_images(folder)]
        where = f"{counted(len(paths), 'picture')} named with --reference"
    else:
        folder = adapter / SAMPLES_FOLDER
        paths = _kept_pictures(folder)
        where = ""
        if paths:
            where = f"{counted(len(paths), 'picture')} that it was trained on"
    images = []
    for path in paths:
        image = read_image(path)
        images.append(crop_square(image, size))
    return Real(images, where)


def _kept_pictures(folder: Path) -> list[Path]:
    """Return the files of the real pictures that are kept with an adapter, those that are small enough."""
    from entrypoints.evaluation.samples import listed_images

    real = []
    for image in listed_images(folder).values():
        if image.source == "real":
            real.append(folder / image.file)
    small = []
    for path in real[:MOST_REAL]:
        if _is_small(path):
            small.append(path)
    return small


def _is_small(path: Path) -> bool:
    """Whether a picture of an adapter, which may come from anywhere, is no larger than any that we draw."""
    from PIL import Image

    if not path.is_file():
        return False
    if path.stat().st_size > MOST_IMAGE_BYTES:
        return False
    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
            return pixels <= MOST_IMAGE_PIXELS
    except (OSError, ValueError, SyntaxError):  # damaged: it is no picture to compare with
        return False


def _figures_of_clip(figures: Sequence[Figure]) -> dict[str, float]:
    """Return those figures that a training job measures too, by their names."""
    known = {measure.name: measure for measure in MEASURES}
    values = {}
    for figure in figures:
        measure = known.get(figure.measure)
        if measure is None:
            continue
        if figure.space != "clip":
            continue
        moments = {BEFORE: figure.base, AFTER: figure.adapter, CEILING: figure.ceiling}
        for moment, estimate in moments.items():
            if estimate is not None:
                values[measure.figure(moment)] = estimate.value
    return values


def _samples(
    asked: EvaluationPrompts,
    plain: Sequence["DrawRequest"],
    tuned: Sequence["DrawRequest"],
    before: "Images",
    after: "Images",
    real: "Images",
) -> list["IndexedImage"]:
    """Return all images with what the index says of them, the real ones first."""
    from entrypoints.evaluation.samples import IndexedImage

    samples = []
    for number, image in enumerate(real[:MOST_REAL]):
        about = SampleImage(file=f"real-{number:02}.png", source="real")
        samples.append(IndexedImage(image, about))
    texts = [prompt.text for prompt in asked.prompts]
    texts += asked.unrelated
    seeds = len(plain) // len(texts)
    for source, requests, images in (("before", plain, before), ("after", tuned, after)):
        for number, (request, image) in enumerate(zip(requests, images, strict=True)):
            row = number // seeds
            about = SampleImage(
                file=f"{source}-{row:02}-{request.seed}.png",
                source=source,
                prompt=request.prompt,
                text=texts[row],
                seed=request.seed,
            )
            samples.append(IndexedImage(image, about))
    return samples


def _publish(environment: Environment, result: EvaluationResult, samples: Sequence["IndexedImage"]) -> None:
    """Write the result to a draft folder and move it into place whole."""
    from entrypoints.evaluation.contact_sheet import contact_sheet
    from entrypoints.evaluation.samples import write_samples
    from entrypoints.runtime.folders import replace_folder

    draft = environment.model.with_name(".model.draft")
    shutil.rmtree(draft, ignore_errors=True)
    write_samples(draft / SAMPLES_FOLDER, samples)
    sheet = contact_sheet(result.title, samples)
    sheet.save(draft / CONTACT_SHEET_FILE, format="PNG")
    result.write(draft)
    replace_folder(draft, environment.model, EVALUATION_FILE)


def _report(environment: Environment, result: EvaluationResult, seconds: float) -> None:
    """Write the page of the evaluation, which does not fail by it."""
    from entrypoints.evaluation.evaluation_report import write_evaluation_report
    from entrypoints.evaluation.report_words import COMPLETED, Ending

    try:
        ending = Ending(COMPLETED, seconds)
        write_evaluation_report(environment, environment.model, result, ending)
    except Exception as error:  # noqa: BLE001 - whatever a damaged image or a full disk raises
        message = f"The report was not written: {type(error).__name__}: {error}. Everything else is as it would be."
        emit(Warned(message=message))


if __name__ == "__main__":
    process.run(main)
