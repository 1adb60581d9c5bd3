"""Pictures that training did not use, with the maps from which a ControlNet draws them anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from entrypoints.conditions.shown import condition_of, wanted_of
from entrypoints.runtime.pictures import crop_square, list_images, read_image
from orchestrator.contract.buckets import Size
from orchestrator.contract.conditions import measured_by


class ControlMap(NamedTuple):
    """A map of a picture."""

    shown: Image.Image
    """What the ControlNet is shown."""
    wanted: Image.Image
    """What images that obey it have."""
    measured_by: str
    """Kind of the latter."""


@dataclass(frozen=True)
class HeldOut:
    """A picture that training did not use."""

    picture: Image.Image
    """The picture, cut to a square."""
    maps: Mapping[str, ControlMap]
    """Its maps by their kinds."""


def held_out_pictures(folder: Path, conditions: Sequence[str], given_map: str | None, side: int) -> list[HeldOut]:
    """Return the pictures of a folder as squares, with a map of each kind; raises TrainingError("dataset")."""
    size = Size(side, side)
    found = []
    for image in list_images(folder):
        picture = crop_square(read_image(image.path), side)
        maps = {}
        for kind in conditions:
            shown = condition_of(image, size, kind)
            wanted = wanted_of(kind, given_map, picture, shown)
            maps[kind] = ControlMap(shown, wanted, measured_by(kind, given_map))
        found.append(HeldOut(picture, maps))
    return found
