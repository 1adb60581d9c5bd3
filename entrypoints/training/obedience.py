"""Whether conditions are obeyed: training pictures are drawn anew from their conditions, and compared with them.

An image agrees with its condition for two reasons: because it was shown it, or because the caption tells the same. So
what counts is the gap between its agreement with its own condition and with those of other pictures, beside the gap of
the base model alone, which is asked for the same captions and seeds. The two are equal where conditions are ignored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from PIL import Image

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.conditions.agreement import agreement
from entrypoints.conditions.maps import condition_map
from entrypoints.evaluation.samples import IndexedImage, write_samples
from entrypoints.models.base import BaseModel
from entrypoints.models.controlled import draw_controlled
from entrypoints.models.sampling import DrawRequest
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage, crop, read_image
from entrypoints.training.conditions import condition_of
from entrypoints.training.control import ControlObjective
from entrypoints.training.publication import draw_untuned
from entrypoints.training.run import Run
from entrypoints.training.watchdog import standard_errors
from orchestrator.contract.buckets import Size
from orchestrator.contract.conditions import BLUR, GIVEN
from orchestrator.contract.events import TRAINING_PHASE, Item, Phase, Sample, Warned, emit
from orchestrator.contract.figures import AFTER, BEFORE, CONDITION_AGREEMENT, CONDITION_OBEYED
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.contract.samples import SampleImage

OBEYED = 1.5
"""Standard errors by which the gap is above that of the base model where conditions are obeyed."""
ADVICE = (
    "See whether the conditions fit their pictures, raise learning_rate, train longer (-s obeyed_by=...) or with more "
    "pictures, then submit again."
)


@dataclass(frozen=True)
class Watched:
    """A training picture that is drawn anew, from what a ControlNet is shown of it."""

    caption: str
    """Its own, or another prompt that was asked for; without the trigger word."""
    label: str
    """The caption, told apart from those of other pictures that have the same."""
    kind: str
    """Kind of its condition."""
    picture: Image.Image
    """The training picture, cut to a square."""
    condition: Image.Image
    """What the ControlNet is shown of it."""


class Obedience(NamedTuple):
    """What was measured of images of watched pictures."""

    agreements: torch.Tensor
    """Of each image with its condition, from 0 to 1: (images,)."""
    gaps: torch.Tensor
    """The same minus the mean of its agreements with the conditions of the others."""

    @property
    def figures(self) -> dict[str, float]:
        """The means, by name."""
        return {
            CONDITION_AGREEMENT.name: round(float(self.agreements.mean()), 4),
            CONDITION_OBEYED.name: round(float(self.gaps.mean()), 4),
        }


def watched_pictures(
    recipe: ControlNet,
    images: Sequence[CaptionedImage],
    count: int,
    texts: Sequence[str] = (),
) -> list[Watched]:
    """Return so many of the images, from all over the data set, or all of them; the kinds of conditions take turns.

    `texts` are their prompts in turn, if there are some; else each has its own caption.
    """
    side = Size(recipe.resolution, recipe.resolution)
    count = min(count, len(images))
    labels: set[str] = set()
    found = []
    for number in range(count):
        image = images[number * len(images) // count]
        caption = texts[number % len(texts)] if texts else image.caption or ""
        label = caption or "without words"
        if label in labels:
            label = f"{label} (condition {number + 1})"
        labels.add(label)
        kind = recipe.conditions[number % len(recipe.conditions)]
        watched = Watched(
            caption=caption,
            label=label,
            kind=kind,
            picture=crop(read_image(image.path), side),
            condition=condition_of(image, side, kind),
        )
        found.append(watched)
    return found


def obedience(recipe: ControlNet, watched: Sequence[Watched], drawn: Sequence[Image.Image]) -> Obedience:
    """Measure images: one of each watched picture, in their order, or some of each, those of one picture together.

    Conditions of one kind are compared, so every picture has one of each kind.
    """
    each = len(drawn) // len(watched)

    @cache
    def wanted(kind: str, number: int) -> Image.Image:
        return _wanted(recipe, watched[number], kind)

    agreements = []
    gaps = []
    for place, image in enumerate(drawn):
        own = place // each
        kind = watched[own].kind
        others = [number for number in range(len(watched)) if number != own]
        if kind == GIVEN and recipe.given_map is not None:  # only pictures of this kind have their condition at hand
            others = [number for number in others if watched[number].kind == GIVEN]
        measured = partial(agreement, _measured_kind(recipe, kind), image)
        right = measured(wanted(kind, own))
        wrong = [measured(wanted(kind, number)) for number in others]
        agreements.append(right)
        gaps.append(right - sum(wrong) / max(1, len(wrong)))
    return Obedience(torch.tensor(agreements), torch.tensor(gaps))


def _measured_kind(recipe: ControlNet, kind: str) -> str:
    """Return the kind of map by which images with a condition of a kind are measured."""
    if kind != GIVEN:
        return kind
    return recipe.given_map or BLUR


def _wanted(recipe: ControlNet, watched: Watched, kind: str) -> Image.Image:
    """Return the map that an image should have which obeys a picture's condition of a kind."""
    if kind == GIVEN and recipe.given_map is not None:
        return watched.condition
    return condition_map(_measured_kind(recipe, kind), watched.picture)


class ObedienceWatch:
    """Draws and measures the watched pictures as training goes on, and ends a run that ignores conditions."""

    def __init__(
        self,
        run: Run,
        recipe: ControlNet,
        tuner: ControlNetTuner,
        objective: ControlObjective,
        images: Sequence[CaptionedImage],
    ) -> None:
        self.run = run
        self.recipe = recipe
        self.tuner = tuner
        self.objective = objective
        self.base: BaseModel = tuner.base
        self.watched = watched_pictures(recipe, images, recipe.watched_images, recipe.validation_prompts)
        self.requests = [DrawRequest(recipe.with_trigger(each.caption), recipe.seed) for each in self.watched]
        self._before: Obedience | None = None

    def look(self, step: int) -> None:
        """Draw the watched pictures with the ControlNet as it is after `step`, and measure them.

        All ranks must call it: the first draws. Raises TrainingError("learns-nothing") on all of them.
        """
        run = self.run
        is_ignored = False
        if run.ranks.is_first:
            emit(Phase(name="validation", of=len(self.requests)))
            before = self._measured_before()
            images = draw_with_control(
                run, self.tuner, self.watched, self.requests, run.check_stop_alone, report_of(self.requests)
            )
            now = obedience(self.recipe, self.watched, images)
            self.objective.followed = now.figures
            is_ignored = standard_errors(now.gaps - before.gaps) < OBEYED
            self._save(step, images)
            if step < self.recipe.steps:
                emit(Phase(name=TRAINING_PHASE, of=self.recipe.steps))
        run.check_stop()
        if run.ranks.any(is_ignored and step >= self.recipe.obeyed_by, run.device):
            raise self._ignores(step)
        if is_ignored and step + self.recipe.validation_steps > self.recipe.steps:
            emit(Warned(message=f"After {step} steps {self._seen()} Train longer: -s steps=..."))

    def _measured_before(self) -> Obedience:
        """Measure the base model alone, once; it draws again only what no earlier attempt has drawn."""
        if self._before is None:
            images = draw_untuned(
                self.run,
                self.base,
                self.tuner,
                self.requests,
                _tell_nobody,
                self.run.check_stop_alone,
            )
            self._before = obedience(self.recipe, self.watched, images)
        return self._before

    def _ignores(self, step: int) -> TrainingError:
        return TrainingError(
            "learns-nothing",
            f"The conditions are ignored: after {step} steps {self._seen()}",
            ADVICE,
        )

    def _seen(self) -> str:
        figures = self.objective.followed
        gap = figures.get(CONDITION_OBEYED.name, 0.0)
        before = self._before.figures[CONDITION_OBEYED.name] if self._before is not None else 0.0
        return (
            f"drawn images agree with their own conditions by {gap:+.3f} more than with those of other pictures, and "
            f"so do images without any condition ({before:+.3f})."
        )

    def _save(self, step: int, images: Sequence[Image.Image]) -> None:
        """Write the images, and the conditions that they are drawn from, with their index."""
        run = self.run
        samples = []
        for number, (watched, image) in enumerate(zip(self.watched, images, strict=True)):
            about = SampleImage(
                file=f"step-{step:06d}-{number}.png",
                source="after",
                prompt=watched.label,
                text=watched.label,
                seed=self.recipe.seed,
                step=step,
            )
            samples.append(IndexedImage(image, about))
            shown = SampleImage(file=f"condition-{number}.png", source="condition", prompt=watched.label)
            samples.append(IndexedImage(watched.condition, shown))
        write_samples(run.environment.samples, samples)
        for sample in samples:
            if sample.about.step is not None:
                path = run.environment.samples / sample.about.file
                emit(Sample(path=path.relative_to(run.environment.root).as_posix()))


def draw_with_control(
    run: Run,
    tuner: ControlNetTuner,
    watched: Sequence[Watched],
    requests: Sequence[DrawRequest],
    check_stop: Callable[[], None],
    report: Callable[[int], None],
) -> list[Image.Image]:
    """Draw images from the conditions of watched pictures: as many for each, those of one picture together."""
    each = len(requests) // len(watched)
    pictures = [watched[number // each].condition for number in range(len(requests))]
    modules = [tuner.base.denoiser, tuner.network]
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    images = draw_controlled(tuner.base, tuner.network, requests, pictures, run.drawing, check_stop, report)
    for module, mode in zip(modules, modes, strict=True):
        module.train(mode)
    return images


def final_figures(
    recipe: ControlNet,
    watched: Sequence[Watched],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> Mapping[str, float]:
    """Return the figures of the finished ControlNet: images of the same prompts and seeds without it and with it."""
    figures = {}
    for moment, images in ((BEFORE, before), (AFTER, after)):
        measured = obedience(recipe, watched, images)
        figures[CONDITION_AGREEMENT.figure(moment)] = float(measured.agreements.mean())
        figures[CONDITION_OBEYED.figure(moment)] = float(measured.gaps.mean())
    return figures


def report_of(requests: Sequence[DrawRequest]) -> Callable[[int], None]:
    """Return what tells how many images are ready."""

    def report(done: int) -> None:
        emit(Item(done=done, of=len(requests)))

    return report


def _tell_nobody(done: int) -> None:
    """Say nothing: these images are not those that the phase counts."""
