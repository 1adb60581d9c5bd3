"""Whether images obey conditions: training pictures are drawn anew from what a ControlNet is shown of them.

An image agrees with its condition for two reasons: because it was shown it, or because the caption tells the same. So
what counts is the gap between its agreement with its own condition and with those of other pictures, beside the gap of
the base model alone, which is asked for the same captions and seeds. The two are equal where conditions are ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image

from entrypoints.conditions.agreement import agreement
from entrypoints.conditions.maps import condition_map
from entrypoints.conditions.shown import condition_of, wanted_of
from entrypoints.runtime.pictures import CaptionedImage, crop, read_image
from orchestrator.contract.buckets import Size
from orchestrator.contract.conditions import GIVEN, measured_by
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.figures import AFTER, BEFORE, CONDITION_AGREEMENT, CONDITION_OBEYED
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.contract.samples import WITHOUT_WORDS

DIGITS = 4
"""Of a figure: the rest is noise."""
NOT_COMPARED = (
    "Condition obeyed is not measured: images of one picture alone have no conditions of others to be compared with."
)


@dataclass(frozen=True)
class Watched:
    """A training picture that is drawn anew."""

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
    """The same minus the mean of its agreements with the conditions of the others: of images that have others."""

    @property
    def agreement(self) -> float:
        """The mean agreement."""
        return round(float(self.agreements.mean()), DIGITS)

    @property
    def gap(self) -> float | None:
        """The mean gap; None where no image has others to be compared with."""
        if not len(self.gaps):
            return None
        return round(float(self.gaps.mean()), DIGITS)


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
    kinds = recipe.conditions
    count = min(count, len(images))
    labels: set[str] = set()
    found = []
    for number in range(count):
        image = images[number * len(images) // count]
        caption = image.caption or ""
        if texts:
            caption = texts[number % len(texts)]
        label = caption or WITHOUT_WORDS
        if label in labels:
            label = f"{label} (condition {number + 1})"
        labels.add(label)
        kind = kinds[number % len(kinds)]
        watched = Watched(
            caption=caption,
            label=label,
            kind=kind,
            picture=crop(read_image(image.path), side),
            condition=condition_of(image, side, kind),
        )
        found.append(watched)
    return found


def obedience(
    recipe: ControlNet,
    watched: Sequence[Watched],
    drawn: Sequence[Image.Image],
) -> Obedience:
    """Measure images: one of each watched picture, in their order, or several, those of one picture together.

    Only conditions of one kind can be compared, so each picture gets one of every kind that is needed.
    """
    each = len(drawn) // len(watched)
    agreements = []
    gaps = []
    for place, image in enumerate(drawn):
        own = place // each
        kind = watched[own].kind
        right = 0.0
        wrong = []
        for number, other in enumerate(watched):
            wanted = _wanted(recipe, other, kind)
            if wanted is None:
                continue
            found = agreement(measured_by(kind, recipe.given_map), image, wanted)
            if number == own:
                right = found
            else:
                wrong.append(found)
        agreements.append(right)
        if wrong:
            by_chance = sum(wrong) / len(wrong)
            gaps.append(right - by_chance)
    return Obedience(torch.tensor(agreements), torch.tensor(gaps))


def _wanted(recipe: ControlNet, watched: Watched, kind: str) -> Image.Image | None:
    """Return the map that an image has which obeys a picture's condition of a kind; None where that is not at hand."""
    if kind == watched.kind:
        return wanted_of(kind, recipe.given_map, watched.picture, watched.condition)
    if kind == GIVEN and recipe.given_map is not None:
        return None
    return condition_map(measured_by(kind, recipe.given_map), watched.picture)


def final_figures(
    recipe: ControlNet,
    watched: Sequence[Watched],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> Mapping[str, float]:
    """Return the figures of the finished ControlNet: images of the same prompts and seeds without it and with it."""
    figures = {}
    moments = (
        (BEFORE, before),
        (AFTER, after),
    )
    for moment, images in moments:
        measured = obedience(recipe, watched, images)
        figures[CONDITION_AGREEMENT.figure(moment)] = measured.agreement
        if measured.gap is not None:
            figures[CONDITION_OBEYED.figure(moment)] = measured.gap
    if CONDITION_OBEYED.figure(AFTER) not in figures:
        emit(Warned(message=NOT_COMPARED))
    return figures
