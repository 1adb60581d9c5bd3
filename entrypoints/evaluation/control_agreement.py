"""Control agreement: whether a ControlNet's images of held-out pictures have what their maps show.

An image agrees with a map because it was shown it, because its prompt tells the same, or by chance. So beside it stand
the images of the base model alone, those that were shown the map of another picture, and the picture itself as the
autoencoder makes it: no image can be nearer to its map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from entrypoints.conditions.agreement import agreement
from entrypoints.evaluation.bootstrap import Bootstrap, Values, estimate
from entrypoints.evaluation.held_out import HeldOut
from orchestrator.contract.evaluation import Way
from orchestrator.contract.evaluation_result import ControlAgreement, Estimate

_OF_PICTURES = 2
"""Tells resamples of pictures from those of images and of real pictures."""


@dataclass(frozen=True)
class DrawnAnew:
    """Images of held-out pictures: for each picture one of each seed, those of the first picture first."""

    base: Sequence[Image.Image]
    """By the base model alone."""
    ways: Mapping[Way, Sequence[Image.Image]]
    """With the ControlNet, by what it was shown."""
    decoded: Sequence[Image.Image]
    """The pictures themselves, encoded and decoded: one of each."""


def control_agreement(
    pictures: Sequence[HeldOut],
    drawn: DrawnAnew,
    bootstrap: Bootstrap,
) -> list[ControlAgreement]:
    """Measure images by the maps of their pictures: each kind alone, then those that were shown at once."""
    found = []
    for way in drawn.ways:
        if way.is_own:
            for kind in way.kinds:
                found.append(_measured(pictures, drawn, way, kind, bootstrap))
    return found


def _measured(
    pictures: Sequence[HeldOut],
    drawn: DrawnAnew,
    way: Way,
    kind: str,
    bootstrap: Bootstrap,
) -> ControlAgreement:
    """Return the agreement with maps of one kind."""
    images = drawn.ways[way]
    own = _agreements(pictures, kind, images)
    base = _agreements(pictures, kind, drawn.base)
    ceiling = _agreements(pictures, kind, drawn.decoded)
    figure = ControlAgreement(
        shown=way.kinds,
        kind=kind,
        measured_by=pictures[0].maps[kind].measured_by,
        pictures=len(pictures),
        images=len(images),
        own=bootstrap.mean(own, _OF_PICTURES),
        base=bootstrap.mean(base, _OF_PICTURES),
        gain=bootstrap.mean(own - base, _OF_PICTURES),
        ceiling=bootstrap.mean(ceiling, _OF_PICTURES),
        times_base=_ratio(own, base, bootstrap),
        share_of_ceiling=_ratio(own, ceiling, bootstrap),
    )
    of_others = drawn.ways.get(way._replace(is_own=False))
    if of_others is None:
        return figure
    shuffled = _agreements(pictures, kind, of_others)
    update = {
        "shuffled": bootstrap.mean(shuffled, _OF_PICTURES),
        "gap": bootstrap.mean(own - shuffled, _OF_PICTURES),
    }
    return figure.model_copy(update=update)


def _agreements(pictures: Sequence[HeldOut], kind: str, images: Sequence[Image.Image]) -> Values:
    """Return one value for each picture: the mean agreement of its images, which are alike, with its own map."""
    each = len(images) // len(pictures)
    means = []
    for number, picture in enumerate(pictures):
        own = picture.maps[kind]
        of_seeds = []
        for image in images[number * each : (number + 1) * each]:
            of_seeds.append(agreement(own.measured_by, image, own.wanted))
        means.append(np.mean(of_seeds))
    return np.array(means, dtype=np.float64)


def _ratio(values: Values, others: Values, bootstrap: Bootstrap) -> Estimate | None:
    """Return the ratio of two means; None where the lower one may be 0."""
    above = bootstrap.means(values, _OF_PICTURES)
    below = bootstrap.means(others, _OF_PICTURES)
    if below.min() <= 0:
        return None
    return estimate(float(values.mean() / others.mean()), above / below)
