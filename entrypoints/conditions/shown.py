"""What a ControlNet is shown of a picture, and the map that shows whether an image obeys it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.conditions.maps import condition_map
from entrypoints.runtime.pictures import CaptionedImage, crop, read_image
from orchestrator.contract.buckets import Size
from orchestrator.contract.conditions import BLUR, GIVEN


def condition_of(
    image: CaptionedImage,
    size: Size,
    kind: str,
    across: float = 0.5,
    down: float = 0.5,
) -> Image.Image:
    """Return what a ControlNet is shown of an image that is cut to a size as `crop` does: RGB, of that size."""
    if kind != GIVEN:
        picture = crop(read_image(image.path), size, across, down)
        return condition_map(kind, picture)
    if image.condition is None:
        raise ValueError(f"{image.path.name} has no condition")  # which has been looked for
    shown = read_image(image.condition)
    with Image.open(image.path) as picture:
        whole = picture.size
    if shown.size != whole:  # a size apart in rounding would be cut a pixel apart
        shown = shown.resize(whole, Image.Resampling.LANCZOS)
    return crop(shown, size, across, down)


def wanted_of(kind: str, given_map: str | None, picture: Image.Image, condition: Image.Image) -> Image.Image:
    """Return the map that an image has which obeys the condition of a picture.

    It is of the kind that `measured_by` names: of given maps that nobody has said the kind of, the picture's blur.
    """
    if kind == GIVEN and given_map is None:
        return condition_map(BLUR, picture)
    return condition


def bytes_of(picture: Image.Image) -> Tensor:
    """Return an RGB picture as bytes, (3, height, width)."""
    values = np.array(picture)  # (height, width, 3)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def from_bytes(pictures: Sequence[Tensor]) -> Tensor:
    """Return pictures of one size as a ControlNet takes them: (pictures, 3, height, width), from 0 to 1."""
    return torch.stack(list(pictures)).float() / 255
